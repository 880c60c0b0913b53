// Rules that several operators share, each reported with field, rule and value; nothing here reads device memory.
#pragma once

#include <cstdint>

#include "winnow/core/cache_scales.hpp"
#include "winnow/core/dispatch.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/prune_stages.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/tensor_view.hpp"
#include "winnow/core/workspace.hpp"

namespace winnow {

/// Head dimensions that the default launches instantiate.
using supported_head_dims = value_list<64, 128, 256>;
/// Scorers that the default launch of pruning instantiates.
using supported_scorers = value_list<scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe,
                                     scorer::mean_key, scorer::min_max_bound, scorer::antidiagonal>;
/// The same over fp8 keys: those of the presets, since every other costs compile time.
using widened_scorers = value_list<scorer::tree_probe, scorer::centre_probe>;

/// Keys per block of a selection.
using supported_block_sizes = value_list<8, 16, 32, 64, 128>;

/// Limit of query rows that share a list: a position and a block beyond it still fit int32.
inline constexpr std::int64_t max_query_block = std::int64_t{1} << 20;

/// A float as the value of a status: rounded away from 0, at most +-2^31, NaN as 0.
constexpr std::int64_t reported(float x) {
    constexpr float most = 2147483648.0f;
    if (x != x) return 0;
    float const bounded = smaller(larger(x, -most), most);
    auto const whole = static_cast<std::int64_t>(bounded);
    return static_cast<float>(whole) == bounded ? whole : whole + (x > 0 ? 1 : -1);
}

/// A value of an enumeration whose enumerators run from 0 to `last`; bindings pass integers through casts.
template <class Enum>
constexpr status check_enum(Enum value, Enum last, char const* field) {
    auto const found = static_cast<std::int64_t>(value);
    bool const known = found >= 0 && found <= static_cast<std::int64_t>(last);
    return known ? status{} : fail(errc::out_of_range, field, "must be one of the enumerators", found);
}

/// A pointer whose elements are read or written one at a time; `needed`: it must not be null.
template <class T>
constexpr status check_pointer(T const* data, bool needed, char const* field) {
    if (data == nullptr) return needed ? fail(errc::null_pointer, field, "must not be null", 0) : status{};
    if (std::is_constant_evaluated()) return {};
    auto const beyond = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(data) % alignof(T));
    return beyond == 0 ? status{} : fail(errc::misaligned, field, "must be aligned to its element", beyond);
}

/// A tensor that is written: no two indices of an axis may name the same element.
template <class T, int Rank>
constexpr status check_distinct(tensor_view<T, Rank> const& view, char const* field) {
    for (int axis = 0; axis < Rank && view.has_elements(); ++axis)
        if (view.extent[axis] > 1 && view.stride[axis] == 0)
            return fail(errc::bad_stride, field, "must not be 0: the tensor is written", 0);
    return {};
}

/// A tensor whose channels are read 16 bytes at a time: pointer and every stride aligned, channels adjacent.
template <class T, int Rank>
constexpr status check_channels(tensor_view<T, Rank> const& view, char const* data, char const* last,
                                char const* others) {
    if (!view.has_elements()) return {};
    if (view.data == nullptr) return fail(errc::null_pointer, data, "must not be null", 0);
    if (view.stride[Rank - 1] != 1) return fail(errc::bad_stride, last, "must be 1", view.stride[Rank - 1]);
    std::int64_t const step = 16 / static_cast<std::int64_t>(sizeof(T));
    for (int axis = 0; axis < Rank - 1; ++axis)
        if (view.extent[axis] > 1 && view.stride[axis] % step != 0)
            return fail(errc::misaligned, others, "must be a multiple of 16 bytes", view.stride[axis]);
    if (!std::is_constant_evaluated() && reinterpret_cast<std::uintptr_t>(view.data) % 16 != 0)
        return fail(errc::misaligned, data, "must be 16-byte aligned",
                    static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(view.data) % 16));
    return {};
}

/// A view whose elements are passed off as T's where they are stored as something else. Neither to be read nor written.
template <class T>
tensor_view<T const, 4> stored_view(tensor_view<fp8_e4m3 const, 4> const& from) {
    return from.over(reinterpret_cast<T const*>(from.data));
}
/// The same for elements that a call writes.
template <class T>
tensor_view<T, 4> stored_view(tensor_view<fp8_e4m3, 4> const& from) {
    return from.over(reinterpret_cast<T*>(from.data));
}
/// Elements that are T's already.
template <class T>
constexpr tensor_view<T const, 4> stored_view(tensor_view<T const, 4> const& from) {
    return from;
}

