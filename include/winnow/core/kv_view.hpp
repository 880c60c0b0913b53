// Where the tokens of each request live inside the key, value and query tensors: contiguous, ragged, paged.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// Limit of tokens per request and rows per tensor axis: positions are int32, and tiles look a little past the end.
inline constexpr std::int64_t max_tokens = (std::int64_t{1} << 31) - (std::int64_t{1} << 20);

/// How axes 0 and 1 of a key or value tensor are to be read.
enum class kv_layout : std::int32_t {
    contiguous,   ///< [batch, token, kv_head, channel]
    ragged,       ///< [1, packed token, kv_head, channel]; request b owns rows [start[b], start[b + 1])
    block_table,  ///< [page, token in page, kv_head, channel]; pages[b * table_stride + t / page_size]
    page_list     ///< same pages; request b owns entries [start[b], start[b + 1]) of `pages` (CSR, as FlashInfer)
};

/// Index of the keys and values of a batch. All pointers are device pointers for kernels, host pointers for the
/// reference; their contents may change between launches of one plan. `start` must ascend and stay within the tensors;
/// bad page ids read as zeros. NHD and HND are a matter of the tensors' strides.
struct kv_index {
    kv_layout layout = kv_layout::contiguous;  ///< how the axes are to be read
    std::int32_t const* length = nullptr;      ///< [batch] keys per request. Null: contiguous takes the token extent,
                                               ///< ragged start[b+1]-start[b]; a page list then needs last_page_length
    std::int32_t const* start = nullptr;       ///< [batch + 1], ragged and page_list
    std::int32_t const* pages = nullptr;  ///< page ids, block_table [batch, table_stride] and page_list [start[batch]]
    std::int64_t table_stride = 0;        ///< entries between two requests of a block table
    std::int32_t const* last_page_length = nullptr;  ///< [batch], page_list: tokens in the last page
    std::int32_t max_length = 0;                     ///< bound of every length; 0: contiguous takes the token extent
};

/// Index of ragged query (and output) rows; the default says that tensors are [batch, token, head, channel].
struct query_index {
    std::int32_t const* start = nullptr;  ///< [batch + 1] first packed row of each request; tensors are [1, rows, ...]
    std::int32_t batch = 0;               ///< requests, when `start` is given
    std::int32_t max_length = 0;          ///< bound of every request's row count, when `start` is given
};

/// Which rows of each request a launch covers. `sparse_prefill` uses it to make the last rows dense.
/// `anchors` is that of delta correction alone: see core/anchor_rows.hpp.
enum class row_range : std::int32_t { all, without_tail, tail_only, anchors };

/// Extents that plans and grids are made from; they bound everything and never change between launches of one plan.
struct batch_shape {
    std::int32_t batch;        ///< requests
    std::int32_t heads;        ///< query heads
    std::int32_t kv_heads;     ///< key/value heads
    std::int32_t head_dim;     ///< channels of a head
    std::int32_t max_queries;  ///< rows of one request at most
    std::int32_t max_keys;     ///< keys of one request at most
    /// Query heads that read one key/value head.
    WINNOW_HOST_DEVICE constexpr std::int32_t group() const { return heads / kv_heads; }
    /// Equal in every extent.
    friend constexpr bool operator==(batch_shape const&, batch_shape const&) = default;
};

/// Extents of a call, from its tensors and indices.
template <class T, class KV>
WINNOW_HOST_DEVICE constexpr batch_shape shape_of(tensor_view<T const, 4> const& queries, query_index const& rows,
                                                  tensor_view<KV const, 4> const& keys, kv_index const& kv) {
    bool const packed = rows.start != nullptr;
    return {packed ? rows.batch : static_cast<std::int32_t>(queries.extent[0]),
            static_cast<std::int32_t>(queries.extent[2]),
            static_cast<std::int32_t>(keys.extent[2]),
            static_cast<std::int32_t>(queries.extent[3]),
            packed ? rows.max_length : static_cast<std::int32_t>(queries.extent[1]),
            kv.max_length > 0 || kv.layout != kv_layout::contiguous ? kv.max_length
                                                                    : static_cast<std::int32_t>(keys.extent[1])};
}

