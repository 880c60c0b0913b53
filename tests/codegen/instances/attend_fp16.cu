// Every attention kernel of the default launch in fp16, and the merge of its key splits.
#include "winnow/kernel/attend_sm80.cuh"
#include "winnow/kernel/merge.cuh"

namespace winnow {

template __global__ void attend_sm80<fp16, 64, attend_rows::decode>(attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 64, attend_rows::medium>(attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 64, attend_rows::large>(attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 128, attend_rows::decode>(attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 128, attend_rows::medium>(attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 128, attend_rows::large>(attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 256, attend_rows::decode>(attend_arguments<fp16> const __grid_constant__);
template __global__ void attend_sm80<fp16, 256, attend_rows::medium>(attend_arguments<fp16> const __grid_constant__);

template __global__ void merge_splits<fp16, 64>(attend_arguments<fp16> const __grid_constant__);
template __global__ void merge_splits<fp16, 128>(attend_arguments<fp16> const __grid_constant__);
template __global__ void merge_splits<fp16, 256>(attend_arguments<fp16> const __grid_constant__);

}  // namespace winnow
