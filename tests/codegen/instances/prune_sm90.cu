// arch: 90a
// The tree search of pruning on Hopper.
#include "winnow/kernel/prune_walk_sm90.cuh"

namespace winnow {

template __global__ void
prune_walk_sm90<bf16, 64, product_unit::warpgroup>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_walk_sm90<bf16, 64, product_unit::warpgroup_few>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_walk_sm90<bf16, 128, product_unit::warpgroup>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_walk_sm90<bf16, 128, product_unit::warpgroup_few>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_walk_sm90<bf16, 256, product_unit::warpgroup>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_walk_sm90<bf16, 256, product_unit::warpgroup_few>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_walk_sm90<fp16, 64, product_unit::warpgroup>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_walk_sm90<fp16, 64, product_unit::warpgroup_few>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_walk_sm90<fp16, 128, product_unit::warpgroup>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_walk_sm90<fp16, 128, product_unit::warpgroup_few>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_walk_sm90<fp16, 256, product_unit::warpgroup>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_walk_sm90<fp16, 256, product_unit::warpgroup_few>(prune_arguments<fp16> const __grid_constant__);

}  // namespace winnow
