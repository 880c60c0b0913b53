// The launches of fp16.
#include <winnow/winnow.cuh>

#include "support/gpu_launchers.hpp"

namespace winnow::testing {
status gpu_launch(attend_params<fp16> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(delta_params<fp16> const& p, delta_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(attend_params<fp16, fp8_e4m3> const& p, attend_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(append_params<fp16, fp8_e4m3> const& p, append_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(append_params<fp16> const& p, append_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(merge_params<fp16> const& p, merge_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(prune_params<fp16, fp8_e4m3> const& p, prune_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(prune_params<fp16> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(summarise_params<fp16> const& p, summarise_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(sparse_prefill_params<fp16> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(sparse_decode_params<fp16, fp8_e4m3> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(sparse_decode_params<fp16> const& p, sparse_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(cascade_attend_params<fp16> const& p, cascade_attend_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(cascade_insert_params<fp16> const& p, cascade_insert_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(cascade_prefill_params<fp16> const& p, cascade_prefill_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}

}  // namespace winnow::testing
