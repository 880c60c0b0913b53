// The launches of conversions.
#include <winnow/op/convert.cuh>

#include "support/gpu_launchers.cuh"

namespace winnow::testing {

template status gpu_launch(convert_params<block_selection, bsr_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(convert_params<block_selection, block_lists_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(convert_params<block_selection, block_bits_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(convert_params<block_selection, block_flags_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(convert_params<block_selection, block_selection_buffer> const&, convert_plan const&,
                           workspace, cudaStream_t);
template status gpu_launch(convert_params<bsr, block_selection_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(convert_params<block_lists, block_selection_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(convert_params<block_bits, block_selection_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(convert_params<block_flags, block_selection_buffer> const&, convert_plan const&, workspace,
                           cudaStream_t);
template status gpu_launch(pack_pages_params const&, convert_plan const&, workspace, cudaStream_t);

}  // namespace winnow::testing
