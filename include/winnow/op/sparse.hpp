// The two calls an engine makes: sparse prefill and sparse decode, each pruning and attention composed.
//
//   selection = prune(queries, keys);  output = attend(queries, keys, values, sinks + window + selection).
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/stage_cache.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/op/delta.hpp"
#include "winnow/op/prune.hpp"

namespace winnow {

/// Sparse attention for chunks of queries (prefill). Fields as in attend_params and prune_params.
template <class T>
struct sparse_prefill_params {
    tensor_view<T const, 4> queries =
        {};                             ///< [batch, token, head, channel]; ragged: [1, row, head, channel] with `rows`
    tensor_view<T const, 4> keys = {};  ///< [batch | 1 | page, token, kv_head, channel]
    tensor_view<T const, 4> values = {};  ///< same axes as keys, own strides
    kv_index kv = {};                     ///< where tokens live; default contiguous
    query_index rows = {};                ///< ragged queries; default one row range per batch entry
    prune_method method = hip_3k;         ///< stages, scorer, sharing, sinks and window
    tensor_view<T, 4> output = {};        ///< axes of queries
    lse_view lse = {};                    ///< [batch, token, head]; optional
    float scale = 0;                      ///< of the scores; must be > 0
    float soft_cap = 0;                   ///< as in attend_params
    float const* sink_logits = nullptr;   ///< [head], as in attend_params; the pruning does not see them
    attention_mask mask = causal{};       ///< causal or full, with the position of row 0
    std::int32_t dense_tail = 0;          ///< last rows of each request that attend to everything (upstream HiP: 64)
    key_summary<T const> summary = {};    ///< as in prune_params
    delta_options delta = {.gamma = 0};   ///< correction of the rows; gamma 0: none. It has a dense tail of its own
    rope rotation = {};                   ///< queries and cached keys come without rotary embedding, see attend_params
    scan_style scan = scan_style::relative;  ///< as in prune_params

    /// Extents that plans are made from.
    [[nodiscard]] constexpr batch_shape shape() const { return shape_of(queries, rows, keys, kv); }
};

/// Sparse attention for one new token per request (decode), with lists that are kept and refreshed between steps.
/// The keys and values of the new token are in the cache already, and its length counts them. T is bf16 or fp16, KV the
/// same or fp8_e4m3: an fp8 cache takes the scorers tree_probe and centre_probe, no rotation and no summary, and at most
/// 16 query heads for each KV head.
template <class T, class KV = T>
struct sparse_decode_params {
    tensor_view<T const, 4> queries = {};  ///< [batch, 1, head, channel]
    tensor_view<KV const, 4> keys = {};    ///< [batch | 1 | page, token, kv_head, channel]
    tensor_view<KV const, 4> values = {};  ///< same axes as keys, own strides
    kv_index kv = {};                      ///< where tokens live; default contiguous
    prune_method method = hip_3k;          ///< stages, scorer, sharing, sinks and window
    stage_cache cache = {};                ///< lists between steps, one set per slot
    tensor_view<T, 4> output = {};         ///< [batch, 1, head, channel]; a padded row (slot -1 or length 0) gives 0
    lse_view lse = {};                     ///< [batch, 1, head]; optional
    float scale = 0;                       ///< of the scores; must be > 0
    float soft_cap = 0;                    ///< as in attend_params
    float const* sink_logits = nullptr;    ///< [head], as in attend_params; the pruning does not see them
    key_summary<T const> summary = {};     ///< as in prune_params
    rope rotation = {};                    ///< queries and cached keys come without rotary embedding, see attend_params
    scan_style scan = scan_style::relative;  ///< as in prune_params
    cache_scales scales = {};  ///< of fp8 keys and values, > 0, as in prune_params and attend_params; default 1

