// The merge kernels of the default launch.
#include "winnow/kernel/merge.cuh"

namespace winnow {

template __global__ void merge_rows<float, 128>(merge_params<float> const __grid_constant__);
template __global__ void merge_rows<float, 256>(merge_params<float> const __grid_constant__);
template __global__ void merge_rows<float, 1024>(merge_params<float> const __grid_constant__);
template __global__ void merge_rows<bf16, 128>(merge_params<bf16> const __grid_constant__);
template __global__ void merge_rows<bf16, 256>(merge_params<bf16> const __grid_constant__);
template __global__ void merge_rows<bf16, 1024>(merge_params<bf16> const __grid_constant__);
template __global__ void merge_rows<fp16, 128>(merge_params<fp16> const __grid_constant__);
template __global__ void merge_rows<fp16, 256>(merge_params<fp16> const __grid_constant__);
template __global__ void merge_rows<fp16, 1024>(merge_params<fp16> const __grid_constant__);

}  // namespace winnow
