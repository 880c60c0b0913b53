// The launches over fp8 caches, for queries of either type.
#include "launch.cuh"

namespace winnow::c_api {

template status launch_as<bf16, fp8_e4m3>(winnow_attend_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16, fp8_e4m3>(winnow_prune_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16, fp8_e4m3>(winnow_sparse_decode_params const&, device_info const&, workspace,
                                          cudaStream_t);
template status launch_as<bf16, fp8_e4m3>(winnow_append_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<fp16, fp8_e4m3>(winnow_attend_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<fp16, fp8_e4m3>(winnow_prune_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<fp16, fp8_e4m3>(winnow_sparse_decode_params const&, device_info const&, workspace,
                                          cudaStream_t);
template status launch_as<fp16, fp8_e4m3>(winnow_append_params const&, device_info const&, workspace, cudaStream_t);

}  // namespace winnow::c_api
