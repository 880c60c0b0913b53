// The contract between any selector and attention: for every query block a counted, ascending list of key blocks.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// Which query heads share one list.
enum class sharing : std::int32_t {
    per_batch,     ///< one list for all heads of a query block
    per_kv_group,  ///< one list per key/value head
    per_head       ///< one list per query head
};

/// Lists of key blocks. `Index` is std::int32_t const to read, std::int32_t to write.
///
/// Block i covers keys [i * block_size, (i + 1) * block_size). A list is ascending, without duplicates, and holds
/// counts(...) entries; what stands behind them is never read. Query blocks are aligned to absolute positions: a row at
/// position p uses list p / query_block - first / query_block, where `first` is the position of the request's first
/// row. So a request of n rows spans at most query_blocks_of(n, query_block) lists.
template <class Index>
struct basic_selection {
    tensor_view<Index, 4> blocks = {};       ///< [batch, list head, query block, entry], last stride 1
    tensor_view<Index, 3> counts = {};       ///< [batch, list head, query block]
    std::int32_t block_size = 0;             ///< keys per block: 8, 16, 32, 64 or 128; 0: no selection
    std::int32_t query_block = 1;            ///< query rows that share a list
    std::int32_t const* list_row = nullptr;  ///< [batch] index on axis 0 for each request; null: the request's own

    /// True if there are no lists.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool empty() const { return block_size == 0; }
    /// 1, the number of KV heads, or the number of query heads.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t list_heads() const {
        return static_cast<std::int32_t>(blocks.extent[1]);
    }
    /// Entries that a list can hold.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t capacity() const {
        return static_cast<std::int32_t>(blocks.extent[3]);
    }

    /// Lists that were written serve where lists are read.
    template <class U>
    requires(std::is_same_v<U, Index const> && !std::is_const_v<Index>) WINNOW_HOST_DEVICE constexpr
    operator basic_selection<U>() const {
        basic_selection<U> s;
        s.blocks = blocks;
        s.counts = counts;
        s.block_size = block_size;
        s.query_block = query_block;
        s.list_row = list_row;
        return s;
    }
};

/// Lists to read.
using block_selection = basic_selection<std::int32_t const>;
/// Lists to write.
using block_selection_buffer = basic_selection<std::int32_t>;

/// Query blocks that `rows` consecutive rows can touch, wherever they start.
WINNOW_HOST_DEVICE constexpr std::int32_t query_blocks_of(std::int32_t rows, std::int32_t query_block) {
    return rows <= 1 ? larger(rows, 0) : (rows - 2) / query_block + 2;
}

/// Query block of a row, counted from the request's first: see basic_selection.
WINNOW_HOST_DEVICE constexpr std::int32_t query_block_of(std::int32_t position, std::int32_t first_position,
                                                         std::int32_t query_block) {
    // Rows before position 0 see nothing; they share block 0 so that the index stays in range.
    std::int32_t const first = larger(first_position, 0);
    return position < first ? 0 : position / query_block - first / query_block;
}

/// Lists per query block for each way of sharing.
WINNOW_HOST_DEVICE constexpr std::int32_t list_heads_of(sharing s, std::int32_t heads, std::int32_t kv_heads) {
    return s == sharing::per_batch ? 1 : s == sharing::per_kv_group ? kv_heads : heads;
}

/// Index of the list that query head `head` uses.
WINNOW_HOST_DEVICE constexpr std::int32_t list_head_of(std::int32_t head, std::int32_t heads, std::int32_t list_heads) {
    return head / (heads / list_heads);
}

}  // namespace winnow