    /// Extents that plans are made from.
    [[nodiscard]] constexpr batch_shape shape() const { return shape_of(queries, {}, keys, kv); }
};

/// Plan of either operator.
struct sparse_plan {
    status why;                        ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;   ///< bytes `launch` needs, aligned to workspace_alignment
    prune_plan prune;                  ///< the pruning half
    attend_plan attend;                ///< the attention half
    attend_plan tail;                  ///< the dense rows of a prefill
    delta_plan delta;                  ///< a corrected prefill's attention, instead of the two
    std::size_t selection_blocks = 0;  ///< offset of the selection's blocks (prefill)
    std::size_t selection_counts = 0;  ///< offset of its counts (prefill)
    std::size_t scratch = 0;           ///< offset of what prune and attend use in turn

    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
    /// True for plans that lay out the same launches.
    [[nodiscard]] constexpr bool same_layout(sparse_plan const& o) const {
        return workspace_bytes == o.workspace_bytes && selection_blocks == o.selection_blocks &&
               selection_counts == o.selection_counts && scratch == o.scratch && prune.same_layout(o.prune) &&
               attend.same_layout(o.attend) && tail.same_layout(o.tail) && delta.same_layout(o.delta);
    }
};

/// The attention half of a prefill; the selection's memory is filled in by launch.
template <class T>
constexpr attend_params<T> attend_part(sparse_prefill_params<T> const& p, block_selection const& selection) {
    return {.queries = p.queries,
            .keys = p.keys,
            .values = p.values,
            .kv = p.kv,
            .rows = p.rows,
            .selection = selection,
            .window = p.method.window,
            .output = p.output,
            .lse = p.lse,
            .scale = p.scale,
            .soft_cap = p.soft_cap,
            .mask = p.mask,
            .range = p.dense_tail > 0 ? row_range::without_tail : row_range::all,
            .tail = p.dense_tail,
            .rotation = p.rotation,
            .sink_logits = p.sink_logits};
}

/// The attention half of a corrected prefill.
template <class T>
constexpr delta_params<T> delta_part(sparse_prefill_params<T> const& p, block_selection const& selection) {
    return {.base = attend_part(p, selection), .options = p.delta};  // its dense_tail is 0: see check
}

/// The dense rows at the end of each request.
template <class T>
constexpr attend_params<T> tail_part(sparse_prefill_params<T> const& p) {
    attend_params<T> part = attend_part(p, {});
    part.window = {};
    part.range = row_range::tail_only;
    return part;
}

/// The pruning half of a prefill; the selection's memory is filled in by launch.
template <class T>
constexpr prune_params<T> prune_part(sparse_prefill_params<T> const& p, block_selection_buffer const& selection) {
    return {.queries = p.queries,
            .keys = p.keys,
            .kv = p.kv,
            .rows = p.rows,
            .method = p.method,
            .selection = selection,
            .mask = p.mask,
            .summary = p.summary,
            .rotation = p.rotation,
            .scan = p.scan};
}

/// The lists that attention reads at decode: the last stage's, in the cache, found by slot. Entries are block ids.
template <class T, class KV>
constexpr block_selection cached_selection(sparse_decode_params<T, KV> const& p) {
    batch_shape const shape = p.shape();
    std::int32_t const heads = list_heads_of(p.method.sharing, shape.heads, shape.kv_heads);
    stage_region const at = stage_region_of(p.method, heads, p.cache.slots, p.method.stage_count - 1);
    std::int32_t const capacity = p.method.last().keep;
    std::int32_t const rows =
        p.cache.slot == nullptr ? shape.batch : p.cache.slots;  // row b is slot b without an index
    std::int32_t const* const lists = p.cache.lists;  // null while a workspace is sized before there are tensors
    block_selection s;
    s.blocks = packed_view(lists == nullptr ? lists : lists + at.lists, {rows, heads, 1, capacity});
    s.counts = packed_view(lists == nullptr ? lists : lists + at.counts, {rows, heads, 1});
    s.block_size = p.method.last().chunk;
    s.query_block = p.method.last().query_block;
    s.list_row = p.cache.slot;
    return s;
}

/// The attention half of a decode step.
template <class T, class KV>
constexpr attend_params<T, KV> attend_part(sparse_decode_params<T, KV> const& p) {
    return {.queries = p.queries,
            .keys = p.keys,
            .values = p.values,
            .kv = p.kv,
            .selection = cached_selection(p),
            .window = p.method.window,
            .output = p.output,
            .lse = p.lse,
            .scale = p.scale,
            .soft_cap = p.soft_cap,
            .rotation = p.rotation,
            .sink_logits = p.sink_logits,
            .scales = p.scales};
}

/// Refreshing the lists of a decode step, which is pruning into the cache. Lists must stay complete until the first
/// stage is due again.
template <class T, class KV>
constexpr prune_params<T, KV> prune_part(sparse_decode_params<T, KV> const& p) {
    return {.queries = p.queries,
            .keys = p.keys,
            .kv = p.kv,
            .method = p.method,
            .lookahead = p.cache.intervals.steps[0],
            .summary = p.summary,
            .rotation = p.rotation,
            .scan = p.scan,
            .scales = p.scales};
}

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(sparse_prefill_params<T> const& p) {
    if (auto s = check_queries_and_keys(p.queries, p.rows, p.keys, p.kv); !s) return s;
    if (auto s = check(p.method); !s) return s;
    if (auto s = check_list_rows(p.method, p.shape(), p.shape().batch, "batch"); !s) return s;
    if (auto s = check_summary(p.summary, p.method, p.shape()); !s) return s;
    if (auto s = check_scan(p.rotation, p.scan, p.method, p.mask.kind, p.queries.extent[3]); !s) return s;
    if (p.dense_tail < 0) return fail(errc::out_of_range, "dense_tail", "must be >= 0", p.dense_tail);
    if (p.delta.gamma != 0) {
        if (auto s = check_delta(p.delta, p.mask, "mask", {"delta.gamma", "delta.dense_tail", "delta.form"}); !s)
            return s;
        if (p.dense_tail != 0)
            return fail(errc::out_of_range, "dense_tail", "must be 0 with delta, which has its own", p.dense_tail);
        if (!p.rotation.empty()) return fail(errc::unsupported, "rotation", "must be empty with delta", 1);
        if (p.sink_logits != nullptr) return fail(errc::unsupported, "sink_logits", "must be null with delta", 1);
    }
    return check(attend_part(p, {}));
}

/// The same for a decode step.
template <class T, class KV>
constexpr status check(sparse_decode_params<T, KV> const& p) {
    if (auto s = check_queries_and_keys(p.queries, {}, stored_view<T>(p.keys), p.kv); !s) return s;
    if (auto s = check(p.method); !s) return s;
    if (auto s = check_storage(p.keys, p.scales, p.method, p.summary, p.rotation); !s) return s;
    auto const shape = p.shape();
    if (shape.max_queries != 1)
        return fail(errc::unsupported, "queries.extent[1]", "decode takes one token per request", shape.max_queries);
    if (auto s = check_summary(p.summary, p.method, shape); !s) return s;
    if (auto s = check_scan(p.rotation, p.scan, p.method, mask_kind::causal, p.queries.extent[3]); !s) return s;
    if (auto s = check_pointer(p.cache.step, true, "cache.step"); !s) return s;
    if (auto s = check_pointer(p.cache.lists, true, "cache.lists"); !s) return s;
    if (auto s = check_pointer(p.cache.slot, false, "cache.slot"); !s) return s;
    if (p.cache.slots < 1 || (p.cache.slot == nullptr && p.cache.slots < shape.batch))
        return fail(errc::bad_extent, "cache.slots", "must be >= 1, and >= the batch without cache.slot",
                    p.cache.slots);
    if (auto s = check_list_rows(p.method, shape, larger(p.cache.slots, shape.batch), "cache.slots"); !s) return s;
    for (int i = 0; i < p.method.stage_count; ++i) {
        if (p.cache.intervals.steps[i] < 1)
            return fail(errc::out_of_range, "cache.intervals.steps", "must be >= 1", p.cache.intervals.steps[i]);
    }
    if (p.cache.intervals.steps[0] > p.method.window.recent)
        return fail(errc::out_of_range, "cache.intervals.steps[0]", "must be <= method.window.recent, or keys are lost",
                    p.cache.intervals.steps[0]);
    return check(attend_part(p));
}

/// Layout of valid params: selection, then what pruning and attention need one after the other.
template <class T>
constexpr sparse_plan sparse_plan_of(sparse_prefill_params<T> const& p, device_info const& device) {
    sparse_plan result;
    auto const shape = p.shape();
    auto const extents = selection_extents_of(p.method, shape);
    if (extents.list_count() > (std::size_t{1} << 60) / static_cast<std::size_t>(extents.capacity) / 4) {
        result.why =
            fail(errc::unsupported, "method.stages.keep", "lists of all rows must take < 2^60 bytes", extents.capacity);
        return result;
    }
    workspace_layout layout;
    result.selection_blocks = layout.take(extents.list_count() * extents.capacity, sizeof(std::int32_t));
    result.selection_counts = layout.take(extents.list_count(), sizeof(std::int32_t));
    std::int32_t* const unknown = nullptr;  // the workspace is not there yet; geometry is all that planning looks at
    block_selection const selection = packed_selection<std::int32_t const>(unknown, unknown, p.method, shape);
    result.attend.device = device;
    if (p.delta.gamma > 0) {
        result.delta = delta_plan_of(delta_part(p, selection), device);
    } else {
        result.attend = attend_plan_of(attend_part(p, selection), device);
    }
    if (p.dense_tail > 0) result.tail = attend_plan_of(tail_part(p), device);
    result.prune = prune_plan_of(p.method, shape, device);
    result.why = !result.attend.why ? result.attend.why : !result.tail.why ? result.tail.why : result.delta.why;
    result.scratch = layout.bytes;
    result.workspace_bytes = layout.bytes + larger(larger(result.prune.workspace_bytes, result.delta.workspace_bytes),
                                                   larger(result.attend.workspace_bytes, result.tail.workspace_bytes));
    return result;
}

/// Layout of valid params: pruning and attention use the workspace one after the other.
template <class T, class KV>
constexpr sparse_plan sparse_plan_of(sparse_decode_params<T, KV> const& p, device_info const& device) {
    sparse_plan result;
    result.attend = attend_plan_of(attend_part(p), device);
    result.why = result.attend.why;
    result.prune = prune_plan_of(p.method, p.shape(), device);
    // Counters are cleared by the first kernel, and attention counts in them when pruning has ended.
    workspace_layout layout;
    layout.take(result.attend.counter_bytes(), 1);
    result.scratch = layout.bytes;
    result.workspace_bytes = larger(result.scratch + result.prune.workspace_bytes, result.attend.workspace_bytes);
    return result;
}

/// Lays out both halves and counts the workspace. Pure host arithmetic: no CUDA call, no tensor is read.
template <class T>
constexpr sparse_plan plan(sparse_prefill_params<T> const& p, device_info const& device) {
    sparse_plan result;
    result.why = check(p);
    return result.why ? sparse_plan_of(p, device) : result;
}

/// The same for a decode step.
template <class T, class KV>
constexpr sparse_plan plan(sparse_decode_params<T, KV> const& p, device_info const& device) {
    sparse_plan result;
    result.why = check(p);
    return result.why ? sparse_plan_of(p, device) : result;
}

}  // namespace winnow
