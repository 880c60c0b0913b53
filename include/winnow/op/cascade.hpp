// Attention over a cascading cache, whose reach grows exponentially in a fixed budget, and insertion into it.
//
//   output_m = softmax attention of row m over [sinks | slots | tokens 0 .. m of the chunk],
//   then the chunk's tokens enter the cache, which keeps those that got attention.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/cascade_insert.hpp"
#include "winnow/core/cascade_params.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/op/check_cascade.hpp"
#include "winnow/policy/cascade_policy.hpp"

namespace winnow {

/// Plan of cascade_attend. Copyable, holds no pointer.
struct cascade_attend_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< bytes `launch` needs, aligned to workspace_alignment
    attend_plan attend;               ///< attention over the lined-up keys
    std::size_t keys = 0;             ///< offset of the lined-up keys
    std::size_t values = 0;           ///< and values
    std::size_t queries = 0;          ///< offset of the rotated queries
    std::size_t lengths = 0;          ///< offset of the keys per request
    std::size_t lse = 0;              ///< offset of the log-sum-exp that scoring reads, where the caller wants none
    std::size_t sums = 0;             ///< offset of the attention that each key gets, per head
    attend_path score_path{};         ///< kernel that scores lined-up keys
    std::size_t offsets = 0;          ///< offset of its queries' offsets on Hopper
    std::size_t next_item = 0;        ///< and of the counter that its blocks draw tiles from
    std::size_t scratch = 0;          ///< offset of what attention needs
    std::int32_t segments = 0;        ///< > 0: a decode step reads keys as they lie, in so many runs of rows
    cascade_splits splits;            ///< of them all
    std::size_t part_output = 0;      ///< offset of the attention over each split
    std::size_t part_lse = 0;         ///< offset of its log-sum-exp
    std::size_t arrived = 0;          ///< offset of the counters of splits that are done

    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
    /// True for plans that lay out the same launches.
    [[nodiscard]] constexpr bool same_layout(cascade_attend_plan const& o) const {
        return segments == o.segments && splits == o.splits && workspace_bytes == o.workspace_bytes && keys == o.keys &&
               values == o.values && queries == o.queries && lengths == o.lengths && lse == o.lse && sums == o.sums &&
               scratch == o.scratch && score_path == o.score_path && offsets == o.offsets && next_item == o.next_item &&
               attend.same_layout(o.attend);
    }
};

/// Plan of cascade_insert.
struct cascade_insert_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< bytes `launch` needs, aligned to workspace_alignment
    std::size_t offered = 0;          ///< offset of the offers to a sub-cache
    std::size_t winner = 0;           ///< offset of the winners of fights
    std::size_t appended = 0;         ///< offset of the indices of appended offers
    std::size_t moves = 0;            ///< offset of the moves
    std::size_t move_count = 0;       ///< offset of their numbers
    std::size_t counters = 0;         ///< offset of the counters after the chunk
    std::size_t staged = 0;           ///< offset of the rows that move inside the cache
    std::int32_t instructions = 80;   ///< device_info::instructions; 90: kernels overlap

    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
};

/// Plan of cascade_prefill.
struct cascade_prefill_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< bytes `launch` needs, aligned to workspace_alignment
    device_info device;               ///< the device it was made for
    std::size_t scratch = 0;          ///< offset of what the operators use in turn; the chunk's scores lie before it

    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
};

namespace detail {

/// [batch, token, head, channel] in memory as [batch, head, token, channel].
template <class T>
constexpr tensor_view<T const, 4> lined_up(T const* data, batch_shape const& s) {
    tensor_view<T const, 4> view;
    view.data = data;
    std::int64_t const extent[] = {s.batch, s.max_keys, s.kv_heads, s.head_dim};
    std::int64_t const head = std::int64_t{s.max_keys} * s.head_dim;
    std::int64_t const stride[] = {s.kv_heads * head, s.head_dim, head, 1};
    for (int axis = 0; axis < 4; ++axis) view.extent[axis] = extent[axis], view.stride[axis] = stride[axis];
    return view;
}

/// Workspace of `count` * `size` bytes would not fit the arithmetic of layouts.
constexpr bool too_large(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t bytes) {
    constexpr std::int64_t most = std::int64_t{1} << 58;
    std::int64_t const one = larger<std::int64_t>(c, 1) * bytes, two = larger<std::int64_t>(b, 1);
    return two > most / one || larger<std::int64_t>(a, 1) > most / (one * two);
}

/// True if TMA can address the queries: rotated ones are packed.
template <class T>
constexpr bool bulk_queries(cascade_attend_params<T> const& p) {
    return !p.rotation.empty() || bulk_addressable(p.queries);
}

}  // namespace detail

