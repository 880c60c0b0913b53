// The Hopper attention kernels of the default launch in bf16 that copy keys by TMA: every head dimension and row class.
// arch: 90a
#include "winnow/kernel/attend_sm90.cuh"

namespace winnow {

template __global__ void
attend_sm90<bf16, 64, attend_rows::medium, key_loader::boxes>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 64, attend_rows::large, key_loader::boxes>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 64, attend_rows::wide, key_loader::boxes>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 128, attend_rows::medium, key_loader::atoms>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 128, attend_rows::medium, key_loader::boxes>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 128, attend_rows::large, key_loader::atoms>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 128, attend_rows::large, key_loader::boxes>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 256, attend_rows::medium, key_loader::atoms>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 256, attend_rows::medium, key_loader::boxes>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 256, attend_rows::large, key_loader::atoms>(hopper_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm90<bf16, 256, attend_rows::large, key_loader::boxes>(hopper_arguments<bf16> const __grid_constant__);

}  // namespace winnow
