// Hierarchical top-k pruning: from queries and keys to a block selection, in stages that narrow where attention goes.
//
//   score(chunk) = max of q . k* over the rows of the query block (averaged in groups) and the heads that share a list,
//   with k* a representative key; each stage keeps its best chunks (ties: the smaller index), ascending.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "winnow/core/cache_scales.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/prune_params.hpp"
#include "winnow/core/prune_stages.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/core/stage_cache.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/tensor_view.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/check.hpp"
#include "winnow/op/check_rope.hpp"
#include "winnow/policy/prune_policy.hpp"

namespace winnow {

/// Extents of the selection that a method writes: [batch, list head, query block, entry].
struct selection_extents {
    std::int32_t batch;         ///< requests
    std::int32_t list_heads;    ///< lists per query block
    std::int32_t query_blocks;  ///< query blocks of a request, at most
    std::int32_t capacity;      ///< entries of a list, at most
    /// Lists in all.
    [[nodiscard]] constexpr std::size_t list_count() const {
        return static_cast<std::size_t>(batch) * list_heads * query_blocks;
    }
};

/// What `m` writes for `s`. A method whose last stage has no query block has no lists, and check says so.
constexpr selection_extents selection_extents_of(prune_method const& m, batch_shape const& s) {
    std::int32_t const rows = m.last().query_block > 0 ? s.max_queries : 0;
    return {s.batch, list_heads_of(m.sharing, s.heads, s.kv_heads),
            query_blocks_of(rows, larger(m.last().query_block, 1)), m.last().keep};
}

/// Packed selection over caller's memory: `blocks` holds list_count() * capacity entries, `counts` list_count().
template <class Index>
constexpr basic_selection<Index> packed_selection(Index* blocks, Index* counts, prune_method const& m,
                                                  batch_shape const& shape) {
    auto const e = selection_extents_of(m, shape);
    basic_selection<Index> s;
    s.blocks = packed_view(blocks, {e.batch, e.list_heads, e.query_blocks, e.capacity});
    s.counts = packed_view(counts, {e.batch, e.list_heads, e.query_blocks});
    s.block_size = m.last().chunk;
    s.query_block = m.last().query_block;
    return s;
}

/// Validates a method alone.
constexpr status check(prune_method const& m) {
    if (m.stage_count < 1 || m.stage_count > max_prune_stages)
        return fail(errc::out_of_range, "method.stage_count", "must lie in [1, max_prune_stages]", m.stage_count);
    for (int i = 0; i < m.stage_count; ++i) {
        auto const& stage = m.stages[i];
        if (stage.query_block < 1 || stage.query_block > 128)
            return fail(errc::out_of_range, "method.stages.query_block", "must lie in [1, 128]", stage.query_block);
        if (stage.query_stride < 1 || stage.query_block % stage.query_stride != 0)
            return fail(errc::out_of_range, "method.stages.query_stride", "must divide query_block",
                        stage.query_stride);
        if (!is_power_of_two(stage.chunk) || stage.chunk > 65536)
            return fail(errc::out_of_range, "method.stages.chunk", "must be a power of two up to 65536", stage.chunk);
        if (stage.keep < 1 || stage.keep > 65536)
            return fail(errc::out_of_range, "method.stages.keep", "must lie in [1, 65536]", stage.keep);
        if (i > 0 && m.stages[i - 1].query_block % stage.query_block != 0)
            return fail(errc::out_of_range, "method.stages.query_block", "must divide the stage before",
                        stage.query_block);
        if (i > 0 && (m.stages[i - 1].chunk % stage.chunk != 0 || m.stages[i - 1].chunk == stage.chunk))
            return fail(errc::out_of_range, "method.stages.chunk", "must divide the stage before and be smaller",
                        stage.chunk);
    }
    std::int32_t const block = m.last().chunk;
    if (block < 8 || block > 128)
        return fail(errc::unsupported, "method.stages.chunk", "the last stage's must be 8, 16, 32, 64 or 128", block);
    if (auto s = check_enum(m.scorer, scorer::antidiagonal, "method.scorer"); !s) return s;
    for (int i = 0; i < m.stage_count && m.scorer == scorer::antidiagonal; ++i) {
        std::int32_t const stride = m.stages[i].query_stride;
        if (!is_power_of_two(stride) || stride > max_antidiagonal || stride > m.stages[i].chunk)
            return fail(errc::out_of_range, "method.stages.query_stride",
                        "must be a power of two up to 16 and the chunk with the scorer antidiagonal", stride);
    }
    if (auto s = check_enum(m.path, probe_path::per_kv_group, "method.path"); !s) return s;
    if (auto s = check_enum(m.sharing, sharing::per_head, "method.sharing"); !s) return s;
    if (m.window.sinks < 0) return fail(errc::out_of_range, "method.window.sinks", "must be >= 0", m.window.sinks);
    if (m.window.recent < 0) return fail(errc::out_of_range, "method.window.recent", "must be >= 0", m.window.recent);
    if (m.window.sinks % block != 0)
        return fail(errc::out_of_range, "method.window.sinks", "must be a multiple of the last chunk", m.window.sinks);
    return {};
}

/// Where a prune launch keeps its intermediate data. Query blocks are processed in slabs so that memory stays bounded.
struct prune_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< bytes `launch` needs, aligned to workspace_alignment
    batch_shape shape{};              ///< the extents it was made for
    std::int32_t slab_blocks = 0;     ///< query blocks of the first stage in a slab
    std::int32_t slabs = 0;           ///< slabs that cover a request's query blocks
    std::int32_t list_rows = 0;       ///< lists of one stage: batch * list heads * finest blocks of a slab
    std::int32_t max_candidates = 0;  ///< candidates of one query block in any stage
    std::size_t scores = 0;           ///< offset: uint32 [batch, unit, list of the slab, score_width()]
    std::size_t lists = 0;            ///< offset: all stages' lists of the slab, see stage_region_of
    std::size_t arrived = 0;          ///< offset: int32 [batch, group] of a decode step, see prune_groups
    std::int32_t instructions = 80;   ///< device_info::instructions; 90: kernels overlap, warpgroups multiply

