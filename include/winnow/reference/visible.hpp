// The rows of an attention call and the keys each one sees, by the plain definition: allowed by the mask, and a sink,
// in the window, or in a listed block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "winnow/op/attend.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/rows.hpp"

namespace winnow::reference {

/// Request `b` of an attention call as it is now.
template <class T>
request_view request_of_params(attend_params<T> const& p, std::int32_t b) {
    return request_of(p.shape(), p.rows, p.kv, page_size_of(p.keys, p.kv), p.mask, b);
}

/// Marks the blocks that query head `head` of a row at `position` has listed; empty if there is no list.
/// Ids outside [0, blocks of the context) and what stands behind the count are ignored.
template <class T>
void listed_blocks(attend_params<T> const& p, request_view const& r, std::int32_t b, std::int32_t head,
                   std::int32_t position, std::vector<std::uint8_t>& listed) {
    listed.clear();
    auto const& s = p.selection;
    if (s.empty() || r.keys == 0) return;
    std::int64_t const row = s.list_row ? s.list_row[b] : b;
    if (row < 0 || row >= s.blocks.extent[0]) return;
    std::int32_t const list_head = list_head_of(head, static_cast<std::int32_t>(p.queries.extent[2]), s.list_heads());
    std::int32_t const m = query_block_of(position, r.first_position, s.query_block);
    std::int32_t const count = smaller(s.counts(row, list_head, m), s.capacity());
    std::int32_t const blocks = ceil_div(r.keys, s.block_size);
    listed.assign(static_cast<std::size_t>(blocks), 0);
    for (std::int32_t i = 0; i < count; ++i) {
        std::int32_t const id = s.blocks(row, list_head, m, i);
        if (id >= 0 && id < blocks) listed[static_cast<std::size_t>(id)] = 1;
    }
}

/// Keys that query head `head` of row `row` sees, ascending.
template <class T>
void visible_keys(attend_params<T> const& p, request_view const& r, std::int32_t b, std::int32_t head, std::int32_t row,
                  std::vector<std::int32_t>& keys) {
    std::int64_t const position = static_cast<std::int64_t>(r.first_position) + row;
    std::int64_t const look = p.mask.kind == mask_kind::causal ? position : r.keys - 1;
    std::vector<std::uint8_t> listed;
    listed_blocks(p, r, b, head, static_cast<std::int32_t>(position), listed);
    keys.clear();
    for (std::int32_t j = 0; j < r.keys && j <= look; ++j) {
        bool const in_window = j > look - p.window.recent;
        bool const is_sink = j < p.window.sinks;
        if (in_window || is_sink || (!listed.empty() && listed[static_cast<std::size_t>(j / p.selection.block_size)]))
            keys.push_back(j);
    }
}

/// One row of one query head with the keys that it sees.
template <class T>
struct visible_row {
    std::int32_t request;                    ///< index in the batch
    std::int32_t row;                        ///< row of the request
    std::int32_t outer;                      ///< index on axis 0 of queries and output
    std::int32_t token;                      ///< index on axis 1
    std::int32_t head;                       ///< query head
    request_view const* view;                ///< lengths and position of the request
    float const* query;                      ///< [head_dim]
    std::vector<std::int32_t> const* keys;   ///< positions, ascending
    std::vector<std::int32_t> const* slots;  ///< the same keys in the cache
    row_cache<T> const* cache;               ///< rows of keys and values

    /// Keys that the row sees.
    std::size_t count() const { return slots->size(); }
    /// Channels of its n-th key.
    float const* key(std::size_t n) const { return cache->key((*slots)[n]); }
    /// Channels of its n-th value.
    float const* value(std::size_t n) const { return cache->value((*slots)[n]); }
};

/// Rows that `p.range` covers, as [first, end) of the request.
struct covered_rows {
    std::int32_t first;  ///< row of the request
    std::int32_t end;    ///< one behind the last
};

/// Rows that `p.range` covers.
template <class T>
covered_rows covered(attend_params<T> const& p, request_view const& r) {
    std::int64_t cut = larger(r.queries - p.tail, 0);  // moved up to a position that tail_step divides
    while (cut > 0 && (cut + r.first_position) % p.tail_step != 0) --cut;
    auto const first_of_tail = static_cast<std::int32_t>(cut);
    switch (p.range) {
    case row_range::all:
        return {0, r.queries};
    case row_range::without_tail:
        return {0, first_of_tail};
    case row_range::tail_only:
        return {first_of_tail, r.queries};
    case row_range::anchors:  // no call of attend's
        break;
    }
    return {0, 0};
}

/// Calls f(visible_row) for every covered row and query head of valid params. Rows of one request, one KV head and one
/// block of `row_block` positions come from one thread, so `f` may add to what belongs to such a block.
template <class T, class F>
void for_each_row(attend_params<T> const& p, std::int32_t row_block, run_options const& options, F const& f) {
    batch_shape const shape = p.shape();
    std::int64_t const blocks = query_blocks_of(shape.max_queries, row_block);
    std::int64_t const items = blocks * shape.kv_heads * shape.batch;
    parallel_for(items, options, [&](std::int64_t item) {
        auto const m = static_cast<std::int32_t>(item % blocks);
        auto const kv_head = static_cast<std::int32_t>(item / blocks % shape.kv_heads);
        auto const b = static_cast<std::int32_t>(item / blocks / shape.kv_heads);
        request_view const r = request_of_params(p, b);
        covered_rows const rows = covered(p, r);
        row_cache<T> cache(p.keys, p.values, p.kv, b, kv_head, r.keys);
        std::vector<std::int32_t> keys, slots;
        std::vector<float> query(static_cast<std::size_t>(shape.head_dim));
        for (std::int32_t row = rows.first; row < rows.end; ++row) {
            std::int32_t const position = r.first_position + row;
            if (query_block_of(position, r.first_position, row_block) != m) continue;
            std::int32_t known_list = -1;
            for (std::int32_t g = 0; g < shape.group(); ++g) {
                std::int32_t const head = kv_head * shape.group() + g;
                std::int32_t const list =
                    p.selection.empty() ? 0 : list_head_of(head, shape.heads, p.selection.list_heads());
                if (list != known_list) {
                    visible_keys(p, r, b, head, row, keys);
                    slots.clear();
                    for (std::int32_t const j : keys) slots.push_back(cache.fetch(j));
                    known_list = list;
                }
                T const* const from = p.queries.data + p.queries.offset(r.outer, r.first_row + row, head);
                for (std::int32_t c = 0; c < shape.head_dim; ++c)
                    query[static_cast<std::size_t>(c)] = to_float(from[c]);
                f(visible_row<T>{b, row, r.outer, r.first_row + row, head, &r, query.data(), &keys, &slots, &cache});
            }
        }
    });
}

}  // namespace winnow::reference
