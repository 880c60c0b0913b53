// Looks at what only the device can see: offsets, lengths, page ids, and the contents of a selection. For debugging.
//
// A first kernel finds the smallest (rule, place) that is wrong, a second one looks that place up.
#pragma once

#include <cstdint>

#include "winnow/core/attend_params.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/contents_fault.hpp"

namespace winnow {

inline constexpr int contents_threads = 128;

/// Arguments of both kernels. One thread per request, and one per list.
template <class T>
struct contents_arguments {
    attend_params<T> params;
    batch_shape shape;
    std::int32_t page_size;
    contents_fault* fault;
};

/// Place of a fault as one number: rule, then list (or request), then entry.
WINNOW_HOST_DEVICE constexpr unsigned long long fault_order(contents_rule rule, std::int64_t list, std::int32_t entry) {
    // Entries from 2^28 on (pages of one key) share a place; describe_fault finds the entry itself.
    return (static_cast<unsigned long long>(rule) << 60) | (static_cast<unsigned long long>(list) << 28) |
           static_cast<unsigned long long>(smaller(entry, (1 << 28) - 1));
}

/// Two neighbouring offsets of a `start`: the entry (0 or 1) that is wrong, or -1.
WINNOW_HOST_DEVICE constexpr std::int32_t wrong_start(std::int32_t const* start, std::int64_t end, std::int64_t most) {
    if (start[0] < 0 || start[0] > end) return 0;
    std::int64_t const length = std::int64_t{start[1]} - start[0];
    return length < 0 || start[1] > end || length > most ? 1 : -1;
}

/// Offsets of request `b`; false if one is wrong, so that nothing may be looked up through them. `report(rule, place,
/// entry, value)` is told.
template <class T, class Report>
WINNOW_DEVICE bool check_starts(contents_arguments<T> const& a, std::int32_t b, Report report) {
    attend_params<T> const& p = a.params;
    if (p.rows.start != nullptr) {
        std::int32_t const* const start = p.rows.start + b;
        std::int32_t const wrong = wrong_start(start, p.queries.extent[1], p.rows.max_length);
        if (wrong >= 0) return report(contents_rule::row_start, b, wrong, start[wrong]), false;
    }
    bool const ragged = p.kv.layout == kv_layout::ragged;
    if (ragged || p.kv.layout == kv_layout::page_list) {
        std::int32_t const* const start = p.kv.start + b;
        std::int32_t const wrong = wrong_start(start, ragged ? p.keys.extent[1] : max_tokens, max_tokens);
        if (wrong >= 0) return report(contents_rule::key_start, b, wrong, start[wrong]), false;
    }
    return true;
}

/// Reports the first thing that is wrong with the offsets, length or pages of request `b`.
template <class T, class Report>
WINNOW_DEVICE void check_request(contents_arguments<T> const& a, std::int32_t b, Report report) {
    if (!check_starts(a, b, report)) return;
    kv_index const& kv = a.params.kv;
    bool const ragged = kv.layout == kv_layout::ragged, list = kv.layout == kv_layout::page_list;
    std::int64_t owned = a.shape.max_keys;
    if (ragged || list) {
        owned = (std::int64_t{kv.start[b + 1]} - kv.start[b]) * (ragged ? 1 : a.page_size);
    } else if (kv.layout == kv_layout::block_table && kv.table_stride > 0) {
        owned = smaller<std::int64_t>(kv.table_stride, a.shape.max_keys) * a.page_size;
    }
    std::int64_t length = ragged ? owned : a.shape.max_keys;
    if (kv.length != nullptr) {
        length = kv.length[b];
    } else if (list) {
        std::int32_t const last = kv.last_page_length[b];
        if (owned > 0 && (last < 1 || last > a.page_size)) return report(contents_rule::last_page_length, b, 0, last);
        length = owned > 0 ? owned - a.page_size + last : 0;
    }
    if (length < 0 || length > owned || length > a.shape.max_keys)
        return report(contents_rule::key_length, b, 0, static_cast<std::int32_t>(length));
    if (!list && kv.layout != kv_layout::block_table) return;
    std::int64_t const first = list ? kv.start[b] : b * kv.table_stride;
    for (std::int32_t i = 0; i < ceil_div<std::int64_t>(length, a.page_size); ++i) {
        std::int32_t const page = kv.pages[first + i];
        if (page < 0 || page >= a.params.keys.extent[0]) return report(contents_rule::page_id, b, i, page);
    }
}

/// The same for list `list`, counted over [request, list head, query block].
template <class T, class Report>
WINNOW_DEVICE void check_one_list(contents_arguments<T> const& a, std::int64_t list, Report report) {
    block_selection const& s = a.params.selection;
    std::int64_t const blocks = s.blocks.extent[2], heads = s.list_heads();
    auto const b = static_cast<std::int32_t>(list / (blocks * heads));
    auto const head = list / blocks % heads, block = list % blocks;
    std::int32_t const row = s.list_row == nullptr ? b : s.list_row[b];
    if (row < 0 || row >= s.blocks.extent[0]) return;  // a padded request has no list
    if (!check_starts(a, b, [](auto...) {})) return;   // reported with its request
    request_view const r = request_of(a.shape, a.params.rows, a.params.kv, a.page_size, a.params.mask, b);
    if (r.queries == 0 || block > query_block_of(r.first_position + r.queries - 1, r.first_position, s.query_block))
        return;
    std::int32_t const count = s.counts(row, head, block);
    if (count < 0 || count > s.capacity()) return report(contents_rule::list_count, list, 0, count);
    std::int32_t const* const ids = s.blocks.data + s.blocks.offset(row, head, block);
    for (std::int32_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || ids[i] >= ceil_div(r.keys, s.block_size))
            return report(contents_rule::block_id, list, i, ids[i]);
        if (i > 0 && ids[i] <= ids[i - 1]) return report(contents_rule::ascending, list, i, ids[i]);
    }
}

