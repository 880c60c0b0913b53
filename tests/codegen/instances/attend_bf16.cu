// Every attention kernel of the default launch in bf16, and the merge of its key splits.
#include "winnow/kernel/attend_sm80.cuh"
#include "winnow/kernel/merge.cuh"

namespace winnow {

template __global__ void attend_sm80<bf16, 64, attend_rows::decode>(attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 64, attend_rows::medium>(attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 64, attend_rows::large>(attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 128, attend_rows::decode>(attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 128, attend_rows::medium>(attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 128, attend_rows::large>(attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 256, attend_rows::decode>(attend_arguments<bf16> const __grid_constant__);
template __global__ void attend_sm80<bf16, 256, attend_rows::medium>(attend_arguments<bf16> const __grid_constant__);

template __global__ void merge_splits<bf16, 64>(attend_arguments<bf16> const __grid_constant__);
template __global__ void merge_splits<bf16, 128>(attend_arguments<bf16> const __grid_constant__);
template __global__ void merge_splits<bf16, 256>(attend_arguments<bf16> const __grid_constant__);

}  // namespace winnow
