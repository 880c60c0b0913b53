// Looks at what only the device can see: key lengths, page ids, and the contents of a selection. For debugging.
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
    return (static_cast<unsigned long long>(rule) << 60) | (static_cast<unsigned long long>(list) << 28) |
           static_cast<unsigned long long>(entry);
}

/// Key length of a request as the tensors give it, before any clamping.
template <class T>
WINNOW_DEVICE std::int32_t stated_length(contents_arguments<T> const& a, std::int32_t b) {
    kv_index const& kv = a.params.kv;
    if (kv.length != nullptr) return kv.length[b];
    return request_of(a.shape, a.params.rows, kv, a.page_size, a.params.mask, b).keys;
}

/// Calls `report(rule, place, entry, value)` for what is wrong with request `b`.
template <class T, class Report>
WINNOW_DEVICE void check_request(contents_arguments<T> const& a, std::int32_t b, Report report) {
    kv_index const& kv = a.params.kv;
    std::int32_t const length = stated_length(a, b);
    if (length < 0 || length > a.shape.max_keys) report(contents_rule::key_length, b, 0, length);
    if (kv.layout != kv_layout::block_table && kv.layout != kv_layout::page_list) return;
    std::int64_t const first = kv.layout == kv_layout::block_table ? b * kv.table_stride : kv.start[b];
    std::int32_t const keys = request_of(a.shape, a.params.rows, kv, a.page_size, a.params.mask, b).keys;
    for (std::int32_t i = 0; i < ceil_div(keys, a.page_size); ++i) {
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
