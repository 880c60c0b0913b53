// Conversions between a selection and the formats that engines exchange, and page tables of what a decode row sees.
//
//   to(b, h, m) = { j in from(b, h, m) : 0 <= j < key_blocks },  ascending, unique, counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "winnow/core/block_formats.hpp"
#include "winnow/core/convert_params.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/list_rows.hpp"
#include "winnow/core/pack_pages.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/check.hpp"

namespace winnow {

/// Outcome of planning either: nothing but a status.
struct convert_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< always 0
    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
};

/// Lists of one launch, and entries of a BSR matrix, are counted in int32.
inline constexpr std::int64_t max_lists = std::numeric_limits<std::int32_t>::max();

/// Extents of a format's first three axes; `query_blocks` may be 0.
template <class T>
constexpr status check_list_axes(tensor_view<T, 4> const& v, char const* extent, char const* last_stride) {
    for (int axis = 0; axis < 4; ++axis)
        if (v.extent[axis] < (axis == 1 ? 1 : 0) || v.extent[axis] > max_tokens)
            return fail(errc::bad_extent, extent, "must lie in [0, max_tokens], heads from 1", v.extent[axis]);
    if (v.extent[3] > 1 && v.stride[3] != 1) return fail(errc::bad_stride, last_stride, "must be 1", v.stride[3]);
    return {};
}

/// Validates a selection alone. Tensors to write, here and below, must name every element once.
template <class Index>
constexpr status check_format(basic_selection<Index> const& s, std::int32_t) {
    if (auto r = check_list_axes(s.blocks, "selection.blocks.extent", "selection.blocks.stride[3]"); !r) return r;
    auto const batch = static_cast<std::int32_t>(s.blocks.extent[0]), heads = s.list_heads();
    if (auto r = check_selection(s, {batch, heads, heads, 0, 0, 0}); !r) return r;
    if constexpr (!std::is_const_v<Index>) {
        if (auto r = check_distinct(s.blocks, "selection.blocks.stride"); !r) return r;
        if (auto r = check_distinct(s.counts, "selection.counts.stride"); !r) return r;
    }
    return {};
}
/// Validates a matrix alone.
template <class Index>
constexpr status check_format(basic_bsr<Index> const& f, std::int32_t key_blocks) {
    if (f.axes.batch < 0) return fail(errc::bad_extent, "axes.batch", "must be >= 0", f.axes.batch);
    if (f.axes.heads < 1) return fail(errc::bad_extent, "axes.heads", "must be >= 1", f.axes.heads);
    if (f.axes.query_blocks < 0)
        return fail(errc::bad_extent, "axes.query_blocks", "must be >= 0", f.axes.query_blocks);
    if (f.capacity < 0 || f.capacity > max_lists)
        return fail(errc::out_of_range, "capacity", "must lie in [0, 2^31)", f.capacity);
    if (f.column_stride != 0 && f.column_stride < key_blocks)
        return fail(errc::out_of_range, "column_stride", "must be 0 or >= key_blocks", f.column_stride);
    if (std::int64_t{f.axes.batch} * f.column_stride > max_lists)
        return fail(errc::out_of_range, "column_stride", "batch * column_stride must be < 2^31", f.column_stride);
    if (auto r = check_pointer(f.indptr, true, "indptr"); !r) return r;
    return check_pointer(f.indices, f.capacity > 0, "indices");
}
/// Validates counted ids alone.
template <class Index>
constexpr status check_format(basic_block_lists<Index> const& f, std::int32_t) {
    if (auto r = check_list_axes(f.ids, "ids.extent", "ids.stride[3]"); !r) return r;
    if (auto r = check_pointer(f.ids.data, f.ids.has_elements(), "ids.data"); !r) return r;
    if constexpr (!std::is_const_v<Index>)
        if (auto r = check_distinct(f.ids, "ids.stride"); !r) return r;
    if (f.counts.data == nullptr) return {};
    for (int axis = 0; axis < 3; ++axis)
        if (f.counts.extent[axis] != f.ids.extent[axis])
            return fail(errc::bad_extent, "counts.extent", "must equal the first three of ids", f.counts.extent[axis]);
    if (auto r = check_pointer(f.counts.data, true, "counts.data"); !r) return r;
    if constexpr (!std::is_const_v<Index>) return check_distinct(f.counts, "counts.stride");
    return {};
}
/// Validates bits alone: as many bytes as `key_blocks` bits take.
template <class Byte>
constexpr status check_format(basic_block_bits<Byte> const& f, std::int32_t key_blocks) {
    if (auto r = check_list_axes(f.bytes, "bytes.extent", "bytes.stride[3]"); !r) return r;
    if (f.bytes.extent[3] != bit_bytes_of(key_blocks))
        return fail(errc::bad_extent, "bytes.extent[3]", "must be ceil(key_blocks / 8)", f.bytes.extent[3]);
    if (auto r = check_pointer(f.bytes.data, f.bytes.has_elements(), "bytes.data"); !r) return r;
    if constexpr (!std::is_const_v<Byte>) return check_distinct(f.bytes, "bytes.stride");
    return {};
}
/// Validates flags alone: one for each of `key_blocks` key blocks.
template <class Byte>
constexpr status check_format(basic_block_flags<Byte> const& f, std::int32_t key_blocks) {
    if (auto r = check_list_axes(f.flags, "flags.extent", "flags.stride[3]"); !r) return r;
    if (f.flags.extent[3] != key_blocks)
        return fail(errc::bad_extent, "flags.extent[3]", "must be key_blocks", f.flags.extent[3]);
    if (auto r = check_pointer(f.flags.data, f.flags.has_elements(), "flags.data"); !r) return r;
    if constexpr (!std::is_const_v<Byte>) return check_distinct(f.flags, "flags.stride");
    return {};
}

