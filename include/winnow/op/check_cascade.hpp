// Rules of the cascade operators: the cache, a chunk's tensors, scores.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_params.hpp"
#include "winnow/core/status.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/op/check.hpp"
#include "winnow/op/check_rope.hpp"

namespace winnow {

/// Sinks and sub-caches.
constexpr status check(cascade_layout const& layout) {
    if (layout.levels < 1 || layout.levels > max_cascade_levels)
        return fail(errc::out_of_range, "cache.layout.levels", "must lie in [1, max_cascade_levels]", layout.levels);
    if (layout.sinks < 0) return fail(errc::out_of_range, "cache.layout.sinks", "must be >= 0", layout.sinks);
    std::int64_t rows = layout.sinks;
    for (std::int32_t i = 0; i < layout.levels; ++i) {
        if (layout.size[i] < 1)
            return fail(errc::out_of_range, "cache.layout.size", "must be >= 1 for each sub-cache", layout.size[i]);
        if (layout.accept.period[i] < 1)
            return fail(errc::out_of_range, "cache.layout.accept.period", "must be >= 1 for each sub-cache",
                        layout.accept.period[i]);
        rows += layout.size[i];
    }
    if (rows > max_tokens)
        return fail(errc::unsupported, "cache.layout.size", "sinks and slots must be <= max_tokens", rows);
    return {};
}

/// Layout, extents and memory of caches.
template <class T>
constexpr status check(cascade_cache<T> const& cache) {
    if (auto s = check(cache.layout); !s) return s;
    if (cache.sequences < 0) return fail(errc::bad_extent, "cache.sequences", "must be >= 0", cache.sequences);
    if (cache.kv_heads < 1 || cache.kv_heads > 65535)
        return fail(errc::bad_extent, "cache.kv_heads", "must lie in [1, 65535]", cache.kv_heads);
    if (!supported_head_dims::contains(cache.head_dim))
        return fail(errc::unsupported, "cache.head_dim", "must be 64, 128 or 256", cache.head_dim);
    if (auto s = check_enum(cache.heads, cascade_heads::shared, "cache.heads"); !s) return s;
    if (auto s = check_enum(cache.stored, cascade_keys::with_rotated, "cache.stored"); !s) return s;
    if (cache.sequences > (std::int64_t{1} << 60) / cache.sequence_bytes())
        return fail(errc::unsupported, "cache.sequences", "caches must take < 2^60 bytes", cache.sequences);
    if (cache.sequences == 0) return {};
    if (cache.memory == nullptr) return fail(errc::null_pointer, "cache.memory", "must not be null", 0);
    if (std::is_constant_evaluated()) return {};
    auto const beyond = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(cache.memory) % workspace_alignment);
    return beyond == 0 ? status{}
                       : fail(errc::misaligned, "cache.memory", "must be aligned to workspace_alignment", beyond);
}

/// One sequence of valid caches; `field` names the argument.
template <class T>
constexpr status check_sequence(cascade_cache<T> const& cache, std::int32_t sequence, char const* field) {
    if (auto s = check(cache); !s) return s;
    if (sequence < 0 || sequence >= cache.sequences)
        return fail(errc::out_of_range, field, "must lie in [0, cache.sequences)", sequence);
    return {};
}

