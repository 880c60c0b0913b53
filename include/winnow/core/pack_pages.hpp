// Page tables of each KV head for kernels that attend to all they are given: sinks, window and listed blocks of one row.
//
//   pages(h, b, .) = { block_table(b, j / page_size) : key j is a sink, in the window, or listed },  each page once.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/list_rows.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// Per-KV-head page tables for a decode step: one row per request, which stands at its last key (TensorRT-LLM's
/// block-sparse kvPageIdx and seqLensKv).
///
/// Sinks, window and blocks are rounded out to whole pages; block size and page size divide one another. Pages ascend by
/// position, so that only the last one may be partly filled: length = (pages - 1) * page_size + keys in the last page.
struct pack_pages_params {
    block_selection selection = {};             ///< list heads 1 or kv_heads, query block 0 is read; default: no lists
    attention_window window = {};               ///< of the attention call; the default takes every page
    kv_index kv = {};                           ///< block_table or page_list
    std::int32_t page_size = 0;                 ///< tokens per page
    tensor_view<std::int32_t, 3> pages = {};    ///< [kv_head, batch, entry], last stride 1; entries behind are left
    tensor_view<std::int32_t, 2> lengths = {};  ///< [kv_head, batch] tokens in those pages
    std::int64_t* needed = nullptr;             ///< receives 0, or the entries that would have been enough; optional

    /// Extents of the decode step: one row per request, as many query heads as KV heads, no channels.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr batch_shape shape() const {
        auto const heads = static_cast<std::int32_t>(pages.extent[0]);
        return {static_cast<std::int32_t>(pages.extent[1]), heads, heads, 0, 1, kv.max_length};
    }
};

/// Tokens in `count` packed pages of a request of `keys` keys. `with_last`: the request's last page is the last of them.
WINNOW_HOST_DEVICE constexpr std::int32_t packed_length(std::int32_t count, bool with_last, std::int32_t keys,
                                                        std::int32_t page_size) {
    if (count <= 0) return 0;
    return (count - 1) * page_size + (with_last ? (keys - 1) % page_size + 1 : page_size);
}

/// Entries that are enough for every request: what to allocate.
WINNOW_HOST_DEVICE constexpr std::int32_t packed_pages_bound(block_selection const& lists, attention_window window,
                                                             std::int32_t page_size, std::int32_t max_keys) {
    auto const pages = [&](std::int64_t keys) { return ceil_div<std::int64_t>(keys, page_size); };
    std::int64_t const recent = window.recent == 0 ? 0 : pages(window.recent - 1) + 1;  // it may begin inside a page
    std::int64_t const listed = lists.empty() ? 0 : lists.capacity() * larger<std::int64_t>(pages(lists.block_size), 1);
    return static_cast<std::int32_t>(smaller(pages(window.sinks) + recent + listed, pages(max_keys)));
}

/// Pages that one row sees, in any order and perhaps more than once: sinks, window, list.
struct page_row {
    std::int64_t count = 0;                 ///< entries, as id_row's
    std::int32_t sink_pages = 0;            ///< pages that hold sinks: [0, sink_pages)
    std::int32_t window_first = 0;          ///< first page of the window
    std::int32_t window_pages = 0;          ///< pages of the window
    std::int32_t const* blocks = nullptr;   ///< ids of the listed blocks; null: no list
    std::int32_t block_end = 0;             ///< blocks of the context
    std::int32_t log2_pages_per_block = 0;  ///< where a block is larger than a page: blocks are powers of two
    std::int32_t blocks_per_page = 1;       ///< where a page is larger than a block

    /// As id_row's: a page of the request, -1 for a listed block outside the context.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t at(std::int64_t i) const {
        if (i < sink_pages) return i;
        i -= sink_pages;
        if (i < window_pages) return window_first + i;
        auto const page = static_cast<std::int32_t>(i - window_pages);
        std::int32_t const entry = page >> log2_pages_per_block, block = blocks[entry];
        if (block < 0 || block >= block_end) return -1;
        if (log2_pages_per_block == 0) return block / blocks_per_page;
        return (std::int64_t{block} << log2_pages_per_block) + (page - (entry << log2_pages_per_block));
    }
};