/// True for selections, to read or to write.
template <class Format>
inline constexpr bool is_selection = false;
/// Likewise.
template <class Index>
inline constexpr bool is_selection<basic_selection<Index>> = true;

/// The field that bounds a list of a format that is written, for messages.
constexpr char const* capacity_field(block_selection_buffer const&) { return "selection.blocks.extent[3]"; }
/// Likewise, of a matrix: all lists together.
constexpr char const* capacity_field(bsr_buffer const&) { return "capacity"; }
/// Likewise, of counted ids.
constexpr char const* capacity_field(block_lists_buffer const&) { return "ids.extent[3]"; }
/// Likewise, of bits, which hold every list.
constexpr char const* capacity_field(block_bits_buffer const&) { return "bytes.extent[3]"; }
/// Likewise, of flags, which hold every list.
constexpr char const* capacity_field(block_flags_buffer const&) { return "flags.extent[3]"; }

/// What a list did not fit into; `needed` is the capacity that would have been enough.
constexpr status not_held(char const* field, std::int64_t needed) {
    return fail(errc::out_of_range, field, "must hold every list; what fits was written", needed);
}

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class From, class To>
constexpr status check(convert_params<From, To> const& p) {
    static_assert(is_selection<From> || is_selection<To>, "one side of a conversion is a selection");
    if (p.key_blocks < 0 || p.key_blocks > max_tokens / 8)
        return fail(errc::out_of_range, "key_blocks", "must lie in [0, max_tokens / 8]", p.key_blocks);
    if (auto s = check_format(p.from, p.key_blocks); !s) return s;
    if (auto s = check_format(p.to, p.key_blocks); !s) return s;
    list_axes const from = axes_of(p.from), to = axes_of(p.to);
    if (from.batch < 0 && to.batch < 0)
        return fail(errc::unsupported, "selection.list_row", "must be null on one of two sides", 0);
    if (from.batch >= 0 && to.batch >= 0 && from.batch != to.batch)
        return fail(errc::bad_extent, "batch", "must be the same on both sides", to.batch);
    if (to.heads % from.heads != 0)
        return fail(errc::bad_extent, "heads", "of `to` must be a multiple of those of `from`", to.heads);
    if (is_selection<From> ? to.query_blocks > from.query_blocks : to.query_blocks < from.query_blocks)
        return fail(errc::bad_extent, "selection.blocks.extent[2]", "must be >= the query blocks of the other format",
                    is_selection<From> ? from.query_blocks : to.query_blocks);
    std::int64_t const batch = to.batch < 0 ? from.batch : to.batch;
    if (batch * to.heads > max_lists || batch * to.heads * to.query_blocks > max_lists)
        return fail(errc::unsupported, "lists", "batch * heads * query blocks must be < 2^31", batch * to.heads);
    if (auto s = check_pointer(p.key_length, false, "key_length"); !s) return s;
    return check_pointer(p.needed, false, "needed");
}

