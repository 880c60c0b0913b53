// The launches of bf16.
#include "launch.cuh"

namespace winnow::c_api {

template status launch_as<bf16>(winnow_attend_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_prune_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_sparse_prefill_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_sparse_decode_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_append_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_merge_params const&, device_info const&, workspace, cudaStream_t);

}  // namespace winnow::c_api
