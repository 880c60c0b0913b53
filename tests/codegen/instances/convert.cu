// The conversion kernels: from a selection to every format, from every format to a selection, and page tables.
#include "winnow/core/convert_params.hpp"
#include "winnow/core/pack_pages.hpp"
#include "winnow/kernel/convert.cuh"

namespace winnow {

template <class To>
using from_selection = convert_job<block_selection, To>;
template <class From>
using to_selection = convert_job<From, block_selection_buffer>;

template __global__ void copy_lists(from_selection<bsr_counts> const __grid_constant__);
template __global__ void copy_lists(from_selection<bsr_buffer> const __grid_constant__);
template __global__ void copy_lists(from_selection<block_lists_buffer> const __grid_constant__);
template __global__ void copy_lists(from_selection<block_bits_buffer> const __grid_constant__);
template __global__ void copy_lists(from_selection<block_flags_buffer> const __grid_constant__);
template __global__ void copy_lists(from_selection<block_selection_buffer> const __grid_constant__);
template __global__ void copy_lists(to_selection<bsr> const __grid_constant__);
template __global__ void copy_lists(to_selection<block_lists> const __grid_constant__);
template __global__ void copy_lists(to_selection<block_bits> const __grid_constant__);
template __global__ void copy_lists(to_selection<block_flags> const __grid_constant__);
template __global__ void copy_lists(pack_pages_job const __grid_constant__);
template __global__ void sum_rows<sum_rows_threads>(sum_rows_arguments const __grid_constant__);

}  // namespace winnow