/// Scales of an fp8 cache.
constexpr status check_scales(cache_scales const& scales, std::int64_t kv_heads) {
    if (scales.heads != 1 && scales.heads != kv_heads)
        return fail(errc::bad_extent, "scales.heads", "must be 1 or the number of KV heads", scales.heads);
    if (auto s = check_pointer(scales.key, false, "scales.key"); !s) return s;
    return check_pointer(scales.value, false, "scales.value");
}

/// Queries [batch, token, head, channel] and keys [outer, token, kv_head, channel] with their indices.
template <class T>
constexpr status check_queries_and_keys(tensor_view<T const, 4> const& queries, query_index const& rows,
                                        tensor_view<T const, 4> const& keys, kv_index const& kv) {
    static_assert(dtype_of<T> == dtype::bf16 || dtype_of<T> == dtype::fp16,
                  "queries, keys and values are bf16 or fp16");
    for (int axis = 0; axis < 4; ++axis) {
        if (queries.extent[axis] < 0 || queries.extent[axis] > max_tokens)
            return fail(errc::bad_extent, "queries.extent", "must lie in [0, max_tokens]", queries.extent[axis]);
        if (keys.extent[axis] < 0 || keys.extent[axis] > max_tokens)
            return fail(errc::bad_extent, "keys.extent", "must lie in [0, max_tokens]", keys.extent[axis]);
    }
    std::int64_t const head_dim = queries.extent[3];
    if (!supported_head_dims::contains(head_dim))
        return fail(errc::unsupported, "queries.extent[3]", "head_dim must be 64, 128 or 256", head_dim);
    if (keys.extent[3] != head_dim)
        return fail(errc::bad_extent, "keys.extent[3]", "must equal queries.extent[3]", keys.extent[3]);
    if (keys.extent[2] < 1) return fail(errc::bad_extent, "keys.extent[2]", "must be >= 1", keys.extent[2]);
    if (queries.extent[2] < 1 || queries.extent[2] % keys.extent[2] != 0)
        return fail(errc::bad_extent, "queries.extent[2]", "heads must be a positive multiple of kv_heads",
                    queries.extent[2]);
    if (queries.extent[2] > 65535)
        return fail(errc::unsupported, "queries.extent[2]", "heads must be <= 65535", queries.extent[2]);
    if (auto s = check_channels(queries, "queries.data", "queries.stride[3]", "queries.stride"); !s) return s;
    if (auto s = check_channels(keys, "keys.data", "keys.stride[3]", "keys.stride"); !s) return s;

    if (rows.start == nullptr && (rows.batch != 0 || rows.max_length != 0))
        return fail(errc::null_pointer, "rows.start", "ragged rows need it", 0);
    if (rows.start != nullptr) {
        if (queries.extent[0] != 1)
            return fail(errc::bad_extent, "queries.extent[0]", "must be 1 for ragged rows", queries.extent[0]);
        if (rows.batch < smaller<std::int64_t>(queries.extent[1], 1))
            return fail(errc::bad_extent, "rows.batch", "must be >= 1 where there are rows", rows.batch);
        if (rows.max_length < smaller<std::int64_t>(queries.extent[1], 1) || rows.max_length > queries.extent[1])
            return fail(errc::out_of_range, "rows.max_length", "must lie in [1, queries.extent[1]]", rows.max_length);
    }
    std::int64_t const batch = rows.start != nullptr ? rows.batch : queries.extent[0];
    if (batch > 65535) return fail(errc::unsupported, "batch", "must be <= 65535", batch);
    if (auto s = check_enum(kv.layout, kv_layout::page_list, "kv.layout"); !s) return s;
    if (kv.max_length < 0 || kv.max_length > max_tokens)
        return fail(errc::out_of_range, "kv.max_length", "must lie in [0, max_tokens]", kv.max_length);
    // A forgotten bound would clamp every length to 0.
    if (kv.layout != kv_layout::contiguous && batch > 0 && kv.max_length == 0)
        return fail(errc::out_of_range, "kv.max_length", "must be >= 1 for ragged and paged keys", 0);
    switch (kv.layout) {
    case kv_layout::contiguous:
        if (kv.start != nullptr || kv.pages != nullptr)
            return fail(errc::unsupported, "kv.layout", "contiguous keys take neither kv.start nor kv.pages", 0);
        if (keys.extent[0] != batch)
            return fail(errc::bad_extent, "keys.extent[0]", "must equal the batch", keys.extent[0]);
        if (kv.max_length > keys.extent[1])
            return fail(errc::out_of_range, "kv.max_length", "must be <= keys.extent[1]", kv.max_length);
        break;
    case kv_layout::ragged:
        if (keys.extent[0] != 1)
            return fail(errc::bad_extent, "keys.extent[0]", "must be 1 for ragged keys", keys.extent[0]);
        if (kv.start == nullptr && batch > 0) return fail(errc::null_pointer, "kv.start", "ragged keys need it", 0);
        if (kv.max_length > larger<std::int64_t>(keys.extent[1], 1))  // a batch of empty requests has no row at all
            return fail(errc::out_of_range, "kv.max_length", "must be <= keys.extent[1]", kv.max_length);
        break;
    case kv_layout::block_table:
        if (kv.pages == nullptr && batch > 0) return fail(errc::null_pointer, "kv.pages", "a block table needs it", 0);
        if (kv.length == nullptr && batch > 0)
            return fail(errc::null_pointer, "kv.length", "a block table needs it", 0);
        if (keys.extent[1] < 1)
            return fail(errc::bad_extent, "keys.extent[1]", "page size must be >= 1", keys.extent[1]);
        if (kv.table_stride < 0 || ((batch > 1 || kv.table_stride > 0) &&
                                    kv.table_stride < ceil_div<std::int64_t>(kv.max_length, keys.extent[1])))
            return fail(errc::out_of_range, "kv.table_stride", "must be >= ceil(kv.max_length / page size)",
                        kv.table_stride);
        break;
    case kv_layout::page_list:
        if (kv.pages == nullptr && batch > 0) return fail(errc::null_pointer, "kv.pages", "a page list needs it", 0);
        if (kv.start == nullptr && batch > 0) return fail(errc::null_pointer, "kv.start", "a page list needs it", 0);
        if (kv.length == nullptr && kv.last_page_length == nullptr && batch > 0)
            return fail(errc::null_pointer, "kv.last_page_length", "a page list needs it or kv.length", 0);
        if (keys.extent[1] < 1)
            return fail(errc::bad_extent, "keys.extent[1]", "page size must be >= 1", keys.extent[1]);
        break;
    }
    if (auto s = check_pointer(rows.start, false, "rows.start"); !s) return s;
    if (auto s = check_pointer(kv.length, false, "kv.length"); !s) return s;
    if (auto s = check_pointer(kv.start, false, "kv.start"); !s) return s;
    if (auto s = check_pointer(kv.pages, false, "kv.pages"); !s) return s;
    return check_pointer(kv.last_page_length, false, "kv.last_page_length");
}

