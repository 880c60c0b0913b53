// The kernels of delta correction's default launch; attention's are in attend_*.cu.
#include "winnow/kernel/delta.cuh"

namespace winnow {

template __global__ void form_delta<bf16, 64>(delta_arguments<bf16> const __grid_constant__);
template __global__ void form_delta<bf16, 128>(delta_arguments<bf16> const __grid_constant__);
template __global__ void form_delta<bf16, 256>(delta_arguments<bf16> const __grid_constant__);
template __global__ void store_anchors<bf16, 64>(delta_arguments<bf16> const __grid_constant__);
template __global__ void store_anchors<bf16, 128>(delta_arguments<bf16> const __grid_constant__);
template __global__ void store_anchors<bf16, 256>(delta_arguments<bf16> const __grid_constant__);
template __global__ void form_delta<fp16, 64>(delta_arguments<fp16> const __grid_constant__);
template __global__ void form_delta<fp16, 128>(delta_arguments<fp16> const __grid_constant__);
template __global__ void form_delta<fp16, 256>(delta_arguments<fp16> const __grid_constant__);
template __global__ void store_anchors<fp16, 64>(delta_arguments<fp16> const __grid_constant__);
template __global__ void store_anchors<fp16, 128>(delta_arguments<fp16> const __grid_constant__);
template __global__ void store_anchors<fp16, 256>(delta_arguments<fp16> const __grid_constant__);

}  // namespace winnow