/// One request as it is at run time.
struct request_view {
    std::int32_t outer;           ///< index on axis 0 of queries and output
    std::int32_t first_row;       ///< index on axis 1 of the request's first row
    std::int32_t queries;         ///< rows
    std::int32_t keys;            ///< keys
    std::int32_t first_position;  ///< position of the first row
};

/// Reads the lengths of request `b`. Bad values are clamped to the plan's bounds so that no kernel reads outside them.
WINNOW_HOST_DEVICE constexpr request_view request_of(batch_shape const& shape, query_index const& rows,
                                                     kv_index const& kv, std::int32_t page_size, attention_mask mask,
                                                     std::int32_t b) {
    request_view r{b, 0, shape.max_queries, shape.max_keys, 0};
    if (rows.start != nullptr) {
        r.outer = 0;
        r.first_row = rows.start[b];
        r.queries = rows.start[b + 1] - r.first_row;
    }
    if (kv.length != nullptr) {
        r.keys = kv.length[b];
    } else if (kv.layout == kv_layout::ragged) {
        r.keys = kv.start[b + 1] - kv.start[b];
    } else if (kv.layout == kv_layout::page_list) {
        std::int64_t const pages = std::int64_t{kv.start[b + 1]} - kv.start[b];
        std::int64_t const keys = pages <= 0 ? 0 : (pages - 1) * page_size + kv.last_page_length[b];
        r.keys = static_cast<std::int32_t>(smaller<std::int64_t>(keys, shape.max_keys));
    }
    // A length never reaches past the rows or pages that its request owns.
    if (kv.layout == kv_layout::ragged) {
        r.keys = smaller(r.keys, kv.start[b + 1] - kv.start[b]);
    } else if (kv.layout == kv_layout::page_list) {
        r.keys = static_cast<std::int32_t>(
            smaller<std::int64_t>(r.keys, std::int64_t{kv.start[b + 1] - kv.start[b]} * page_size));
    } else if (kv.layout == kv_layout::block_table && kv.table_stride > 0) {
        std::int64_t const pages = smaller<std::int64_t>(kv.table_stride, shape.max_keys);
        r.keys = static_cast<std::int32_t>(smaller<std::int64_t>(r.keys, pages * page_size));
    }
    r.queries = smaller(larger(r.queries, 0), shape.max_queries);
    r.keys = smaller(larger(r.keys, 0), shape.max_keys);
    r.first_position = mask.offset == end_aligned ? r.keys - r.queries : mask.offset;
    return r;
}

/// Where one token lives: indices on axes 0 and 1 of the key and value tensors. `outer` < 0: nowhere (a bad page id).
struct token_location {
    std::int32_t outer;  ///< index on axis 0; below 0: nowhere
    std::int32_t token;  ///< index on axis 1
};

/// Where the page ids of request `b` begin in a paged source's table.
WINNOW_HOST_DEVICE constexpr std::int64_t first_entry(kv_index const& kv, std::int32_t b) {
    return kv.layout == kv_layout::block_table ? b * kv.table_stride : kv.start[b];
}

/// Location of key `position` (0 <= position < keys) of request `b`; page ids as they stand in the table.
WINNOW_HOST_DEVICE constexpr token_location locate_unchecked(kv_index const& kv, fast_divider page_size, std::int32_t b,
                                                             std::int32_t position) {
    if (kv.layout == kv_layout::contiguous) return {b, position};
    if (kv.layout == kv_layout::ragged) return {0, kv.start[b] + position};
    std::int32_t const entry = page_size.quotient(position);
    return {kv.pages[first_entry(kv, b) + entry], position - entry * page_size.divisor};
}

/// The same; `outer_extent` bounds page ids, others give `outer` -1.
WINNOW_HOST_DEVICE constexpr token_location locate(kv_index const& kv, fast_divider page_size,
                                                   std::int64_t outer_extent, std::int32_t b, std::int32_t position) {
    token_location at = locate_unchecked(kv, page_size, b, position);
    bool const paged = kv.layout == kv_layout::block_table || kv.layout == kv_layout::page_list;
    if (paged && (at.outer < 0 || at.outer >= outer_extent)) at.outer = -1;
    return at;
}

}  // namespace winnow