/// Sinks, window and mask; positions of `max_queries` rows must fit.
constexpr status check_window(attention_window const& window, attention_mask const& mask, std::int32_t max_queries) {
    if (window.sinks < 0) return fail(errc::out_of_range, "window.sinks", "must be >= 0", window.sinks);
    if (window.recent < 0) return fail(errc::out_of_range, "window.recent", "must be >= 0", window.recent);
    if (auto s = check_enum(mask.kind, mask_kind::full, "mask.kind"); !s) return s;
    if (mask.offset != end_aligned && (mask.offset < 0 || mask.offset > max_tokens - max_queries))
        return fail(errc::out_of_range, "mask.offset", "must lie in [0, max_tokens - rows] or be end_aligned",
                    mask.offset);
    return {};
}

/// Entries of a list are adjacent, and every list has a count.
template <class Index>
constexpr status check_list_extents(basic_selection<Index> const& s) {
    if (s.blocks.stride[3] != 1 && s.blocks.extent[3] > 1)
        return fail(errc::bad_stride, "selection.blocks.stride[3]", "must be 1", s.blocks.stride[3]);
    for (int axis = 0; axis < 3; ++axis)
        if (s.counts.extent[axis] != s.blocks.extent[axis])
            return fail(errc::bad_extent, "selection.counts.extent", "must equal the first three of blocks",
                        s.counts.extent[axis]);
    return {};
}

