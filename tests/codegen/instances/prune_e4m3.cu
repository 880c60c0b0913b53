// Scores of pruning over an fp8 cache, for both types of queries.
#include "winnow/kernel/prune_score.cuh"

namespace winnow {

template __global__ void
prune_score<bf16, 64, scorer::tree_probe, product_unit::widened>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::tree_probe, product_unit::widened>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::tree_probe, product_unit::widened>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 64, scorer::centre_probe, product_unit::widened>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 128, scorer::centre_probe, product_unit::widened>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<bf16, 256, scorer::centre_probe, product_unit::widened>(prune_arguments<bf16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::tree_probe, product_unit::widened>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::tree_probe, product_unit::widened>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::tree_probe, product_unit::widened>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 64, scorer::centre_probe, product_unit::widened>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 128, scorer::centre_probe, product_unit::widened>(prune_arguments<fp16> const __grid_constant__);
template __global__ void
prune_score<fp16, 256, scorer::centre_probe, product_unit::widened>(prune_arguments<fp16> const __grid_constant__);

}  // namespace winnow
