// The append kernels of the default launch.
#include "winnow/kernel/append.cuh"

namespace winnow {

template __global__ void append_tensors<bf16>(append_arguments<bf16> const __grid_constant__);
template __global__ void append_tensors<bf16, fp8_e4m3>(append_arguments<bf16> const __grid_constant__);
template __global__ void append_tensors<fp16>(append_arguments<fp16> const __grid_constant__);
template __global__ void append_tensors<fp16, fp8_e4m3>(append_arguments<fp16> const __grid_constant__);

}  // namespace winnow