/// Page ids looked up in the engine's table, and their length.
struct page_writer {
    std::int32_t const* table;  ///< page ids of the request, in the order of its keys
    std::int32_t keys;          ///< keys of the request
    std::int32_t page_size;     ///< tokens per page
    std::int32_t* pages;        ///< [capacity]
    std::int32_t capacity;      ///< page ids that fit
    std::int32_t* length;       ///< receives the tokens in the pages that were written

    /// As id_writer's.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t columns(std::int32_t limit) const { return limit; }
    /// As id_writer's.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool holds(std::int32_t entries) const { return entries <= capacity; }
    /// As id_writer's; looks each page up.
    WINNOW_HOST_DEVICE constexpr void put(std::int32_t word, std::uint32_t bits, std::int32_t before) const {
        for (std::int32_t page = word * 32; bits != 0; ++page, bits >>= 1)
            if ((bits & 1) != 0) {
                if (before < capacity) pages[before] = table[page];
                ++before;
            }
    }
    /// As id_writer's; writes the length.
    WINNOW_HOST_DEVICE constexpr void finish(std::int32_t entries, bool last, std::int32_t thread,
                                             std::int32_t /*threads*/) const {
        // Pages ascend, so a table that is cut short has lost the last one.
        if (thread == 0) *length = packed_length(smaller(entries, capacity), last && holds(entries), keys, page_size);
    }
};

/// The tables as independent lists, counted over [kv_head, batch].
struct pack_pages_job {
    pack_pages_params params;  ///< what is asked for

    /// KV head and request of list number `list`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr list_place place(std::int32_t list) const {
        auto const batch = static_cast<std::int32_t>(params.pages.extent[1]);
        return {list % batch, list / batch, 0};
    }
    /// Keys of request `b`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t keys(std::int32_t b) const {
        return request_of(params.shape(), {}, params.kv, params.page_size, causal{}, b).keys;
    }
    /// Pages that the request's row sees for the KV head.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr page_row row(std::int32_t list) const {
        list_place at = place(list);
        std::int32_t const size = params.page_size, n = keys(at.batch);
        visible_ranges const seen = ranges_of(n - 1, n, params.window);
        page_row r;
        r.sink_pages = blocks_of(seen.sink_end, size);
        r.window_first = seen.window_begin / size;
        if (seen.window_begin < seen.window_end) r.window_pages = blocks_of(seen.window_end, size) - r.window_first;
        r.count = std::int64_t{r.sink_pages} + r.window_pages;
        block_selection const& s = params.selection;
        if (s.empty() || n == 0) return r;
        at.head = list_head_of(at.head, static_cast<std::int32_t>(params.pages.extent[0]), s.list_heads());
        id_row const listed = row_of(s, at, 0);
        r.blocks = listed.ids;
        r.block_end = blocks_of(n, s.block_size);
        if (s.block_size > size)
            r.log2_pages_per_block = ceil_log2(s.block_size / size);
        else
            r.blocks_per_page = size / s.block_size;
        r.count += listed.count << r.log2_pages_per_block;
        return r;
    }
    /// The table to write.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr page_writer writer(std::int32_t list) const {
        list_place const at = place(list);
        kv_index const& kv = params.kv;
        std::int64_t const first =
            kv.layout == kv_layout::block_table ? at.batch * kv.table_stride : std::int64_t{kv.start[at.batch]};
        return {kv.pages + first,
                keys(at.batch),
                params.page_size,
                params.pages.data + params.pages.offset(at.head, at.batch),
                static_cast<std::int32_t>(params.pages.extent[2]),
                params.lengths.data + params.lengths.offset(at.head, at.batch)};
    }
    /// Pages of the request.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t limit(std::int32_t list) const {
        return blocks_of(keys(place(list).batch), params.page_size);
    }
    /// See pack_pages_params.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t* needed() const { return params.needed; }
};

}  // namespace winnow
