// Decode over an fp8 cache, for both types of queries.
#include "winnow/kernel/attend_sm80.cuh"

namespace winnow {

template __global__ void
attend_sm80<bf16, 64, attend_rows::decode, fp8_e4m3>(attend_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm80<bf16, 128, attend_rows::decode, fp8_e4m3>(attend_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm80<bf16, 256, attend_rows::decode, fp8_e4m3>(attend_arguments<bf16> const __grid_constant__);
template __global__ void
attend_sm80<fp16, 64, attend_rows::decode, fp8_e4m3>(attend_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm80<fp16, 128, attend_rows::decode, fp8_e4m3>(attend_arguments<fp16> const __grid_constant__);
template __global__ void
attend_sm80<fp16, 256, attend_rows::decode, fp8_e4m3>(attend_arguments<fp16> const __grid_constant__);

}  // namespace winnow
