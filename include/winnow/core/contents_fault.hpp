// What the debug check of device-side contents found: lengths, page ids and lists, none of which a launch can look at.
#pragma once

#include <cstdint>

#include "winnow/core/status.hpp"

namespace winnow {

/// Rules in the order in which they are reported.
enum class contents_rule : std::int32_t { none, key_length, page_id, list_count, block_id, ascending };

/// First broken rule. Indices that do not apply are 0.
struct contents_fault {
    unsigned long long order = ~0ull;  ///< rule and place as one number; all ones: nothing is wrong
    contents_rule rule = contents_rule::none;
    std::int32_t request = 0;
    std::int32_t list_head = 0;
    std::int32_t query_block = 0;
    std::int32_t entry = 0;  ///< of the list, or of the request's pages
    std::int32_t value = 0;  ///< what stands there
};

/// The fault as a status; ok for contents_rule::none.
constexpr status status_of(contents_fault const& fault) {
    switch (fault.rule) {
    case contents_rule::none:
        return {};
    case contents_rule::key_length:
        return fail(errc::out_of_range, "kv.length", "must lie in [0, max_length]", fault.value);
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
