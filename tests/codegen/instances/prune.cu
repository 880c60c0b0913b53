// What goes with pruning in the default launch: summaries, the step counter of decode, and the debug check of contents.
#include "winnow/kernel/begin_step.cuh"
#include "winnow/kernel/check_contents.cuh"
#include "winnow/kernel/prune_select.cuh"
#include "winnow/kernel/summarise.cuh"

namespace winnow {

template __global__ void summarise_chunks<bf16>(summarise_arguments<bf16> const __grid_constant__);
template __global__ void find_fault<bf16>(contents_arguments<bf16> const __grid_constant__);
template __global__ void describe_fault<bf16>(contents_arguments<bf16> const __grid_constant__);
template __global__ void summarise_chunks<fp16>(summarise_arguments<fp16> const __grid_constant__);
template __global__ void find_fault<fp16>(contents_arguments<fp16> const __grid_constant__);
template __global__ void describe_fault<fp16>(contents_arguments<fp16> const __grid_constant__);
template __global__ void begin_step<begin_step_threads>(begin_arguments const __grid_constant__);
template __global__ void advance_steps<128>(step_arguments const __grid_constant__);

}  // namespace winnow
