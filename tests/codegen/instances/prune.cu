// The pruning kernels of the default launch, the step counter of decode, and the debug check of contents.
#include "winnow/kernel/begin_step.cuh"
#include "winnow/kernel/check_contents.cuh"
#include "winnow/kernel/prune_score.cuh"
#include "winnow/kernel/prune_select.cuh"
#include "winnow/kernel/summarise.cuh"

namespace winnow {

template __global__ void
prune_score<bf16, 64, scorer::tree_probe, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::tree_probe, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::tree_probe, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 64, scorer::tree_probe_first, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::tree_probe_first, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::tree_probe_first, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 64, scorer::centre_probe, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::centre_probe, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::centre_probe, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 64, scorer::mean_key, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::mean_key, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::mean_key, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 64, scorer::min_max_bound, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::min_max_bound, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::min_max_bound, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 64, scorer::tree_probe, product_unit::turned>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::tree_probe, product_unit::turned>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::tree_probe, product_unit::turned>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 64, scorer::antidiagonal, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::antidiagonal, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::antidiagonal, product_unit::warp>(prune_arguments<bf16> const __grid_constant__);
template __global__ void prune_select<bf16>(prune_arguments<bf16> const __grid_constant__);
template __global__ void summarise_chunks<bf16>(summarise_arguments<bf16> const __grid_constant__);
template __global__ void find_fault<bf16>(contents_arguments<bf16> const __grid_constant__);
template __global__ void describe_fault<bf16>(contents_arguments<bf16> const __grid_constant__);

template __global__ void
prune_score<fp16, 64, scorer::tree_probe, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::tree_probe, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::tree_probe, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::tree_probe_first, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::tree_probe_first, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::tree_probe_first, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::centre_probe, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::centre_probe, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::centre_probe, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::mean_key, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::mean_key, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::mean_key, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::min_max_bound, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::min_max_bound, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::min_max_bound, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::tree_probe, product_unit::turned>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::tree_probe, product_unit::turned>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::tree_probe, product_unit::turned>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::antidiagonal, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::antidiagonal, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::antidiagonal, product_unit::warp>(prune_arguments<fp16> const __grid_constant__);
template __global__ void prune_select<fp16>(prune_arguments<fp16> const __grid_constant__);
template __global__ void summarise_chunks<fp16>(summarise_arguments<fp16> const __grid_constant__);
template __global__ void find_fault<fp16>(contents_arguments<fp16> const __grid_constant__);
template __global__ void describe_fault<fp16>(contents_arguments<fp16> const __grid_constant__);

template __global__ void begin_step<begin_step_threads>(begin_arguments const __grid_constant__);
template __global__ void advance_steps<128>(step_arguments const __grid_constant__);

}  // namespace winnow