/// Attention of a chunk over keys that have been lined up; `q`, `k`, `v`, `lengths` may be unknown while planning.
template <class T>
constexpr attend_params<T> attend_part(cascade_attend_params<T> const& p, tensor_view<T const, 4> const& q, T const* k,
                                       T const* v, std::int32_t const* lengths) {
    batch_shape const shape = p.shape();
    attend_params<T> part;
    part.queries = q;
    part.keys = detail::lined_up(k, shape);
    part.values = detail::lined_up(v, shape);
    part.kv.length = lengths;
    part.kv.max_length = shape.max_keys;
    part.rows = p.rows;
    part.output = p.output;
    part.lse = p.lse;
    part.scale = p.scale;
    return part;
}

/// Runs of rows that a decode step reads where they lie; 0 where keys are lined up: without a rotated copy, for more than
/// one token, and for ragged rows.
template <class T>
constexpr std::int32_t decode_segments(cascade_attend_params<T> const& p) {
    batch_shape const shape = p.shape();
    std::int32_t const segments = segments_of(p.cache.layout) + 1;
    bool const fits = shape.batch <= 65535;  // the grid's last dimension
    return p.cache.has_rotated() && p.rows.start == nullptr && shape.max_queries == 1 && fits ? segments : 0;
}

/// Layout of valid params. Reads extents only.
template <class T>
constexpr cascade_attend_plan cascade_plan_of(cascade_attend_params<T> const& p, device_info const& device) {
    cascade_attend_plan result;
    batch_shape const shape = p.shape();
    result.segments = decode_segments(p);
    T const* const unknown = nullptr;
    std::int32_t const segments = result.segments;
    result.attend = attend_plan_of(attend_part(p, p.queries, unknown, unknown, nullptr), device);
    if (!result.attend) {
        result.why = result.attend.why;
        return result;
    }
    if (detail::too_large(shape.batch, std::int64_t{shape.heads} * shape.head_dim, shape.max_keys, 4)) {
        result.why =
            fail(errc::unsupported, "cache.layout.size", "lined-up keys must take < 2^58 bytes", shape.max_keys);
        return result;
    }
    auto const batch = static_cast<std::size_t>(shape.batch), max_keys = static_cast<std::size_t>(shape.max_keys);
    std::size_t const rows = segments > 0 ? 0 : batch * static_cast<std::size_t>(shape.kv_heads) * max_keys;
    auto const query_rows = static_cast<std::size_t>(p.queries.extent[0] * p.queries.extent[1]);
    std::size_t const parts = query_rows * static_cast<std::size_t>(segments);
    auto const heads = static_cast<std::size_t>(shape.heads), channels = static_cast<std::size_t>(shape.head_dim);
    workspace_layout layout;
    result.keys = layout.take(rows * channels, sizeof(T));
    result.values = layout.take(rows * channels, sizeof(T));
    std::size_t const turned = segments > 0 ? parts : p.rotation.empty() ? 0 : query_rows;
    result.queries = layout.take(turned * heads * channels, sizeof(T));
    result.lengths = layout.take(batch, sizeof(std::int32_t));
    result.lse = layout.take(p.takes_scores() && p.lse.empty() ? query_rows * heads : 0, sizeof(float));
    result.sums = layout.take(p.takes_scores() ? batch * heads * max_keys : 0, sizeof(float));
    if (segments == 0 && p.takes_scores() && detail::bulk_queries(p))
        result.score_path = cascade_score_path_of(device, shape.head_dim, shape.max_queries, shape.max_keys,
                                                  std::int64_t{shape.batch} * shape.heads);
    if (result.score_path == attend_path::sm90) {
        auto const pitch = static_cast<std::size_t>(cascade_offset_pitch(shape.max_queries));
        result.offsets = layout.take(batch * heads * pitch, sizeof(float));
        result.next_item = layout.take(1, sizeof(std::int32_t));
    }
    if (segments > 0) {
        cascade_splits const& s = result.splits =
            cascade_splits_of(shape.head_dim, shape.kv_heads, shape.group(), p.cache.layout.rows() + 1);
        auto const pieces = s.count > 1 ? query_rows * heads * static_cast<std::size_t>(s.count) : 0;
        result.part_output = layout.take(pieces * channels, sizeof(float));
        result.part_lse = layout.take(pieces, sizeof(float));
        result.arrived =
            layout.take(query_rows * static_cast<std::size_t>(shape.kv_heads * s.head_groups), sizeof(std::int32_t));
    }
    result.scratch = layout.bytes;
    result.workspace_bytes = layout.bytes + (segments > 0 ? 0 : result.attend.workspace_bytes);
    return result;
}

