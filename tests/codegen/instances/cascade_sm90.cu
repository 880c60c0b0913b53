// The cascade score kernels for Hopper.
// arch: 90a
#include "winnow/kernel/cascade_score_sm90.cuh"

namespace winnow {

template __global__ void cascade_offsets<bf16>(cascade_hopper_arguments<bf16> const __grid_constant__);
template __global__ void cascade_score_sm90<bf16, 64>(cascade_hopper_arguments<bf16> const __grid_constant__);
template __global__ void cascade_score_sm90<bf16, 128>(cascade_hopper_arguments<bf16> const __grid_constant__);
template __global__ void cascade_score_sm90<bf16, 256>(cascade_hopper_arguments<bf16> const __grid_constant__);
template __global__ void cascade_offsets<fp16>(cascade_hopper_arguments<fp16> const __grid_constant__);
template __global__ void cascade_score_sm90<fp16, 64>(cascade_hopper_arguments<fp16> const __grid_constant__);
template __global__ void cascade_score_sm90<fp16, 128>(cascade_hopper_arguments<fp16> const __grid_constant__);
template __global__ void cascade_score_sm90<fp16, 256>(cascade_hopper_arguments<fp16> const __grid_constant__);

}  // namespace winnow