namespace detail {

/// Keys and values of a chunk against the cache and the index of its rows.
template <class T>
constexpr status check_cascade_rows(tensor_view<T const, 4> const& keys, tensor_view<T const, 4> const& values,
                                    query_index const& rows, cascade_cache<T> const& cache,
                                    std::int32_t const* sequence) {
    static_assert(dtype_of<T> == dtype::bf16 || dtype_of<T> == dtype::fp16, "keys and values are bf16 or fp16");
    for (int axis = 0; axis < 4; ++axis) {
        if (keys.extent[axis] < 0 || keys.extent[axis] > max_tokens)
            return fail(errc::bad_extent, "keys.extent", "must lie in [0, max_tokens]", keys.extent[axis]);
        if (values.extent[axis] != keys.extent[axis])
            return fail(errc::bad_extent, "values.extent", "must equal keys.extent", values.extent[axis]);
    }
    if (keys.extent[2] != cache.kv_heads)
        return fail(errc::bad_extent, "keys.extent[2]", "must equal cache.kv_heads", keys.extent[2]);
    if (keys.extent[3] != cache.head_dim)
        return fail(errc::bad_extent, "keys.extent[3]", "must equal cache.head_dim", keys.extent[3]);
    if (auto s = check_channels(keys, "keys.data", "keys.stride[3]", "keys.stride"); !s) return s;
    if (auto s = check_channels(values, "values.data", "values.stride[3]", "values.stride"); !s) return s;
    if (rows.start == nullptr && (rows.batch != 0 || rows.max_length != 0))
        return fail(errc::null_pointer, "rows.start", "ragged rows need it", 0);
    if (rows.start != nullptr) {
        if (keys.extent[0] != 1)
            return fail(errc::bad_extent, "keys.extent[0]", "must be 1 for ragged rows", keys.extent[0]);
        if (rows.batch < smaller<std::int64_t>(keys.extent[1], 1))
            return fail(errc::bad_extent, "rows.batch", "must be >= 1 where there are rows", rows.batch);
        if (rows.max_length < smaller<std::int64_t>(keys.extent[1], 1) || rows.max_length > keys.extent[1])
            return fail(errc::out_of_range, "rows.max_length", "must lie in [1, keys.extent[1]]", rows.max_length);
    }
    std::int64_t const batch = rows.start != nullptr ? rows.batch : keys.extent[0];
    if (batch > 65535) return fail(errc::unsupported, "batch", "must be <= 65535", batch);
    if (sequence == nullptr && batch > cache.sequences)
        return fail(errc::bad_extent, "cache.sequences", "must be >= the batch without an index of sequences",
                    cache.sequences);
    std::int64_t const tokens = rows.start != nullptr ? rows.max_length : keys.extent[1];
    if (tokens > max_tokens - cache.layout.rows())
        return fail(errc::bad_extent, "keys.extent[1]", "must be <= max_tokens - rows of the cache", tokens);
    if (auto s = check_pointer(rows.start, false, "rows.start"); !s) return s;
    return check_pointer(sequence, false, "sequence");
}

/// Scores [outer, token, token head] of the rows of `keys`.
template <class T, class F>
constexpr status check_cascade_scores(tensor_view<F, 3> const& scores, tensor_view<T const, 4> const& keys,
                                      cascade_cache<T> const& cache) {
    bool given = scores.data != nullptr;
    for (auto const extent : scores.extent) given = given || extent != 0;
    if (!given) return {};
    std::int64_t const wanted[] = {keys.extent[0], keys.extent[1], cache.token_heads()};
    for (int axis = 0; axis < 3; ++axis)
        if (scores.extent[axis] != wanted[axis])
            return fail(errc::bad_extent, "scores.extent", "must be [batch, token] of keys and the token heads",
                        scores.extent[axis]);
    return check_pointer(scores.data, scores.has_elements(), "scores.data");
}

}  // namespace detail

/// The attention of a chunk over itself: what the params say about queries, keys, values, output, lse and scale.
template <class T>
constexpr attend_params<T> chunk_part(cascade_attend_params<T> const& p) {
    attend_params<T> part;
    part.queries = p.queries;
    part.keys = p.keys;
    part.values = p.values;
    if (p.rows.start != nullptr) {
        part.kv.layout = kv_layout::ragged;
        part.kv.start = p.rows.start;
        part.kv.max_length = p.rows.max_length;
    }
    part.rows = p.rows;
    part.output = p.output;
    part.lse = p.lse;
    part.scale = p.scale;
    return part;
}

/// A decay and a reduction.
constexpr status check(cascade_scorer const& scorer) {
    if (scorer.rows < 0) return fail(errc::out_of_range, "scorer.rows", "must be >= 0", scorer.rows);
    if (!(scorer.beta > 0 && scorer.beta <= 1))
        return fail(errc::out_of_range, "scorer.beta", "must lie in (0, 1]", reported(static_cast<float>(scorer.beta)));
    return check_enum(scorer.reduction, cascade_reduction::median, "scorer.reduction");
}

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(cascade_attend_params<T> const& p) {
    if (auto s = check(p.cache); !s) return s;
    if (auto s = detail::check_cascade_rows(p.keys, p.values, p.rows, p.cache, p.sequence); !s) return s;
    if (auto s = check(chunk_part(p)); !s) return s;
    if (p.queries.extent[1] != p.keys.extent[1])
        return fail(errc::bad_extent, "queries.extent[1]", "must equal keys.extent[1]", p.queries.extent[1]);
    if (auto s = check_rope(p.rotation, p.keys.extent[3]); !s) return s;
    if (auto s = check_enum(p.positions, cascade_positions::original, "positions"); !s) return s;
    if (auto s = detail::check_cascade_scores(p.scores, p.keys, p.cache); !s) return s;
    if (auto s = check_distinct(p.scores, "scores.stride"); !s) return s;
    return check(p.scorer);
}

/// The same for an insertion.
template <class T>
constexpr status check(cascade_insert_params<T> const& p) {
    if (auto s = check(p.cache); !s) return s;
    if (auto s = detail::check_cascade_rows(p.keys, p.values, p.rows, p.cache, p.sequence); !s) return s;
    if (auto s = detail::check_cascade_scores(p.scores, p.keys, p.cache); !s) return s;
    if (auto s = check_rope(p.rotation, p.keys.extent[3]); !s) return s;
    return check_enum(p.positions, cascade_positions::original, "positions");
}

/// The same for a whole prefill.
template <class T>
constexpr status check(cascade_prefill_params<T> const& p) {
    if (p.chunk < 1) return fail(errc::out_of_range, "chunk", "must be >= 1", p.chunk);
    return check(cascade_attend_params<T>{.queries = p.queries,
                                          .keys = p.keys,
                                          .values = p.values,
                                          .cache = p.cache,
                                          .sequence = p.sequence,
                                          .output = p.output,
                                          .lse = p.lse,
                                          .scale = p.scale,
                                          .rotation = p.rotation,
                                          .positions = p.positions,
                                          .scorer = p.scorer});
}

}  // namespace winnow