/// Layout of valid params. Reads extents only.
template <class T>
constexpr cascade_insert_plan cascade_plan_of(cascade_insert_params<T> const& p, device_info const& device) {
    cascade_insert_plan result;
    result.instructions = device.instructions;
    std::int64_t const tokens = p.max_tokens();
    std::int64_t const moves = max_cascade_moves(p.cache.layout, p.max_tokens());
    if (detail::too_large(p.batch(), p.cache.kv_heads, larger(tokens, moves),
                          std::int64_t{4} * p.cache.head_dim + 64)) {
        result.why = fail(errc::unsupported, "keys.extent[1]", "lists of all tokens must take < 2^58 bytes", tokens);
        return result;
    }
    auto const batch = static_cast<std::size_t>(p.batch()), n = static_cast<std::size_t>(tokens);
    std::size_t const lists = batch * static_cast<std::size_t>(p.cache.token_heads());
    workspace_layout layout;
    result.offered = layout.take(lists * 2 * n, sizeof(cascade_offer));
    result.winner = layout.take(lists * (n + 1), sizeof(cascade_offer));
    result.appended = layout.take(lists * n, sizeof(std::int32_t));
    result.moves = layout.take(lists * static_cast<std::size_t>(moves), sizeof(cascade_move));
    result.move_count = layout.take(lists, sizeof(std::int32_t));
    result.counters = layout.take(batch, sizeof(cascade_counters));
    result.staged = layout.take(batch * static_cast<std::size_t>(p.cache.kv_heads) * static_cast<std::size_t>(moves),
                                2 * static_cast<std::size_t>(p.cache.head_dim) * sizeof(T));
    result.workspace_bytes = layout.bytes;
    return result;
}

/// Tokens [first, first + count) of a prefill as a chunk; `scores` fp32 [batch, token, token head], packed, or null
/// where nothing is to be scored.
template <class T>
constexpr cascade_attend_params<T> attend_part(cascade_prefill_params<T> const& p, std::int64_t first,
                                               std::int64_t count, float* scores) {
    auto const slice = [&](auto view) {
        if (view.data != nullptr) view.data += first * view.stride[1];
        view.extent[1] = count;
        return view;
    };
    cascade_attend_params<T> part;
    part.queries = slice(p.queries);
    part.keys = slice(p.keys);
    part.values = slice(p.values);
    part.cache = p.cache;
    part.sequence = p.sequence;
    part.output = slice(p.output);
    part.lse = p.lse;
    if (!p.lse.empty()) part.lse.values = slice(p.lse.values);
    part.scale = p.scale;
    part.rotation = p.rotation;
    part.positions = p.positions;
    part.scorer = p.scorer;
    if (scores != nullptr)
        part.scores = packed_view(scores, {p.keys.extent[0], count, std::int64_t{p.cache.token_heads()}});
    return part;
}

/// The insertion that follows a chunk.
template <class T>
constexpr cascade_insert_params<T> insert_part(cascade_attend_params<T> const& p) {
    return {.keys = p.keys,
            .values = p.values,
            .rows = p.rows,
            .cache = p.cache,
            .sequence = p.sequence,
            .scores = p.scores,
            .rotation = p.rotation,
            .positions = p.positions};
}

/// Layout of valid params: scores of a chunk, then what attention and insertion use in turn. A last, shorter chunk may
/// be laid out differently.
template <class T>
constexpr cascade_prefill_plan cascade_plan_of(cascade_prefill_params<T> const& p, device_info const& device) {
    cascade_prefill_plan result;
    result.device = device;
    std::int64_t const tokens = p.keys.extent[1], whole = smaller<std::int64_t>(p.chunk, tokens);
    if (whole == 0) return result;
    workspace_layout layout;
    bool const scores = p.cache.layout.selects();
    layout.take(scores ? static_cast<std::size_t>(p.keys.extent[0] * whole * p.cache.token_heads()) : 0, sizeof(float));
    result.scratch = layout.bytes;
    float known = 0;  // only whether there are scores matters
    std::int64_t const counts[] = {whole, tokens % whole};
    for (std::int64_t const count : counts) {
        if (count == 0) continue;
        auto const part = attend_part(p, 0, count, scores ? &known : nullptr);
        auto const attend = cascade_plan_of(part, device);
        auto const insert = cascade_plan_of(insert_part(part), device);
        if (!attend || !insert) {
            result.why = !attend ? attend.why : insert.why;
            return result;
        }
        result.workspace_bytes =
            larger(result.workspace_bytes, layout.bytes + larger(attend.workspace_bytes, insert.workspace_bytes));
    }
    return result;
}

/// Lays out the workspace. Pure host arithmetic: no CUDA call, no pointer is read.
template <class T>
constexpr cascade_attend_plan plan(cascade_attend_params<T> const& p, device_info const& device) {
    cascade_attend_plan result;
    result.why = check(p);
    return result.why ? cascade_plan_of(p, device) : result;
}

/// The same for an insertion.
template <class T>
constexpr cascade_insert_plan plan(cascade_insert_params<T> const& p, device_info const& device) {
    cascade_insert_plan result;
    result.why = check(p);
    return result.why ? cascade_plan_of(p, device) : result;
}

/// The same for a whole prefill.
template <class T>
constexpr cascade_prefill_plan plan(cascade_prefill_params<T> const& p, device_info const& device) {
    cascade_prefill_plan result;
    result.why = check(p);
    return result.why ? cascade_plan_of(p, device) : result;
}

}  // namespace winnow