/// Likewise.
constexpr status check(pack_pages_params const& p) {
    if (p.page_size < 1 || p.page_size > max_tokens)
        return fail(errc::out_of_range, "page_size", "must lie in [1, max_tokens]", p.page_size);
    std::int64_t const heads = p.pages.extent[0], batch = p.pages.extent[1];
    if (heads < 1 || heads > 65535)
        return fail(errc::bad_extent, "pages.extent[0]", "KV heads must lie in [1, 65535]", heads);
    if (batch < 0 || batch > 65535)
        return fail(errc::bad_extent, "pages.extent[1]", "batch must lie in [0, 65535]", batch);
    if (p.pages.extent[2] < 0 || p.pages.extent[2] > max_tokens)
        return fail(errc::bad_extent, "pages.extent[2]", "must lie in [0, max_tokens]", p.pages.extent[2]);
    if (p.pages.extent[2] > 1 && p.pages.stride[2] != 1)
        return fail(errc::bad_stride, "pages.stride[2]", "must be 1", p.pages.stride[2]);
    for (int axis = 0; axis < 2; ++axis)
        if (p.lengths.extent[axis] != p.pages.extent[axis])
            return fail(errc::bad_extent, "lengths.extent", "must equal the first two of pages",
                        p.lengths.extent[axis]);
    if (p.kv.layout != kv_layout::block_table && p.kv.layout != kv_layout::page_list)
        return fail(errc::unsupported, "kv.layout", "must be block_table or page_list",
                    static_cast<std::int64_t>(p.kv.layout));
    // The rules of a paged index are those of attention: tensors without elements stand in for queries and keys.
    tensor_view<bf16 const, 4> queries, keys;
    queries.extent[0] = batch, queries.extent[2] = heads, queries.extent[3] = 64;
    keys.extent[1] = p.page_size, keys.extent[2] = heads, keys.extent[3] = 64;
    if (auto s = check_queries_and_keys(queries, {}, keys, p.kv); !s) return s;
    if (auto s = check_window(p.window, causal{}, 1); !s) return s;
    block_selection const& lists = p.selection;
    if (!lists.empty() || lists.blocks.data != nullptr || lists.counts.data != nullptr) {
        if (auto s = check_selection(lists, p.shape()); !s) return s;
        if (lists.block_size % p.page_size != 0 && p.page_size % lists.block_size != 0)
            return fail(errc::unsupported, "page_size", "must divide selection.block_size or be a multiple of it",
                        p.page_size);
    }
    if (auto s = check_pointer(p.pages.data, p.pages.has_elements(), "pages.data"); !s) return s;
    if (auto s = check_pointer(p.lengths.data, p.lengths.has_elements(), "lengths.data"); !s) return s;
    if (auto s = check_distinct(p.pages, "pages.stride"); !s) return s;
    if (auto s = check_distinct(p.lengths, "lengths.stride"); !s) return s;
    return check_pointer(p.needed, false, "needed");
}

/// Neither takes a workspace; the plan carries the check's verdict, as every operator's does.
template <class From, class To>
constexpr convert_plan plan(convert_params<From, To> const& p, device_info const&) {
    return {check(p), 0};
}
/// Likewise.
constexpr convert_plan plan(pack_pages_params const& p, device_info const&) { return {check(p), 0}; }

}  // namespace winnow