template <class T>
WINNOW_DEVICE std::int64_t list_count_of(contents_arguments<T> const& a) {
    block_selection const& s = a.params.selection;
    return s.empty() ? 0 : a.shape.batch * s.blocks.extent[1] * s.blocks.extent[2];
}

template <class T>
__global__ void __launch_bounds__(contents_threads) find_fault(contents_arguments<T> const __grid_constant__ a) {
    std::int64_t const i = static_cast<std::int64_t>(blockIdx.x) * contents_threads + threadIdx.x;
    auto const report = [&](contents_rule rule, std::int64_t place, std::int32_t entry, std::int32_t) {
        atomicMin(&a.fault->order, fault_order(rule, place, entry));
    };
    if (i < a.shape.batch) check_request(a, static_cast<std::int32_t>(i), report);
    if (i < list_count_of(a)) check_one_list(a, i, report);
}

template <class T>
__global__ void __launch_bounds__(1) describe_fault(contents_arguments<T> const __grid_constant__ a) {
    contents_fault found;
    found.order = a.fault->order;
    if (found.order != ~0ull) {
        auto const rule = static_cast<contents_rule>(found.order >> 60);
        auto const place = static_cast<std::int64_t>((found.order >> 28) & 0xffffffffu);
        auto const report = [&](contents_rule r, std::int64_t, std::int32_t entry, std::int32_t value) {
            if (r != rule) return;
            found.rule = r;
            found.entry = entry;
            found.value = value;
        };
        if (rule <= contents_rule::page_id) {
            found.request = static_cast<std::int32_t>(place);
            check_request(a, found.request, report);
        } else {
            block_selection const& s = a.params.selection;
            std::int64_t const blocks = s.blocks.extent[2], heads = s.list_heads();
            found.request = static_cast<std::int32_t>(place / (blocks * heads));
            found.list_head = static_cast<std::int32_t>(place / blocks % heads);
            found.query_block = static_cast<std::int32_t>(place % blocks);
            check_one_list(a, place, report);
        }
    }
    *a.fault = found;
}

}  // namespace winnow
