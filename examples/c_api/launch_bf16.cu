// The launches of bf16.
#include "launch.cuh"

namespace winnow::c_api {

template status launch_as<bf16>(winnow_attend_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_delta_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_prune_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_sparse_prefill_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_sparse_decode_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_summarise_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_append_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_merge_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_cascade_attend_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_cascade_insert_params const&, device_info const&, workspace, cudaStream_t);
template status launch_as<bf16>(winnow_cascade_prefill_params const&, device_info const&, workspace, cudaStream_t);
template status change_sequence<bf16>(winnow_cascade_cache const&, sequence_change, std::int32_t, std::int32_t,
                                      cudaStream_t);

}  // namespace winnow::c_api
