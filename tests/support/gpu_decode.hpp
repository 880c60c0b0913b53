// A decode step on the device against the oracle, over 16-bit and over fp8 caches: its results, and the lists it keeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "winnow/reference/sparse.hpp"

namespace winnow::testing {

/// What the oracle's lists hold before a step has written them; the device's hold -1, as all device_memory.
inline constexpr std::int32_t unwritten_entry = -12345;

/// Runs a step of the oracle on host pointers, and the rounded twin over the lists that it has just refreshed. `lengths`:
/// of the requests.
template <class T, class KV>
attend_expectation expect_decode(sparse_decode_params<T, KV> const& p, std::int32_t const* lengths) {
    attend_expectation e;
    REQUIRE(reference::sparse_decode(p, &e.exact, all_threads()).ok());
    // Padded rows have neither keys nor lists.
    auto attention = attend_part(p);
    std::vector<std::int32_t> seen, rows;
    for (std::int32_t b = 0; b < p.shape().batch; ++b) {
        rows.push_back(p.cache.index()(b));
        seen.push_back(rows.back() < 0 ? 0 : lengths[b]);
    }
    attention.kv.length = seen.data();
    attention.selection.list_row = rows.data();
    REQUIRE(reference::attend_rounded(attention, e.rounded, all_threads()).ok());
    return e;
}

/// Entries that were compared, and how many of them and of the counts differ.
struct list_comparison {
    std::size_t entries = 0, differing = 0;
};

/// All lists of the oracle's cache in `p` against `found`, a copy of the device's.
template <class T, class KV>
list_comparison compare_cached_lists(sparse_decode_params<T, KV> const& p, std::vector<std::int32_t> const& found) {
    batch_shape const shape = p.shape();
    std::int32_t const list_heads = list_heads_of(p.method.sharing, shape.heads, shape.kv_heads);
    list_comparison r;
    for (std::int32_t i = 0; i < p.method.stage_count; ++i)
        for (std::int32_t s = 0; s < p.cache.slots; ++s)
            for (std::int32_t h = 0; h < list_heads; ++h) {
                auto const list = reference::cached_list_of(p, i, s, h);
                auto const at = [&](std::int32_t const* x) {
                    return found[static_cast<std::size_t>(x - p.cache.lists)];
                };
                bool const used = *list.count != unwritten_entry;
                r.differing += at(list.count) != (used ? *list.count : -1);
                for (std::int32_t n = 0; used && n < *list.count; ++n, ++r.entries)
                    r.differing += at(list.entries + n) != list.entries[n];
            }
    return r;
}

}  // namespace winnow::testing
