// The cascade kernels of the default launch.
#include "winnow/kernel/cascade_decode.cuh"
#include "winnow/kernel/cascade_gather.cuh"
#include "winnow/kernel/cascade_insert.cuh"
#include "winnow/kernel/cascade_insert_token.cuh"
#include "winnow/kernel/cascade_reduce.cuh"
#include "winnow/kernel/cascade_score.cuh"
#include "winnow/kernel/cascade_token.cuh"
#include "winnow/kernel/cascade_turn.cuh"

namespace winnow {

template __global__ void cascade_gather<bf16>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_score<bf16, 64>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_score<bf16, 128>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_score<bf16, 256>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_reduce<bf16>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_segments<bf16>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_score_token<bf16>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_attend_token<bf16, 64>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_attend_token<bf16, 128>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void cascade_attend_token<bf16, 256>(cascade_attend_arguments<bf16> const __grid_constant__);
template __global__ void
cascade_decide<bf16, cascade_decide_threads::few>(cascade_insert_arguments<bf16> const __grid_constant__);
template __global__ void
cascade_decide<bf16, cascade_decide_threads::many>(cascade_insert_arguments<bf16> const __grid_constant__);
template __global__ void
cascade_move_rows<bf16, cascade_pass::stage>(cascade_insert_arguments<bf16> const __grid_constant__);
template __global__ void
cascade_move_rows<bf16, cascade_pass::place>(cascade_insert_arguments<bf16> const __grid_constant__);
template __global__ void
cascade_move_rows<bf16, cascade_pass::at_once>(cascade_insert_arguments<bf16> const __grid_constant__);
template __global__ void cascade_insert_token<bf16>(cascade_insert_arguments<bf16> const __grid_constant__);
template __global__ void cascade_turn_rows<bf16>(cascade_insert_arguments<bf16> const __grid_constant__);

template __global__ void cascade_gather<fp16>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_score<fp16, 64>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_score<fp16, 128>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_score<fp16, 256>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_reduce<fp16>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_segments<fp16>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_score_token<fp16>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_attend_token<fp16, 64>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_attend_token<fp16, 128>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void cascade_attend_token<fp16, 256>(cascade_attend_arguments<fp16> const __grid_constant__);
template __global__ void
cascade_decide<fp16, cascade_decide_threads::few>(cascade_insert_arguments<fp16> const __grid_constant__);
template __global__ void
cascade_decide<fp16, cascade_decide_threads::many>(cascade_insert_arguments<fp16> const __grid_constant__);
template __global__ void
cascade_move_rows<fp16, cascade_pass::stage>(cascade_insert_arguments<fp16> const __grid_constant__);
template __global__ void
cascade_move_rows<fp16, cascade_pass::place>(cascade_insert_arguments<fp16> const __grid_constant__);
template __global__ void
cascade_move_rows<fp16, cascade_pass::at_once>(cascade_insert_arguments<fp16> const __grid_constant__);
template __global__ void cascade_insert_token<fp16>(cascade_insert_arguments<fp16> const __grid_constant__);
template __global__ void cascade_turn_rows<fp16>(cascade_insert_arguments<fp16> const __grid_constant__);

}  // namespace winnow
