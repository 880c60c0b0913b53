// The attention kernels that turn rows and keys, in fp16.
#include "winnow/kernel/attend_sm80.cuh"

namespace winnow {

template __global__ void attend_sm80<fp16, 64, attend_rows::decode, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 64, attend_rows::medium, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 64, attend_rows::large, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 128, attend_rows::decode, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 128, attend_rows::medium, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 128, attend_rows::large, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 256, attend_rows::decode, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 256, attend_rows::medium, fp16, key_rotation::streaming>(
    attend_arguments<fp16> const __grid_constant__);

}  // namespace winnow
