// What the debug check of device-side contents found: offsets, lengths, page ids and lists, which no launch looks at.
#pragma once

#include <cstdint>

#include "winnow/core/status.hpp"

namespace winnow {

/// Rules in the order in which they are reported.
enum class contents_rule : std::int32_t {
    none,
    row_start,         ///< rows.start: ascending, inside the queries, at most rows.max_length apart
    key_start,         ///< kv.start: ascending; ragged: inside the keys
    key_length,        ///< kv.length, or the length that kv.start gives: what the request owns, kv.max_length at most
    last_page_length,  ///< kv.last_page_length: 1 to the page size
    page_id,
    list_count,
    block_id,
    ascending
};

/// First broken rule. Indices that do not apply are 0.
struct contents_fault {
    unsigned long long order = ~0ull;          ///< rule and place as one number; all ones: nothing is wrong
    contents_rule rule = contents_rule::none;  ///< the rule that is broken
    std::int32_t request = 0;                  ///< index in the batch
    std::int32_t list_head = 0;                ///< index on axis 1 of the selection
    std::int32_t query_block = 0;              ///< index on axis 2 of the selection
    std::int32_t entry = 0;  ///< of the list, of the request's pages, or of `start` (0 or 1 behind the request's)
    std::int32_t value = 0;  ///< what stands there
};

/// The fault as a status; ok for contents_rule::none.
constexpr status status_of(contents_fault const& fault) {
    switch (fault.rule) {
    case contents_rule::none:
        return {};
    case contents_rule::row_start:
        return fail(errc::out_of_range, "rows.start",
                    "must ascend in [0, queries.extent[1]], in steps of rows.max_length at most", fault.value);
    case contents_rule::key_start:
        return fail(errc::out_of_range, "kv.start", "must ascend from 0; ragged: up to keys.extent[1]", fault.value);
    case contents_rule::key_length:
        return fail(errc::out_of_range, "kv.length", "must lie in [0, kv.max_length] and in what the request owns",
                    fault.value);
    case contents_rule::last_page_length:
        return fail(errc::out_of_range, "kv.last_page_length", "must lie in [1, page size]", fault.value);
    case contents_rule::page_id:
        return fail(errc::out_of_range, "kv.pages", "ids must lie in [0, keys.extent[0])", fault.value);
    case contents_rule::list_count:
        return fail(errc::out_of_range, "selection.counts", "must lie in [0, capacity]", fault.value);
    case contents_rule::block_id:
        return fail(errc::out_of_range, "selection.blocks", "ids must lie in [0, ceil(keys / block_size))",
                    fault.value);
    case contents_rule::ascending:
        return fail(errc::not_ascending, "selection.blocks", "must be ascending and unique", fault.value);
    }
    return {};
}

}  // namespace winnow
