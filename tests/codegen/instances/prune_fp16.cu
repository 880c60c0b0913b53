// The pruning kernels of the default launch in fp16: every head dimension and scorer.
#include "winnow/kernel/prune_score.cuh"
#include "winnow/kernel/prune_select.cuh"

namespace winnow {

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

}  // namespace winnow
