// From the C structs to the C++ params: the one place where the two are held side by side.
#pragma once

#include <cstddef>
#include <cstdint>

#include <winnow/winnow.hpp>

#include "winnow_c.h"

namespace winnow::c_api {

// --- Constants that both sides write down ----------------------------------------------------------------------------

template <class Enum>
constexpr bool same(Enum ours, int theirs) {
    return static_cast<std::int32_t>(ours) == theirs;
}
static_assert(same(errc::ok, WINNOW_OK) && same(errc::null_pointer, WINNOW_NULL_POINTER) &&
              same(errc::bad_extent, WINNOW_BAD_EXTENT) && same(errc::bad_stride, WINNOW_BAD_STRIDE) &&
              same(errc::misaligned, WINNOW_MISALIGNED) && same(errc::unsupported, WINNOW_UNSUPPORTED) &&
              same(errc::out_of_range, WINNOW_OUT_OF_RANGE) && same(errc::not_ascending, WINNOW_NOT_ASCENDING) &&
              same(errc::workspace_too_small, WINNOW_WORKSPACE_TOO_SMALL) &&
              same(errc::wrong_plan, WINNOW_WRONG_PLAN) && same(errc::cuda_error, WINNOW_CUDA_ERROR));
static_assert(same(dtype::bf16, WINNOW_BF16) && same(dtype::fp16, WINNOW_FP16) &&
              same(dtype::fp8_e4m3, WINNOW_FP8_E4M3) && same(dtype::fp32, WINNOW_FP32));
static_assert(same(kv_layout::contiguous, WINNOW_CONTIGUOUS) && same(kv_layout::ragged, WINNOW_RAGGED) &&
              same(kv_layout::block_table, WINNOW_BLOCK_TABLE) && same(kv_layout::page_list, WINNOW_PAGE_LIST));
static_assert(same(mask_kind::causal, WINNOW_CAUSAL) && same(mask_kind::full, WINNOW_FULL));
static_assert(same(lse_base::natural, WINNOW_NATURAL) && same(lse_base::two, WINNOW_BASE_2));
static_assert(same(row_range::all, WINNOW_ALL_ROWS) && same(row_range::without_tail, WINNOW_WITHOUT_TAIL) &&
              same(row_range::tail_only, WINNOW_TAIL_ONLY));
static_assert(same(scorer::tree_probe, WINNOW_TREE_PROBE) && same(scorer::tree_probe_first, WINNOW_TREE_PROBE_FIRST) &&
              same(scorer::centre_probe, WINNOW_CENTRE_PROBE) && same(scorer::mean_key, WINNOW_MEAN_KEY) &&
              same(scorer::min_max_bound, WINNOW_MIN_MAX_BOUND) && same(scorer::antidiagonal, WINNOW_ANTIDIAGONAL));
static_assert(same(scan_style::relative, WINNOW_RELATIVE) && same(scan_style::chunk_indexed, WINNOW_CHUNK_INDEXED));
static_assert(same(probe_path::per_head, WINNOW_PATH_PER_HEAD) &&
              same(probe_path::per_kv_group, WINNOW_PATH_PER_KV_GROUP));
static_assert(same(sharing::per_batch, WINNOW_PER_BATCH) && same(sharing::per_kv_group, WINNOW_PER_KV_GROUP) &&
              same(sharing::per_head, WINNOW_PER_HEAD));
static_assert(same(rope_pairing::halves, WINNOW_HALVES) && same(rope_pairing::adjacent, WINNOW_ADJACENT));
static_assert(same(cascade_heads::per_kv_head, WINNOW_OWN_TOKENS) && same(cascade_heads::shared, WINNOW_SHARED_TOKENS));
static_assert(same(cascade_keys::unrotated, WINNOW_UNROTATED_KEYS) &&
              same(cascade_keys::with_rotated, WINNOW_ROTATED_COPY));
static_assert(same(cascade_positions::cached, WINNOW_CACHED_POSITIONS) &&
              same(cascade_positions::original, WINNOW_ORIGINAL_POSITIONS));
static_assert(same(cascade_reduction::max, WINNOW_MAX) && same(cascade_reduction::mean, WINNOW_MEAN) &&
              same(cascade_reduction::median, WINNOW_MEDIAN));
static_assert(max_cascade_levels == WINNOW_MAX_LEVELS);
static_assert(whole_context == WINNOW_WHOLE_CONTEXT && end_aligned == WINNOW_END_ALIGNED);
static_assert(max_prune_stages == WINNOW_MAX_STAGES);

/// A code of this interface that the library does not know.
inline constexpr errc wrong_abi = static_cast<errc>(WINNOW_WRONG_ABI);

inline winnow_status to_c(status const& s) { return {static_cast<std::int32_t>(s.code), s.field, s.rule, s.value}; }

// --- Parts -----------------------------------------------------------------------------------------------------------
// Enumerations are cast as they come: the operators' checks refuse what is no enumerator.

template <class T, int Rank>
tensor_view<T, Rank> view(winnow_tensor const& c) {
    tensor_view<T, Rank> v;
    v.data = static_cast<T*>(c.data);
    for (int axis = 0; axis < Rank; ++axis) {
        v.extent[axis] = c.extent[axis];
        v.stride[axis] = c.stride[axis];
    }
    return v;
}

inline device_info from(winnow_device const& c) {
    return {c.compute_capability, c.multiprocessors, c.shared_memory_per_block, c.l2_bytes, c.instructions};
}

inline winnow_device to_c(device_info const& d) {
    return {d.compute_capability, d.multiprocessors, d.shared_memory_per_block, d.l2_bytes, d.instructions};
}

inline kv_index from(winnow_kv_index const& c) {
    return {.layout = static_cast<kv_layout>(c.layout),
            .length = c.length,
            .start = c.start,
            .pages = c.pages,
            .table_stride = c.table_stride,
            .last_page_length = c.last_page_length,
            .max_length = c.max_length};
}

inline query_index from(winnow_query_index const& c) { return {c.start, c.batch, c.max_length}; }

inline attention_window from(winnow_window const& c) { return {c.sinks, c.recent}; }

inline attention_mask from(winnow_mask const& c) {
    attention_mask m;
    m.kind = static_cast<mask_kind>(c.kind);
    m.offset = c.offset;
    return m;
}

inline lse_view from(winnow_lse const& c) {
    lse_view v;
    v.values = view<float, 3>(c.values);
    v.base = static_cast<lse_base>(c.base);
    return v;
}

template <class Index>
basic_selection<Index> selection(winnow_selection const& c) {
    return {.blocks = view<Index, 4>(c.blocks),
            .counts = view<Index, 3>(c.counts),
            .block_size = c.block_size,
            .query_block = c.query_block,
            .list_row = c.list_row};
}

inline prune_method from(winnow_method const& c) {
    prune_method m;
    for (int i = 0; i < max_prune_stages; ++i) {
        winnow_stage const& s = c.stages[i];
        m.stages[i] = {s.query_block, s.query_stride, s.chunk, s.keep};
    }
    m.stage_count = c.stage_count;
    m.window = from(c.window);
    m.scorer = static_cast<scorer>(c.scorer);
    m.path = static_cast<probe_path>(c.path);
    m.sharing = static_cast<sharing>(c.sharing);
    return m;
}

inline winnow_method to_c(prune_method const& m) {
    winnow_method c{};
    for (int i = 0; i < max_prune_stages; ++i) {
        prune_stage const& s = m.stages[i];
        c.stages[i] = {s.query_block, s.query_stride, s.chunk, s.keep};
    }
    c.stage_count = m.stage_count;
    c.window = {m.window.sinks, m.window.recent};
    c.scorer = static_cast<std::int32_t>(m.scorer);
    c.path = static_cast<std::int32_t>(m.path);
    c.sharing = static_cast<std::int32_t>(m.sharing);
    return c;
}

inline winnow_intervals to_c(refresh_intervals const& r) {
    winnow_intervals c{};
    for (int i = 0; i < max_prune_stages; ++i) c.steps[i] = r.steps[i];
    return c;
}

inline stage_cache from(winnow_stage_cache const& c) {
    stage_cache s{.step = c.step, .lists = c.lists, .slot = c.slot, .slots = c.slots};
    for (int i = 0; i < max_prune_stages; ++i) s.intervals.steps[i] = c.intervals.steps[i];
    return s;
}

inline rope from(winnow_rope const& c) {
    return {.theta = c.theta,
            .rotary_dim = c.rotary_dim,
            .pairing = static_cast<rope_pairing>(c.pairing),
            .inverse_frequency = c.inverse_frequency};
}

inline cache_scales from(winnow_cache_format const& c) {
    return {.key = c.key_scale, .value = c.value_scale, .heads = c.scale_heads == 0 ? 1 : c.scale_heads};
}

template <class T>
key_summary<T> from(winnow_key_summary const& c) {
    return {static_cast<T*>(c.data), c.rows, c.max_keys, c.row};
}

/// Operators whose caches may be stored as something else than T.
template <class C>
concept has_format = requires(C const& c) {
    c.format.stored;
};

inline cascade_layout from(winnow_cascade_layout const& c) {
    cascade_layout layout;
    layout.sinks = c.sinks;
    layout.levels = c.levels;
    layout.eager_fill = c.eager_fill != 0;
    for (int i = 0; i < max_cascade_levels; ++i) {
        layout.size[i] = c.size[i];
        layout.accept.period[i] = c.period[i];
    }
    return layout;
}

inline winnow_cascade_layout to_c(cascade_layout const& layout) {
    winnow_cascade_layout c{};
    c.sinks = layout.sinks;
    c.levels = layout.levels;
    c.eager_fill = layout.eager_fill;
    for (int i = 0; i < max_cascade_levels; ++i) {
        c.size[i] = layout.size[i];
        c.period[i] = layout.accept.period[i];
    }
    return c;
}

template <class T>
cascade_cache<T> cache_of(winnow_cascade_cache const& c) {
    return {.memory = c.memory,
            .layout = from(c.layout),
            .sequences = c.sequences,
            .kv_heads = c.kv_heads,
            .head_dim = c.head_dim,
            .heads = static_cast<cascade_heads>(c.heads),
            .stored = static_cast<cascade_keys>(c.stored)};
}

inline cascade_scorer from(winnow_cascade_scorer const& c) {
    cascade_scorer s;
    s.rows = c.rows;
    s.beta = c.beta;
    s.reduction = static_cast<cascade_reduction>(c.reduction);
    return s;
}

// --- Params: one function an operator --------------------------------------------------------------------------------
// KV: what a cache holds, for operators that have a format.

template <class T, class KV = T>
attend_params<T, KV> params_of(winnow_attend_params const& c) {
    return {.queries = view<T const, 4>(c.queries),
            .keys = view<KV const, 4>(c.keys),
            .values = view<KV const, 4>(c.values),
            .kv = from(c.kv),
            .rows = from(c.rows),
            .selection = selection<std::int32_t const>(c.selection),
            .window = from(c.window),
            .output = view<T, 4>(c.output),
            .lse = from(c.lse),
            .scale = c.scale,
            .soft_cap = c.soft_cap,
            .mask = from(c.mask),
            .range = static_cast<row_range>(c.range),
            .tail = c.tail,
            .tail_step = c.tail_step,
            .rotation = from(c.rotation),
            .sink_logits = c.sink_logits,
            .scales = from(c.format)};
}

inline delta_options from(winnow_delta_options const& c) {
    return {.gamma = c.gamma,
            .dense_tail = c.dense_tail,
            .form = static_cast<delta_form>(c.form),
            .last_chunk = c.last_chunk != 0};
}

template <class T>
delta_params<T> params_of(winnow_delta_params const& c) {
    return {.base = params_of<T>(c.base), .options = from(c.options)};
}

template <class T, class KV = T>
prune_params<T, KV> params_of(winnow_prune_params const& c) {
    return {.queries = view<T const, 4>(c.queries),
            .keys = view<KV const, 4>(c.keys),
            .kv = from(c.kv),
            .rows = from(c.rows),
            .method = from(c.method),
            .selection = selection<std::int32_t>(c.selection),
            .mask = from(c.mask),
            .lookahead = c.lookahead,
            .summary = from<T const>(c.summary),
            .rotation = from(c.rotation),
            .scan = static_cast<scan_style>(c.scan),
            .scales = from(c.format)};
}

template <class T>
sparse_prefill_params<T> params_of(winnow_sparse_prefill_params const& c) {
    return {.queries = view<T const, 4>(c.queries),
            .keys = view<T const, 4>(c.keys),
            .values = view<T const, 4>(c.values),
            .kv = from(c.kv),
            .rows = from(c.rows),
            .method = from(c.method),
            .output = view<T, 4>(c.output),
            .lse = from(c.lse),
            .scale = c.scale,
            .soft_cap = c.soft_cap,
            .sink_logits = c.sink_logits,
            .mask = from(c.mask),
            .dense_tail = c.dense_tail,
            .summary = from<T const>(c.summary),
            .delta = from(c.delta),
            .rotation = from(c.rotation),
            .scan = static_cast<scan_style>(c.scan)};
}

template <class T, class KV = T>
sparse_decode_params<T, KV> params_of(winnow_sparse_decode_params const& c) {
    return {.queries = view<T const, 4>(c.queries),
            .keys = view<KV const, 4>(c.keys),
            .values = view<KV const, 4>(c.values),
            .kv = from(c.kv),
            .method = from(c.method),
            .cache = from(c.cache),
            .output = view<T, 4>(c.output),
            .lse = from(c.lse),
            .scale = c.scale,
            .soft_cap = c.soft_cap,
            .sink_logits = c.sink_logits,
            .summary = from<T const>(c.summary),
            .rotation = from(c.rotation),
            .scan = static_cast<scan_style>(c.scan),
            .scales = from(c.format)};
}

template <class T>
summarise_params<T> params_of(winnow_summarise_params const& c) {
    return {.keys = view<T const, 4>(c.keys),
            .kv = from(c.kv),
            .batch = c.batch,
            .method = from(c.method),
            .summary = from<T>(c.summary),
            .known = c.known,
            .max_new = c.max_new};
}

template <class T>
merge_params<T> params_of(winnow_merge_params const& c) {
    return {.outputs = view<T const, 4>(c.outputs),
            .lses = view<float const, 3>(c.lses),
            .base = static_cast<lse_base>(c.base),
            .output = view<T, 3>(c.output),
            .lse = view<float, 2>(c.lse)};
}

template <class T, class KV = T>
append_params<T, KV> params_of(winnow_append_params const& c) {
    return {.keys = view<T const, 3>(c.keys),
            .values = view<T const, 3>(c.values),
            .key_cache = view<KV, 4>(c.key_cache),
            .value_cache = view<KV, 4>(c.value_cache),
            .slot = c.slot,
            .position = c.position,
            .rotation = from(c.rotation),
            .queries = view<T, 3>(c.queries),
            .scales = from(c.format)};
}

template <class T>
cascade_attend_params<T> params_of(winnow_cascade_attend_params const& c) {
    return {.queries = view<T const, 4>(c.queries),
            .keys = view<T const, 4>(c.keys),
            .values = view<T const, 4>(c.values),
            .rows = from(c.rows),
            .cache = cache_of<T>(c.cache),
            .sequence = c.sequence,
            .output = view<T, 4>(c.output),
            .lse = from(c.lse),
            .scale = c.scale,
            .rotation = from(c.rotation),
            .positions = static_cast<cascade_positions>(c.positions),
            .scores = view<float, 3>(c.scores),
            .scorer = from(c.scorer)};
}

template <class T>
cascade_insert_params<T> params_of(winnow_cascade_insert_params const& c) {
    return {.keys = view<T const, 4>(c.keys),
            .values = view<T const, 4>(c.values),
            .rows = from(c.rows),
            .cache = cache_of<T>(c.cache),
            .sequence = c.sequence,
            .scores = view<float const, 3>(c.scores),
            .rotation = from(c.rotation),
            .positions = static_cast<cascade_positions>(c.positions)};
}

template <class T>
cascade_prefill_params<T> params_of(winnow_cascade_prefill_params const& c) {
    return {.queries = view<T const, 4>(c.queries),
            .keys = view<T const, 4>(c.keys),
            .values = view<T const, 4>(c.values),
            .cache = cache_of<T>(c.cache),
            .sequence = c.sequence,
            .output = view<T, 4>(c.output),
            .lse = from(c.lse),
            .scale = c.scale,
            .rotation = from(c.rotation),
            .positions = static_cast<cascade_positions>(c.positions),
            .scorer = from(c.scorer),
            .chunk = c.chunk};
}

/// The params of any operator, whether it has a format or not.
template <class T, class KV, class C>
auto call_of(C const& c) {
    if constexpr (has_format<C>)
        return params_of<T, KV>(c);
    else
        return params_of<T>(c);
}

/// Element types of an operator; the launches in launch_<type>.cu are instantiated for the same ones.
template <class C>
struct dtypes_of {
    using list = value_list<dtype::bf16, dtype::fp16>;
};
template <>
struct dtypes_of<winnow_merge_params> {
    using list = value_list<dtype::bf16, dtype::fp16, dtype::fp32>;
};

}  // namespace winnow::c_api
