// The launches of conversions.
#include <winnow/op/convert.cuh>

#include "support/gpu_launchers.hpp"

namespace winnow::testing {

status gpu_launch(convert_params<block_selection, bsr_buffer> const& p, convert_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<block_selection, block_lists_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<block_selection, block_bits_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<block_selection, block_flags_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<block_selection, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<bsr, block_selection_buffer> const& p, convert_plan const& plan, workspace scratch,
                  cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<block_lists, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<block_bits, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(convert_params<block_flags, block_selection_buffer> const& p, convert_plan const& plan,
                  workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}
status gpu_launch(pack_pages_params const& p, convert_plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}

}  // namespace winnow::testing
