// The composed operators by the reference: pruning, then attention over sinks, window and what pruning kept.
//
//   selection = prune(queries, keys);  output = attend(queries, keys, values, sinks + window + selection).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "winnow/op/sparse.hpp"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/delta.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/prune.hpp"

namespace winnow::reference {

/// Computes `p` on host pointers: checks it, then writes p.output and p.lse. On request also gives unrounded results
/// and the lists of every stage.
template <class T>
status sparse_prefill(sparse_prefill_params<T> const& p, attend_result* exact = nullptr, prune_trace* trace = nullptr,
                      run_options const& options = {}, prune_rounding rounding = {}) {
    if (auto s = check(p); !s) return s;
    selection_storage const selection(p.method, p.shape());
    if (auto s = prune(prune_part(p, selection.view), trace, options, rounding); !s) return s;
    if (p.delta.gamma > 0) return delta(delta_part(p, selection.view), exact, options);
    if (auto s = attend(attend_part(p, selection.view), exact, options); !s || p.dense_tail == 0) return s;
    attend_result tail;
    if (auto s = attend(tail_part(p), exact ? &tail : nullptr, options); !s) return s;
    if (exact) {  // each of the two left NaN where the other wrote
        for (std::size_t i = 0; i < tail.output.size(); ++i)
            if (exact->output[i] != exact->output[i]) exact->output[i] = tail.output[i];
        for (std::size_t i = 0; i < tail.lse.size(); ++i)
            if (exact->lse[i] != exact->lse[i]) exact->lse[i] = tail.lse[i];
    }
    return {};
}

/// List of one stage, slot and list head in a stage cache.
struct cached_list {
    std::int32_t* count;    ///< entries in use
    std::int32_t* entries;  ///< left ends; block ids in the last stage
};

/// The list of `stage` that `slot` and `list_head` keep.
template <class T, class KV>
cached_list cached_list_of(sparse_decode_params<T, KV> const& p, std::int32_t stage, std::int32_t slot,
                           std::int32_t list_head) {
    batch_shape const shape = p.shape();
    std::int32_t const heads = list_heads_of(p.method.sharing, shape.heads, shape.kv_heads);
    stage_region const at = stage_region_of(p.method, heads, p.cache.slots, stage);
    std::int64_t const list = static_cast<std::int64_t>(slot) * heads + list_head;
    return {p.cache.lists + at.counts + list, p.cache.lists + at.lists + list * p.method.stages[stage].keep};
}

/// Runs the stages that are due for request `b` in `slot` and stores their lists: left ends, and block ids in the last.
template <class T, class KV>
void refresh_slot(sparse_decode_params<T, KV> const& p, std::int32_t b, std::int32_t slot, prune_rounding rounding) {
    prune_params<T, KV> const pruning{.queries = p.queries,
                                      .keys = p.keys,
                                      .kv = p.kv,
                                      .method = p.method,
                                      .lookahead = p.cache.intervals.steps[0],
                                      .rotation = p.rotation,
                                      .scan = p.scan,
                                      .scales = p.scales};
    batch_shape const shape = p.shape();
    std::int32_t const heads = list_heads_of(p.method.sharing, shape.heads, shape.kv_heads);
    prune_request<T, KV> q(pruning, b, rounding);
    std::int32_t const last = p.method.stage_count - 1;
    for (std::int32_t i = first_stage_due(p.cache.step[slot], p.cache.intervals.steps, last + 1); i <= last; ++i)
        for (std::int32_t h = 0; h < heads; ++h) {
            std::vector<std::int32_t> parents;
            if (i > 0) {
                cached_list const before = cached_list_of(p, i - 1, slot, h);
                parents.assign(before.entries, before.entries + *before.count);
            }
            auto const kept = prune_stage_list(q, i, 0, h, parents).kept;
            cached_list const out = cached_list_of(p, i, slot, h);
            *out.count = static_cast<std::int32_t>(kept.size());
            std::int32_t const unit = i == last ? p.method.last().chunk : 1;
            for (std::size_t n = 0; n < kept.size(); ++n) out.entries[n] = kept[n] / unit;
        }
}

/// Computes `p` on host pointers: checks it, refreshes what is due in p.cache, writes p.output and p.lse, and counts
/// one step in every slot that was used. Padded rows give 0 and -inf, and touch no slot.
template <class T, class KV>
status sparse_decode(sparse_decode_params<T, KV> const& p, attend_result* exact = nullptr,
                     run_options const& options = {}, prune_rounding rounding = {}) {
    if (auto s = check(p); !s) return s;
    batch_shape const shape = p.shape();
    std::vector<std::int32_t> lengths(static_cast<std::size_t>(shape.batch)), slots(lengths.size(), -1);
    for (std::int32_t b = 0; b < shape.batch; ++b) {
        std::int32_t const slot = p.cache.slot ? p.cache.slot[b] : b;
        std::int32_t const keys = request_of(shape, {}, p.kv, page_size_of(p.keys, p.kv), causal{}, b).keys;
        if (slot < 0 || slot >= p.cache.slots || keys == 0) continue;
        lengths[static_cast<std::size_t>(b)] = keys;
        slots[static_cast<std::size_t>(b)] = slot;
    }
    parallel_for(shape.batch, options, [&](std::int64_t b) {
        std::int32_t const slot = slots[static_cast<std::size_t>(b)];
        if (slot >= 0) refresh_slot(p, static_cast<std::int32_t>(b), slot, rounding);
    });
    attend_params<T, KV> attention = attend_part(p);
    attention.kv.length = lengths.data();                              // a padded row sees no key
    if (shape.batch > 0) attention.selection.list_row = slots.data();  // of no request, it may be null
    if (auto s = attend(attention, exact, options); !s) return s;
    for (std::int32_t const slot : slots)
        if (slot >= 0) ++p.cache.step[slot];
    return {};
}

}  // namespace winnow::reference
