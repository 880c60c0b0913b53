// Formats in which engines exchange lists of key blocks: compressed rows (BSR), counted ids, bits and flags.
//
//   Each format holds, for every (batch, head, query block), the set of key blocks that its rows see; ids count from 0.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// How many lists a format holds.
struct list_axes {
    std::int32_t batch = 0;         ///< requests
    std::int32_t heads = 0;         ///< list heads, as a selection's
    std::int32_t query_blocks = 0;  ///< query blocks of a request

    /// Lists in all.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t count() const {
        return std::int64_t{batch} * heads * query_blocks;
    }
};

/// Block compressed sparse rows (SciPy's bsr_matrix without values; FlashInfer's block sparse wrapper).
///
/// Row r holds indices[indptr[r]] .. indices[indptr[r + 1] - 1], and r = (head * batch + b) * query_blocks + block. So
/// `indptr + (head * batch + b) * query_blocks`, query_blocks + 1 entries of it, is the matrix of one request and head,
/// and the whole is one FlashInfer BSR where batch and heads are 1. A block is (R, C) = (query_block, block_size).
///
/// column_stride 0: ids count from the request's own first key block. column_stride n: ids of request b have b * n
/// added, so that the batch * query_blocks rows of one head are a block-diagonal matrix over contiguous keys.
template <class Index>
struct basic_bsr {
    Index* indptr = nullptr;         ///< [axes.count() + 1], ascending from 0
    Index* indices = nullptr;        ///< [capacity]
    std::int64_t capacity = 0;       ///< entries of `indices`; below 2^31
    list_axes axes = {};             ///< lists of the matrix, one a row
    std::int32_t column_stride = 0;  ///< ids of request b have b times it added

    /// A format that was written serves where one is read.
    template <class U>
    requires(std::is_same_v<U, Index const> && !std::is_const_v<Index>) WINNOW_HOST_DEVICE constexpr
    operator basic_bsr<U>() const {
        return {indptr, indices, capacity, axes, column_stride};
    }
};

/// Counted ids: PyTorch's BlockMask (kv_num_blocks, kv_indices), FlashAttention-4 (mask_block_cnt, mask_block_idx), and
/// with one head and one query block SGLang's (valid_lengths, selected_indices).
template <class Index>
struct basic_block_lists {
    tensor_view<Index, 4> ids = {};     ///< [batch, head, query block, entry], last stride 1
    tensor_view<Index, 3> counts = {};  ///< [batch, head, query block]; null to read: every entry counts, and negative
                                        ///< ones are padding; null to write: none are wanted
    std::int32_t padding = 0;           ///< written behind the count: 0 for BlockMask, -1 for SGLang

    /// A format that was written serves where one is read.
    template <class U>
    requires(std::is_same_v<U, Index const> && !std::is_const_v<Index>) WINNOW_HOST_DEVICE constexpr
    operator basic_block_lists<U>() const {
        return {ids, counts, padding};
    }
};

/// One bit per key block, the least significant first: bit i of byte n is key block 8 n + i. With blocks of 128 queries
/// and 128 keys it is cuDNN's block mask. Bits behind the last key block are written 0 and not read.
template <class Byte>
struct basic_block_bits {
    tensor_view<Byte, 4> bytes = {};  ///< [batch, head, query block, ceil(key blocks / 8)], last stride 1

    /// A format that was written serves where one is read.
    template <class U>
    requires(std::is_same_v<U, Byte const> && !std::is_const_v<Byte>) WINNOW_HOST_DEVICE constexpr
    operator basic_block_bits<U>() const {
        return {bytes};
    }
};

/// One byte per key block, written 0 or 1, read as zero or not: Block-Sparse-Attention's base_blockmask and FlashInfer's
/// block_mask_map. A bool array is one by reinterpret_cast.
template <class Byte>
struct basic_block_flags {
    tensor_view<Byte, 4> flags = {};  ///< [batch, head, query block, key block], last stride 1

    /// A format that was written serves where one is read.
    template <class U>
    requires(std::is_same_v<U, Byte const> && !std::is_const_v<Byte>) WINNOW_HOST_DEVICE constexpr
    operator basic_block_flags<U>() const {
        return {flags};
    }
};

/// Matrix to read.
using bsr = basic_bsr<std::int32_t const>;
/// Matrix to write.
using bsr_buffer = basic_bsr<std::int32_t>;
/// Counted ids to read.
using block_lists = basic_block_lists<std::int32_t const>;
/// Counted ids to write.
using block_lists_buffer = basic_block_lists<std::int32_t>;
/// Bits to read.
using block_bits = basic_block_bits<std::uint8_t const>;
/// Bits to write.
using block_bits_buffer = basic_block_bits<std::uint8_t>;
/// Flags to read.
using block_flags = basic_block_flags<std::uint8_t const>;
/// Flags to write.
using block_flags_buffer = basic_block_flags<std::uint8_t>;

}  // namespace winnow