    /// Scores of a list: max_candidates in whole groups of four, which selection reads at a time.
    [[nodiscard]] constexpr std::int32_t score_width() const { return round_up(max_candidates, 4); }
    /// Counters of a decode step of `m`, which has one row a request.
    [[nodiscard]] constexpr std::size_t counters(prune_method const& m) const {
        if (shape.max_queries != 1) return 0;
        std::int32_t const lists = list_heads_of(m.sharing, shape.heads, shape.kv_heads);
        prune_groups const groups = groups_of(lists, units_of(m, shape.heads, shape.kv_heads).units);
        return static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(groups.count);
    }
    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
    /// True for plans that lay out the same launch.
    [[nodiscard]] constexpr bool same_layout(prune_plan const& o) const {
        return shape == o.shape && slab_blocks == o.slab_blocks && slabs == o.slabs && list_rows == o.list_rows &&
               max_candidates == o.max_candidates && lists == o.lists && arrived == o.arrived &&
               workspace_bytes == o.workspace_bytes;
    }
};

/// Bytes of scores and lists that a slab may take; a slab has at least one query block of the first stage.
inline constexpr std::size_t prune_slab_bytes = std::size_t{48} << 20;

/// Lists of all stages are counted in int32: rows of lists (requests or slots, times list heads) times the finest query
/// blocks in one of the first stage.
constexpr status check_list_rows(prune_method const& m, batch_shape const& shape, std::int64_t requests,
                                 char const* field) {
    std::int64_t const lists = requests * list_heads_of(m.sharing, shape.heads, shape.kv_heads);
    std::int64_t const rows = lists * (m.stages[0].query_block / m.last().query_block);
    constexpr std::int64_t most = (std::int64_t{1} << 31) - 1;
    return rows <= most ? status{} : fail(errc::unsupported, field, "times list heads must be < 2^31", requests);
}

/// Summaries of a method's chunks, read or written.
template <class T>
constexpr status check_summary(key_summary<T const> const& s, prune_method const& m, batch_shape const& shape) {
    if (s.data == nullptr) return {};
    if (summary_parts(m.scorer) == 0)
        return fail(errc::unsupported, "summary.data", "is for the scorers mean_key and min_max_bound", 0);
    if (!std::is_constant_evaluated() && reinterpret_cast<std::uintptr_t>(s.data) % 16 != 0)
        return fail(errc::misaligned, "summary.data", "must be 16-byte aligned",
                    static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(s.data) % 16));
    if (s.rows < (s.row == nullptr ? shape.batch : 0))
        return fail(errc::bad_extent, "summary.rows", "must be >= 0, and >= the batch without summary.row", s.rows);
    if (s.max_keys < shape.max_keys)
        return fail(errc::bad_extent, "summary.max_keys", "must be >= the most keys of a request", s.max_keys);
    return check_pointer(s.row, false, "summary.row");
}

