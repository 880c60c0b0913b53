// Writes new rows of keys and values into a paged or contiguous cache, with optional rotary embedding.
//
//   cache[slot / page_size, slot % page_size] = rotated(row, position),   or the row as it is without a rotation
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/append_params.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/tensor_view.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/check.hpp"
#include "winnow/op/check_rope.hpp"

namespace winnow {

/// Limit of rows of one append: a grid has less than 2^31 blocks.
inline constexpr std::int64_t max_append_rows = std::int64_t{1} << 28;

/// Outcome of planning: nothing but a status.
struct append_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< always 0
    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
};

namespace detail {

/// Names of one tensor's fields.
struct append_names {
    char const* data;
    char const* extent;
    char const* head_dim;
    char const* last_stride;
    char const* stride;
};

/// Rows [row, head, channel]: extents, then channels as 16-byte vectors.
template <class T>
constexpr status check_append_rows(tensor_view<T, 3> const& view, append_names const& names) {
    if (view.extent[0] < 0 || view.extent[0] > max_append_rows)
        return fail(errc::bad_extent, names.extent, "rows must lie in [0, max_append_rows]", view.extent[0]);
    if (view.extent[1] < 1 || view.extent[1] > 65535)
        return fail(errc::bad_extent, names.extent, "heads must lie in [1, 65535]", view.extent[1]);
    if (view.extent[2] < 8 || view.extent[2] > 1024 || view.extent[2] % 8 != 0)
        return fail(errc::unsupported, names.head_dim, "head_dim must be a multiple of 8 in [8, 1024]", view.extent[2]);
    return check_channels(view, names.data, names.last_stride, names.stride);
}

/// A cache [page, token, kv_head, channel] that takes `rows`.
template <class T>
constexpr status check_append_cache(tensor_view<T, 4> const& cache, tensor_view<T const, 3> const& rows,
                                    append_names const& names) {
    for (int axis = 0; axis < 2; ++axis)
        if (cache.extent[axis] < axis || cache.extent[axis] > max_tokens)
            return fail(errc::bad_extent, names.extent,
                        "pages must lie in [0, max_tokens], page size in [1, max_tokens]", cache.extent[axis]);
    for (int axis = 1; axis < 3; ++axis)
        if (cache.extent[axis + 1] != rows.extent[axis])
            return fail(errc::bad_extent, axis == 1 ? names.extent : names.head_dim, "must equal that of the rows",
                        cache.extent[axis + 1]);
    if (auto s = check_channels(cache, names.data, names.last_stride, names.stride); !s) return s;
    return check_distinct(cache, names.stride);
}

}  // namespace detail

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(append_params<T> const& p) {
    if (p.scales.key != nullptr || p.scales.value != nullptr)
        return fail(errc::unsupported, "scales", "are for fp8 caches", p.scales.heads);
    if (auto s = detail::check_append_rows(
            p.keys, {"keys.data", "keys.extent", "keys.extent[2]", "keys.stride[2]", "keys.stride"});
        !s)
        return s;
    if (auto s = detail::check_append_cache(
            p.key_cache, p.keys,
            {"key_cache.data", "key_cache.extent", "key_cache.extent[3]", "key_cache.stride[3]", "key_cache.stride"});
        !s)
        return s;
    std::int64_t const rows = p.keys.extent[0];
    if (p.takes_values()) {
        if (auto s = detail::check_append_rows(
                p.values, {"values.data", "values.extent", "values.extent[2]", "values.stride[2]", "values.stride"});
            !s)
            return s;
        for (int axis = 0; axis < 2; ++axis) {
            if (p.values.extent[axis] != p.keys.extent[axis])
                return fail(errc::bad_extent, "values.extent", "rows and heads must equal those of keys",
                            p.values.extent[axis]);
            if (p.value_cache.extent[axis] != p.key_cache.extent[axis])
                return fail(errc::bad_extent, "value_cache.extent", "pages and page size must equal those of key_cache",
                            p.value_cache.extent[axis]);
        }
        if (auto s = detail::check_append_cache(p.value_cache, p.values,
                                                {"value_cache.data", "value_cache.extent", "value_cache.extent[3]",
                                                 "value_cache.stride[3]", "value_cache.stride"});
            !s)
            return s;
    }
    if (auto s = check_pointer(p.slot, rows > 0, "slot"); !s) return s;
    if (auto s = check_rope(p.rotation, p.keys.extent[2]); !s) return s;
    if (auto s = check_pointer(p.position, rows > 0 && !p.rotation.empty(), "position"); !s) return s;
    if (!p.takes_queries()) return {};
    if (p.rotation.empty())
        return fail(errc::unsupported, "queries.data", "queries are only rotated: give a rotation or no queries", 0);
    if (auto s = detail::check_append_rows(
            p.queries, {"queries.data", "queries.extent", "queries.extent[2]", "queries.stride[2]", "queries.stride"});
        !s)
        return s;
    if (p.queries.extent[0] != rows)
        return fail(errc::bad_extent, "queries.extent", "rows must equal those of keys", p.queries.extent[0]);
    if (p.queries.extent[2] != p.keys.extent[2])
        return fail(errc::bad_extent, "queries.extent[2]", "must equal keys.extent[2]", p.queries.extent[2]);
    return check_distinct(p.queries, "queries.stride");
}

/// The same call with an fp8 cache passed off as T's, see stored_view; the scales stay behind. All fields are named, as
/// in over_cache.
template <class T>
append_params<T> as_stored(append_params<T, fp8_e4m3> const& p) {
    auto const& [keys, values, key_cache, value_cache, slot, position, rotation, queries, scales] = p;
    return {keys,    values,        stored_view<T>(key_cache), stored_view<T>(value_cache), slot, position, rotation,
            queries, cache_scales()};
}

/// The same for an fp8 cache. Strides of the cache are multiples of 8 elements here; attention wants 16.
template <class T>
status check(append_params<T, fp8_e4m3> const& p) {
    if (auto s = check(as_stored(p)); !s) return s;
    if (p.scales.heads != 1 && p.scales.heads != p.keys.extent[1])
        return fail(errc::bad_extent, "scales.heads", "must be 1 or the number of KV heads", p.scales.heads);
    if (auto s = check_pointer(p.scales.key, false, "scales.key"); !s) return s;
    return check_pointer(p.scales.value, false, "scales.value");
}

/// The same for an fp8 cache.
template <class T>
append_plan plan(append_params<T, fp8_e4m3> const& p, device_info const&) {
    return {check(p), 0};
}

/// Appending needs no workspace; the plan carries the check's verdict, as every operator's does.
template <class T>
constexpr append_plan plan(append_params<T> const& p, device_info const&) {
    return {check(p), 0};
}

}  // namespace winnow
