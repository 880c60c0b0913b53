// The launches of bf16 and float, and what needs no element type.
#include <winnow/winnow.cuh>

#include "support/gpu_launchers.cuh"

namespace winnow::testing {

template status gpu_launch(attend_params<bf16> const&, attend_plan const&, workspace, cudaStream_t);
template status gpu_launch(attend_params<bf16, fp8_e4m3> const&, attend_plan const&, workspace, cudaStream_t);
template status gpu_launch(append_params<bf16> const&, append_plan const&, workspace, cudaStream_t);
template status gpu_launch(append_params<bf16, fp8_e4m3> const&, append_plan const&, workspace, cudaStream_t);
template status gpu_launch(prune_params<bf16> const&, prune_plan const&, workspace, cudaStream_t);
template status gpu_launch(prune_params<bf16, fp8_e4m3> const&, prune_plan const&, workspace, cudaStream_t);
template status gpu_launch(sparse_decode_params<bf16> const&, sparse_plan const&, workspace, cudaStream_t);
template status gpu_launch(sparse_decode_params<bf16, fp8_e4m3> const&, sparse_plan const&, workspace, cudaStream_t);
template status gpu_launch(sparse_prefill_params<bf16> const&, sparse_plan const&, workspace, cudaStream_t);
template status gpu_launch(delta_params<bf16> const&, delta_plan const&, workspace, cudaStream_t);
template status gpu_launch(summarise_params<bf16> const&, summarise_plan const&, workspace, cudaStream_t);
template status gpu_launch(merge_params<bf16> const&, merge_plan const&, workspace, cudaStream_t);
template status gpu_launch(cascade_attend_params<bf16> const&, cascade_attend_plan const&, workspace, cudaStream_t);
template status gpu_launch(cascade_insert_params<bf16> const&, cascade_insert_plan const&, workspace, cudaStream_t);
template status gpu_launch(cascade_prefill_params<bf16> const&, cascade_prefill_plan const&, workspace, cudaStream_t);
template status gpu_launch(merge_params<float> const&, merge_plan const&, workspace, cudaStream_t);

template status gpu_contents_check(attend_params<bf16> const&, contents_fault*, cudaStream_t);
template status gpu_contents_check(attend_params<bf16, fp8_e4m3> const&, contents_fault*, cudaStream_t);

status gpu_query_device(device_info& out, int ordinal) { return query_device(out, ordinal); }

status gpu_launch_128_large(attend_params<bf16> const& p, attend_plan const& plan, workspace scratch,
                            cudaStream_t stream) {
    return launch<attend_problem{128, attend_rows::large}>(p, plan, scratch, stream);
}

status gpu_cascade_reset(cascade_cache<bf16> const& cache, std::int32_t sequence, cudaStream_t stream) {
    return cascade_reset(cache, sequence, stream);
}
status gpu_cascade_clear(cascade_cache<bf16> const& cache, std::int32_t sequence, cudaStream_t stream) {
    return cascade_clear(cache, sequence, stream);
}
status gpu_cascade_fork(cascade_cache<bf16> const& cache, std::int32_t from, std::int32_t to, cudaStream_t stream) {
    return cascade_fork(cache, from, to, stream);
}

}  // namespace winnow::testing