/// Geometry of a selection; its contents are checked by check_contents (host) or launch_contents_check (device).
template <class Index>
constexpr status check_selection(basic_selection<Index> const& s, batch_shape const& shape) {
    std::int64_t const size = s.block_size;  // 0 with lists is a forgotten field
    if (!supported_block_sizes::contains(size))
        return fail(errc::unsupported, "selection.block_size", "must be 8, 16, 32, 64 or 128", size);
    if (s.query_block < 1 || s.query_block > max_query_block)
        return fail(errc::out_of_range, "selection.query_block", "must lie in [1, max_query_block]", s.query_block);
    std::int64_t const heads = s.blocks.extent[1];
    if (heads != 1 && heads != shape.kv_heads && heads != shape.heads)
        return fail(errc::bad_extent, "selection.blocks.extent[1]", "list heads must be 1, kv_heads or heads", heads);
    if (s.blocks.extent[0] < 0)
        return fail(errc::bad_extent, "selection.blocks.extent[0]", "must be >= 0", s.blocks.extent[0]);
    if (s.list_row == nullptr && s.blocks.extent[0] != shape.batch)
        return fail(errc::bad_extent, "selection.blocks.extent[0]", "must equal the batch", s.blocks.extent[0]);
    if (s.blocks.extent[2] < query_blocks_of(shape.max_queries, s.query_block))
        return fail(errc::bad_extent, "selection.blocks.extent[2]", "must hold query_blocks_of(max rows, query_block)",
                    s.blocks.extent[2]);
    if (s.blocks.extent[3] < 0 || s.blocks.extent[3] > max_tokens / size)
        return fail(errc::bad_extent, "selection.blocks.extent[3]", "must lie in [0, max_tokens / block_size]",
                    s.blocks.extent[3]);
    if (auto r = check_list_extents(s); !r) return r;
    if (auto r = check_pointer(s.blocks.data, s.blocks.has_elements(), "selection.blocks.data"); !r) return r;
    if (auto r = check_pointer(s.counts.data, s.counts.has_elements(), "selection.counts.data"); !r) return r;
    return check_pointer(s.list_row, false, "selection.list_row");
}

/// Workspace handed to a launch against what its plan asked for.
inline status check_workspace(workspace const& scratch, std::size_t needed) {
    if (needed == 0) return {};
    if (scratch.data == nullptr) return fail(errc::null_pointer, "workspace.data", "must not be null", 0);
    if (scratch.bytes < needed)
        return fail(errc::workspace_too_small, "workspace.bytes", "must be >= plan.workspace_bytes",
                    static_cast<std::int64_t>(scratch.bytes));
    if (reinterpret_cast<std::uintptr_t>(scratch.data) % workspace_alignment != 0)
        return fail(errc::misaligned, "workspace.data", "must be aligned to workspace_alignment",
                    static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(scratch.data) % workspace_alignment));
    return {};
}

/// Contents of one list in host memory: ascending, unique, in [0, blocks).
constexpr status check_list(std::int32_t const* list, std::int32_t count, std::int32_t capacity, std::int32_t blocks) {
    if (count < 0 || count > capacity)
        return fail(errc::out_of_range, "selection.counts", "must lie in [0, capacity]", count);
    for (std::int32_t i = 0; i < count; ++i) {
        if (list[i] < 0 || list[i] >= blocks)
            return fail(errc::out_of_range, "selection.blocks", "ids must lie in [0, ceil(keys / block_size))",
                        list[i]);
        if (i > 0 && list[i] <= list[i - 1])
            return fail(errc::not_ascending, "selection.blocks", "must be ascending and unique", list[i]);
    }
    return {};
}

/// Contents of a whole selection whose pointers are host pointers; every list against a context of `keys` keys.
template <class Index>
constexpr status check_contents(basic_selection<Index> const& s, std::int32_t keys) {
    if (s.block_size < 1)
        return fail(errc::unsupported, "selection.block_size", "must be 8, 16, 32, 64 or 128", s.block_size);
    if (auto r = check_list_extents(s); !r) return r;
    if (auto r = check_pointer(s.blocks.data, s.blocks.has_elements(), "selection.blocks.data"); !r) return r;
    if (auto r = check_pointer(s.counts.data, s.counts.has_elements(), "selection.counts.data"); !r) return r;
    auto const blocks = static_cast<std::int32_t>(ceil_div<std::int64_t>(larger(keys, 0), s.block_size));
    for (std::int64_t row = 0; row < s.blocks.extent[0]; ++row)
        for (std::int64_t head = 0; head < s.blocks.extent[1]; ++head)
            for (std::int64_t block = 0; block < s.blocks.extent[2]; ++block)
                if (auto r = check_list(s.blocks.data + s.blocks.offset(row, head, block), s.counts(row, head, block),
                                        s.capacity(), blocks);
                    !r)
                    return r;
    return {};
}

}  // namespace winnow
