// The launches of bf16 and float, and what needs no element type.
#include <winnow/winnow.cuh>

#include "support/gpu_launchers.hpp"

namespace winnow::testing {
status gpu_query_device(device_info& out, int ordinal) { return query_device(out, ordinal); }

status gpu_launch(attend_params<bf16> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch_128_large(attend_params<bf16> const& p, attend_plan const& plan, workspace scratch,
                            cudaStream_t stream) {
    return launch<attend_problem{128, attend_rows::large}>(p, plan, scratch, stream);
}
status gpu_launch(delta_params<bf16> const& p, delta_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(attend_params<bf16, fp8_e4m3> const& p, attend_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(append_params<bf16, fp8_e4m3> const& p, append_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(append_params<bf16> const& p, append_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(merge_params<bf16> const& p, merge_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(merge_params<float> const& p, merge_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(prune_params<bf16, fp8_e4m3> const& p, prune_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(prune_params<bf16> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(summarise_params<bf16> const& p, summarise_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(sparse_prefill_params<bf16> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(sparse_decode_params<bf16, fp8_e4m3> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(sparse_decode_params<bf16> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(cascade_attend_params<bf16> const& p, cascade_attend_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(cascade_insert_params<bf16> const& p, cascade_insert_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(cascade_prefill_params<bf16> const& p, cascade_prefill_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
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

status gpu_contents_check(attend_params<bf16, fp8_e4m3> const& p, contents_fault* fault, cudaStream_t stream) {
    return launch_contents_check(p, fault, stream);
}
status gpu_contents_check(attend_params<bf16> const& p, contents_fault* fault, cudaStream_t stream) {
    return launch_contents_check(p, fault, stream);
}

}  // namespace winnow::testing
