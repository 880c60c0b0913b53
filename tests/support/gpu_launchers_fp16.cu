// The launches of fp16.
#include <winnow/winnow.cuh>

#include "support/gpu_launchers.cuh"

namespace winnow::testing {

template status gpu_launch(attend_params<fp16> const&, attend_plan const&, workspace, cudaStream_t);
template status gpu_launch(attend_params<fp16, fp8_e4m3> const&, attend_plan const&, workspace, cudaStream_t);
template status gpu_launch(append_params<fp16> const&, append_plan const&, workspace, cudaStream_t);
template status gpu_launch(append_params<fp16, fp8_e4m3> const&, append_plan const&, workspace, cudaStream_t);
template status gpu_launch(prune_params<fp16> const&, prune_plan const&, workspace, cudaStream_t);
template status gpu_launch(prune_params<fp16, fp8_e4m3> const&, prune_plan const&, workspace, cudaStream_t);
template status gpu_launch(sparse_decode_params<fp16> const&, sparse_plan const&, workspace, cudaStream_t);
template status gpu_launch(sparse_decode_params<fp16, fp8_e4m3> const&, sparse_plan const&, workspace, cudaStream_t);
template status gpu_launch(sparse_prefill_params<fp16> const&, sparse_plan const&, workspace, cudaStream_t);
template status gpu_launch(delta_params<fp16> const&, delta_plan const&, workspace, cudaStream_t);
template status gpu_launch(summarise_params<fp16> const&, summarise_plan const&, workspace, cudaStream_t);
template status gpu_launch(merge_params<fp16> const&, merge_plan const&, workspace, cudaStream_t);
template status gpu_launch(cascade_attend_params<fp16> const&, cascade_attend_plan const&, workspace, cudaStream_t);
template status gpu_launch(cascade_insert_params<fp16> const&, cascade_insert_plan const&, workspace, cudaStream_t);
template status gpu_launch(cascade_prefill_params<fp16> const&, cascade_prefill_plan const&, workspace, cudaStream_t);

}  // namespace winnow::testing