/// A rotation and how a method's scan uses it.
constexpr status check_scan(rope const& rotation, scan_style scan, prune_method const& m, mask_kind mask,
                            std::int64_t head_dim) {
    if (auto s = check_rope(rotation, head_dim); !s) return s;
    if (auto s = check_enum(scan, scan_style::chunk_indexed, "scan"); !s) return s;
    if (rotation.empty()) return {};
    if (m.scorer != scorer::tree_probe)
        return fail(errc::unsupported, "method.scorer", "must be tree_probe with a rotation",
                    static_cast<int>(m.scorer));
    if (mask != mask_kind::causal)
        return fail(errc::unsupported, "mask.kind", "must be causal with a rotation", static_cast<int>(mask));
    if (scan == scan_style::relative) return {};
    if (std::int64_t{rotation.pairs(static_cast<std::int32_t>(head_dim))} * 2 != head_dim)
        return fail(errc::unsupported, "rotation.rotary_dim", "must be all channels where scan is chunk_indexed",
                    rotation.rotary_dim);
    if (rotation.pairing != rope_pairing::halves)
        return fail(errc::unsupported, "rotation.pairing", "must be halves where scan is chunk_indexed",
                    static_cast<int>(rotation.pairing));
    return {};
}

/// What is asked of a method by keys that are stored as KV, and of their scales.
template <class T, class KV>
constexpr status check_storage(tensor_view<KV const, 4> const& keys, cache_scales const& scales, prune_method const& m,
                               key_summary<T const> const& summary, rope const& rotation) {
    if constexpr (std::is_same_v<T, KV>) {
        bool const given = scales.key != nullptr || scales.value != nullptr;
        return given ? fail(errc::unsupported, "scales", "are for fp8 keys", scales.heads) : status{};
    } else {
        if (auto s = check_channels(keys, "keys.data", "keys.stride[3]", "keys.stride"); !s) return s;
        if (!widened_scorers::contains(m.scorer))
            return fail(errc::unsupported, "method.scorer", "must be tree_probe or centre_probe over fp8 keys",
                        static_cast<int>(m.scorer));
        if (summary.data != nullptr) return fail(errc::unsupported, "summary.data", "must be null over fp8 keys", 0);
        if (!rotation.empty()) return fail(errc::unsupported, "rotation", "must be empty with fp8 keys", 1);
        return check_scales(scales, keys.extent[2]);
    }
}

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T, class KV>
constexpr status check(prune_params<T, KV> const& p) {
    if (auto s = check_queries_and_keys(p.queries, p.rows, stored_view<T>(p.keys), p.kv); !s) return s;
    if (auto s = check(p.method); !s) return s;
    if (auto s = check_storage(p.keys, p.scales, p.method, p.summary, p.rotation); !s) return s;
    if (auto s = check_window(p.method.window, p.mask, p.shape().max_queries); !s) return s;
    if (auto s = check_scan(p.rotation, p.scan, p.method, p.mask.kind, p.queries.extent[3]); !s) return s;
    if (p.lookahead < 0) return fail(errc::out_of_range, "lookahead", "must be >= 0", p.lookahead);
    auto const shape = p.shape();
    if (auto s = check_summary(p.summary, p.method, shape); !s) return s;
    if (auto s = check_list_rows(p.method, shape, shape.batch, "batch"); !s) return s;
    auto const extents = selection_extents_of(p.method, shape);
    if (auto s = check_selection(p.selection, shape); !s) return s;
    if (p.selection.list_row != nullptr)
        return fail(errc::unsupported, "selection.list_row", "must be null: lists are written in batch order", 0);
    if (p.selection.block_size != p.method.last().chunk)
        return fail(errc::bad_extent, "selection.block_size", "must equal the last stage's chunk",
                    p.selection.block_size);
    if (p.selection.query_block != p.method.last().query_block)
        return fail(errc::bad_extent, "selection.query_block", "must equal the last stage's", p.selection.query_block);
    if (p.selection.list_heads() != extents.list_heads)
        return fail(errc::bad_extent, "selection.blocks.extent[1]", "must equal list_heads_of(method.sharing, ...)",
                    p.selection.list_heads());
    if (p.selection.capacity() < extents.capacity)
        return fail(errc::bad_extent, "selection.blocks.extent[3]", "must hold the last stage's keep",
                    p.selection.capacity());
    if (auto s = check_distinct(p.selection.blocks, "selection.blocks.stride"); !s) return s;
    return check_distinct(p.selection.counts, "selection.counts.stride");
}

/// The same call with fp8 keys passed off as T's, see stored_view; it keeps their scales. All fields are named, as in
/// over_cache.
template <class T>
prune_params<T> as_stored(prune_params<T, fp8_e4m3> const& p) {
    auto const& [queries, keys, kv, rows, method, selection, mask, lookahead, summary, rotation, scan, scales] = p;
    return {queries, stored_view<T>(keys), kv, rows, method, selection, mask, lookahead, summary, rotation, scan,
            scales};
}
/// Keys that are T's already.
template <class T>
constexpr prune_params<T> const& as_stored(prune_params<T> const& p) {
    return p;
}

