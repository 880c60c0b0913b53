// The attention kernels that turn rows and keys, in bf16.
#include "winnow/kernel/attend_sm80.cuh"

namespace winnow {

template __global__ void attend_sm80<bf16, 64, attend_rows::decode, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 64, attend_rows::medium, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 64, attend_rows::large, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 128, attend_rows::decode, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 128, attend_rows::medium, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 128, attend_rows::large, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 256, attend_rows::decode, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 256, attend_rows::medium, bf16, key_rotation::streaming>(
    attend_arguments<bf16> const __grid_constant__);

}  // namespace winnow
