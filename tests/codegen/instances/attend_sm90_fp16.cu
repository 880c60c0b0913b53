// The Hopper attention kernels of the default launch in fp16 that copy keys by TMA: every head dimension and row class.
// arch: 90a
#include "winnow/kernel/attend_sm90.cuh"

namespace winnow {

template __global__ void
attend_sm90<fp16, 64, attend_rows::medium, key_loader::boxes>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 64, attend_rows::large, key_loader::boxes>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 64, attend_rows::wide, key_loader::boxes>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 128, attend_rows::medium, key_loader::atoms>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 128, attend_rows::medium, key_loader::boxes>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 128, attend_rows::large, key_loader::atoms>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 128, attend_rows::large, key_loader::boxes>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 256, attend_rows::medium, key_loader::atoms>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 256, attend_rows::medium, key_loader::boxes>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 256, attend_rows::large, key_loader::atoms>(hopper_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm90<fp16, 256, attend_rows::large, key_loader::boxes>(hopper_arguments<fp16> const __grid_constant__);

}  // namespace winnow