/// Most candidates that one query block can have in stage `stage`.
constexpr std::int32_t stage_candidates(prune_method const& m, std::int32_t stage, std::int32_t max_keys) {
    std::int32_t const chunk = m.stages[stage].chunk;
    if (stage == 0) return larger(first_candidates(max_keys, m.window.sinks, chunk), 1);
    std::int32_t const ratio = m.stages[stage - 1].chunk / chunk;
    std::int64_t const pieces = static_cast<std::int64_t>(m.stages[stage - 1].keep) * ratio;
    std::int64_t const exist = ceil_div(max_keys, chunk) + 1;
    return larger(static_cast<std::int32_t>(smaller(pieces, exist + ratio)), 1);
}

/// The same for all stages: bounds the scores' row.
constexpr std::int32_t max_candidates_of(prune_method const& m, std::int32_t max_keys) {
    std::int32_t most = 1;
    for (int i = 0; i < m.stage_count; ++i) most = larger(most, stage_candidates(m, i, max_keys));
    return most;
}

/// Averaged query rows of one walker of a scoring block, at most.
constexpr std::int64_t walker_rows(prune_stage const& stage, prune_units const& units, std::int32_t max_queries) {
    // Groups lie at absolute positions, so a few rows may touch one group more than they fill.
    std::int32_t const groups =
        smaller(stage.query_block / stage.query_stride, query_blocks_of(max_queries, stage.query_stride));
    return std::int64_t{groups} * units.heads;
}

/// Averaged query rows that a scoring block keeps in shared memory, in whole products; `held` of them at most.
constexpr std::int32_t rows_held(prune_stage const& stage, prune_units const& units, std::int32_t max_queries,
                                 std::int32_t held, std::int32_t product, std::int32_t copies = 1) {
    std::int64_t const padded = round_up<std::int64_t>(walker_rows(stage, units, max_queries), product);
    return static_cast<std::int32_t>(smaller<std::int64_t>(padded * units.walkers * copies, held));
}

/// Workspace layout for a shape; shared by prune and by the operators that embed it.
constexpr prune_plan prune_plan_of(prune_method const& m, batch_shape const& shape) {
    prune_plan result;
    result.shape = shape;
    result.max_candidates = max_candidates_of(m, shape.max_keys);
    auto const lists = static_cast<std::size_t>(shape.batch) * list_heads_of(m.sharing, shape.heads, shape.kv_heads);
    std::int32_t const coarse = m.stages[0].query_block, ratio = coarse / m.last().query_block;
    std::int32_t const blocks = query_blocks_of(shape.max_queries, coarse);
    std::size_t const rows =
        static_cast<std::size_t>(shape.batch) * units_of(m, shape.heads, shape.kv_heads).units * ratio;
    auto const entries = static_cast<std::size_t>(stage_region_of(m, 1, 1, m.stage_count).counts);
    std::size_t const per_block = larger<std::size_t>(
        rows * result.score_width() * sizeof(std::uint32_t) + lists * ratio * entries * sizeof(std::int32_t), 1);
    // A slab may reach past the last block: its positions, beyond max_tokens, have to fit int32 as well.
    std::int32_t const most = smaller(blocks, static_cast<std::int32_t>(max_query_block / coarse));
    std::int32_t const fit = static_cast<std::int32_t>(smaller<std::size_t>(
        larger<std::size_t>(prune_slab_bytes / per_block, 1), static_cast<std::size_t>(larger(most, 1))));
    result.slabs = static_cast<std::int32_t>(ceil_div<std::int64_t>(blocks, fit));
    result.slab_blocks = result.slabs > 0 ? static_cast<std::int32_t>(ceil_div(blocks, result.slabs)) : fit;
    result.list_rows = static_cast<std::int32_t>(lists) * result.slab_blocks * ratio;
    workspace_layout layout;
    result.scores = layout.take(rows * result.slab_blocks * result.score_width(), sizeof(std::uint32_t));
    result.lists = layout.take(static_cast<std::size_t>(stage_region_of(m, 1, result.list_rows, m.stage_count).counts),
                               sizeof(std::int32_t));
    result.arrived = layout.take(result.counters(m), sizeof(std::int32_t));
    result.workspace_bytes = layout.bytes;
    return result;
}

/// The same for a device.
constexpr prune_plan prune_plan_of(prune_method const& m, batch_shape const& shape, device_info const& device) {
    prune_plan result = prune_plan_of(m, shape);
    result.instructions = device.instructions;
    return result;
}

/// Cuts the query blocks into slabs and counts the workspace. Pure host arithmetic: no CUDA call, no tensor is read.
template <class T, class KV>
constexpr prune_plan plan(prune_params<T, KV> const& p, device_info const& device) {
    prune_plan result;
    result.why = check(p);
    if (!result.why) return result;
    if (device.compute_capability < 80) {
        result.why = fail(errc::unsupported, "device.compute_capability", "must be >= 80", device.compute_capability);
        return result;
    }
    return prune_plan_of(p.method, p.shape(), device);
}

}  // namespace winnow
