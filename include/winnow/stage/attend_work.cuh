// What one tile of attention works on: its request, rows, heads, the walk over its keys, and where its results go.
#pragma once

#include <cstdint>

#include "winnow/core/anchor_rows.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/attend_policy.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/prefetch.cuh"
#include "winnow/stage/anchor_correction.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/key_walk.cuh"

namespace winnow {

/// Which rows and heads a tile computes, and which piece of its keys.
struct attend_work {
    request_view request;
    tile_rows rows;      ///< or anchors: see row_of
    std::int32_t phase;  ///< of the anchors, 0 for rows
    std::int32_t batch;
    std::int32_t kv_head;
    std::int32_t first_head;  ///< query head
    std::int32_t heads;       ///< heads packed in this tile
    std::int32_t split;       ///< piece of the key sequence
    std::int64_t result_row;  ///< of the tile's first row, among the partial results of all requests
};

/// Work of tile `tile` (of schedule.tiles()), split `split` of request `batch`.
template <class T>
WINNOW_DEVICE attend_work work_of(attend_arguments<T> const& a, std::int32_t tile, std::int32_t split,
                                  std::int32_t batch) {
    attend_params<T> const& p = a.params;
    attend_schedule const& s = a.schedule;
    // One KV head after the other, so that its keys stay in L2; within one, late tiles first, since under a causal mask
    // they see the most keys.
    std::int32_t const kv_head = a.kv_head_tiles.quotient(tile);
    std::int32_t const inside = tile - kv_head * a.kv_head_tiles.divisor;
    std::int32_t const later = a.head_groups.quotient(inside), index = s.query_tiles - 1 - later;
    attend_work w;
    w.batch = batch;
    w.split = split;
    w.request = request_of(a.shape, p.rows, p.kv, a.page_size.divisor, p.mask, w.batch);
    if (a.slots.padded(w.batch)) w.request.keys = 0;
    bool const listed = !p.selection.empty();
    row_span const covered = rows_of_range(w.request, p.range, p.tail, p.tail_step);
    w.phase = 0;
    if (p.range == row_range::anchors) {
        anchor_rows const anchors(w.request.first_position, s.anchor_gap);
        w.phase = anchors.phase;
        w.rows = anchors_of_tile(index, s.tile_tokens, listed, w.request, covered, anchors);
    } else {
        w.rows = rows_of_tile(index, s.tile_tokens, listed, w.request, covered);
    }
    w.result_row = static_cast<std::int64_t>(batch) * s.max_rows + w.rows.first - covered.begin;
    w.kv_head = kv_head;
    std::int32_t const in_group = (inside - later * s.head_groups) * s.tile_heads;
    w.first_head = w.kv_head * a.group + in_group;
    w.heads = smaller(s.tile_heads, a.group - in_group);
    return w;
}

/// Brings a decode tile's list and its count into L2 while lengths are looked up, which have to be known before entries are
/// read: two trips to memory become one. One warp calls it.
template <class T>
WINNOW_DEVICE void prefetch_list(attend_arguments<T> const& a, std::int32_t tile, std::int32_t batch) {
    block_selection const& s = a.params.selection;
    if (s.empty() || s.blocks.extent[2] != 1) return;  // of several query blocks the length says which
    std::int32_t const row = s.list_row == nullptr ? batch : s.list_row[batch];
    if (row < 0 || row >= s.blocks.extent[0]) return;
    std::int32_t const head = a.list_heads.quotient(a.kv_head_tiles.quotient(tile) * a.group);
    std::int32_t const* const list = s.blocks.data + s.blocks.offset(row, head, 0);
    constexpr std::int32_t line = 128 / sizeof(std::int32_t);
    for (std::int32_t i = threadIdx.x * line; i < s.capacity(); i += 32 * line) ptx::prefetch_line_to_l2(list + i);
    if (threadIdx.x == 0) ptx::prefetch_line_to_l2(&s.counts(row, head, 0));
}

/// Row of the request that stands at `token` in a tile: rows follow one another, or are anchor_gap positions apart.
WINNOW_HOST_DEVICE constexpr std::int32_t row_of(attend_schedule const& s, attend_work const& w, std::int32_t token) {
    return larger((w.rows.first + token) * s.anchor_gap - w.phase, 0);
}

/// Describes the walk over the tile's keys: list of its query block, ranges of its first and last row. In place: `walk`
/// lies in shared memory, and registers are short where it is made.
template <class T>
WINNOW_DEVICE void begin_walk(key_walk& walk, attend_arguments<T> const& a, attend_work const& w) {
    attend_params<T> const& p = a.params;
    std::int32_t const keys = w.request.keys;
    std::int32_t const first_position = w.request.first_position + row_of(a.schedule, w, 0);
    std::int32_t const last_position = w.request.first_position + row_of(a.schedule, w, w.rows.count - 1);
    std::int32_t const first = looking_position(p.mask.kind, first_position, keys);
    std::int32_t const last = looking_position(p.mask.kind, last_position, keys);
    walk.list = nullptr;
    std::int32_t listed = 0;  // used at the end, when it is there
    walk.block_shift = 0;
    if (!p.selection.empty()) {
        block_selection const& s = p.selection;
        std::int32_t const row = s.list_row == nullptr ? w.batch : s.list_row[w.batch];
        std::int32_t const block =
            s.blocks.extent[2] == 1 ? 0 : query_block_of(last_position, w.request.first_position, s.query_block);
        std::int32_t const head = a.list_heads.quotient(w.first_head);
        if (row >= 0 && row < s.blocks.extent[0]) {
            walk.list = s.blocks.data + s.blocks.offset(row, head, block);
            listed = s.counts(row, head, block);
        }
        walk.block_shift = 31 - __clz(s.block_size / granule_keys);
    }
    walk.keys = keys;
    walk.request = w.batch;
    walk.linear = p.kv.layout == kv_layout::contiguous || p.kv.layout == kv_layout::ragged;
    token_location base{0, 0};
    if (walk.linear) base = locate(p.kv, a.page_size, p.keys.extent[0], w.batch, 0);
    walk.base = base;
    walk.origin.key = w.kv_head * p.keys.stride[2] + base.outer * p.keys.stride[0] + base.token * p.keys.stride[1];
    walk.origin.value =
        w.kv_head * p.values.stride[2] + base.outer * p.values.stride[0] + base.token * p.values.stride[1];
    walk.early = ranges_of(first, keys, p.window);
    walk.late = ranges_of(last, keys, p.window);
    walk.list_count = smaller(larger(listed, 0), p.selection.capacity());
    walk.sequence = granules_of(first, last, keys, p.window, walk.list_count, granule_keys << walk.block_shift);
    if (a.schedule.attended == attended_keys::omitted) walk.sequence = omitted_granules(walk.late);
}

/// Where key `position` of the walk's request lies; `outer` < 0: nowhere.
template <class T>
WINNOW_DEVICE token_location location_of(attend_arguments<T> const& a, key_walk const& walk, std::int32_t position) {
    if (walk.linear) return {walk.base.outer, walk.base.token + position};
    return locate(a.params.kv, a.page_size, a.params.keys.extent[0], walk.request, position);
}

/// Steps of a tile's walk.
struct step_range {
    std::int32_t begin, end;
};

/// The steps of `step_keys` keys that split `split` takes.
WINNOW_HOST_DEVICE constexpr step_range steps_of(attend_schedule const& schedule, key_walk const& walk,
                                                 std::int32_t split, std::int32_t step_keys) {
    step_range r{0, ceil_div(walk.sequence.size(), step_keys / granule_keys)};
    if (schedule.splits > 1) {
        std::int32_t const per_split = ceil_div(schedule.split_keys, step_keys);
        r.begin = split * per_split;
        r.end = smaller(r.end, r.begin + per_split);
    }
    return r;
}

/// Position that row `row` of a tile looks from; below 0 if there is no such row.
template <class T>
WINNOW_DEVICE std::int32_t looking_of(attend_arguments<T> const& a, attend_work const& w, std::int32_t row) {
    std::int32_t const token = a.tile_heads.quotient(row), head = row - token * a.schedule.tile_heads;
    if (token >= w.rows.count || head >= w.heads) return -1;
    return looking_position(a.params.mask.kind, w.request.first_position + row_of(a.schedule, w, token),
                            w.request.keys);
}

/// What one row sees: keys below `end` of each key_part, from the part's first key on; the window's differs by row.
struct row_limits {
    std::int32_t end[3];
    std::int32_t window_begin;
};

/// Limits of a row that looks from `looking`, below 0 where there is no row.
WINNOW_HOST_DEVICE constexpr row_limits limits_of(std::int32_t looking, std::int32_t keys, attention_window window) {
    visible_ranges const r = ranges_of(looking, keys, window);
    return {{r.sink_end, r.list_end, r.window_end}, r.window_begin};
}

/// The first key of a part that a row may see.
WINNOW_HOST_DEVICE constexpr std::int32_t first_seen(row_limits const& row, std::int32_t part, std::int32_t sinks) {
    if (part == static_cast<std::int32_t>(key_part::window)) return row.window_begin;
    return part == static_cast<std::int32_t>(key_part::list) ? sinks : 0;
}

/// Hides the scores of keys that a row may not see where all lie side by side in one part. `granule`: the first, packed.
template <int KeyTiles>
WINNOW_DEVICE void mask_run(float (&score)[KeyTiles][4], std::int32_t granule, row_limits const& first,
                            row_limits const& second, std::int32_t sinks) {
    std::int32_t const part = granule & 7, key = (granule & ~7) + 2 * (threadIdx.x % 4);
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) {
        row_limits const& row = h == 0 ? first : second;
        std::int32_t const begin = first_seen(row, part, sinks) - key, end = row.end[part] - key;
        WINNOW_UNROLL
        for (int n = 0; n < KeyTiles; ++n) WINNOW_UNROLL
        for (int e = 0; e < 2; ++e)
            if (8 * n + e < begin || 8 * n + e >= end) score[n][2 * h + e] = minus_infinity;
    }
}

/// Hides the scores of keys that a row may not see. Only steps with a boundary in them come here. `granule`: the packed
/// granules of the score's key tiles; `first`, `second`: limits of this lane's two rows. They lie in shared memory and are
/// read for every granule anew, since registers are short here (ptxas spills if they are held).
template <int KeyTiles>
WINNOW_DEVICE void mask_scores(float (&score)[KeyTiles][4], std::int32_t const* granule, row_limits const& first,
                               row_limits const& second, std::int32_t sinks) {
    WINNOW_UNROLL
    for (int n = 0; n < KeyTiles; ++n) {
        std::int32_t const packed = granule[n], part = packed & 7;
        std::int32_t const key = (packed & ~7) + 2 * (threadIdx.x % 4);
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) {
            row_limits const& row = h == 0 ? first : second;
            std::int32_t const end = row.end[part];
            std::int32_t const begin = first_seen(row, part, sinks);
            WINNOW_UNROLL
            for (int e = 0; e < 2; ++e)  // hidden granules lie below every limit
                if (key + e < begin || key + e >= end) score[n][2 * h + e] = minus_infinity;
        }
    }
}

/// Splits of a tile that have keys, at least one: only those run where the kernel merges by itself.
template <class T>
WINNOW_DEVICE std::int32_t pieces_of(attend_arguments<T> const& a, key_walk const& walk) {
    return larger(a.split_granules.quotient(walk.sequence.size() + a.split_granules.divisor - 1), 1);
}

/// Decode steps since the slot of request `batch` was reset; below 0 where no step is counted.
template <class T>
WINNOW_DEVICE std::int32_t age_of(attend_arguments<T> const& a, std::int32_t batch) {
    std::int32_t const slot = a.step.step == nullptr ? -1 : a.slots(batch);
    return slot < 0 ? -1 : larger(a.step.step[slot], 0);
}

/// True if lists are refreshed at `age`: see first_stage_due. All lanes of a warp call; each asks for one stage, since a
/// remainder takes long.
WINNOW_DEVICE bool refreshes_at(decode_step const& step, std::int32_t age) {
    static_assert(max_prune_stages <= 32, "a lane for each stage");
    std::int32_t const stage = threadIdx.x % 32;
    return __any_sync(~0u, age >= 0 && stage < step.stages && falls_due(age, step.intervals.steps[stage]));
}

/// Writes one row's finished channels: to the output, or as a partial result.
template <class T>
struct attend_row_writer {
    attend_arguments<T> const& a;
    attend_work const& w;

    /// True if rows take something from their anchors.
    WINNOW_DEVICE bool corrects() const { return !partial() && a.correction.output != nullptr; }
    /// Correction of the selected row: see correction_of.
    WINNOW_DEVICE row_correction correction(float inverse, float& lse) const {
        return correction_of(a, w.request, w.batch, w.rows.first + token, w.first_head + head, inverse, lse);
    }
    /// False for rows that do not exist.
    WINNOW_DEVICE bool select(int row) {
        token = a.tile_heads.quotient(row);
        head = row - token * a.schedule.tile_heads;
        return token < w.rows.count && head < w.heads;
    }
    WINNOW_DEVICE std::int64_t partial_index() const {
        return ((w.result_row + token) * a.shape.heads + w.first_head + head) * a.schedule.splits + w.split;
    }
    WINNOW_DEVICE void channels(int channel, float x, float y) const {
        if (partial()) {
            *reinterpret_cast<float2*>(a.partial_output + partial_index() * a.shape.head_dim + channel) =
                make_float2(x, y);
        } else {
            tensor_view<T, 4> const& o = a.params.output;
            T* const at =
                o.data + o.offset(w.request.outer, w.request.first_row + w.rows.first + token, w.first_head + head);
            *reinterpret_cast<std::uint32_t*>(at + channel) = ptx::pack<T>(x, y);
        }
    }
    /// Eight finished channels from `channel` on, rounded and packed. Only of finished rows.
    WINNOW_DEVICE void chunk(int channel, uint4 packed) const {
        tensor_view<T, 4> const& o = a.params.output;
        T* const at =
            o.data + o.offset(w.request.outer, w.request.first_row + w.rows.first + token, w.first_head + head);
        *reinterpret_cast<uint4*>(at + channel) = packed;
    }
    /// Counts the head's sink logit in `lse` (base 2), and gives the factor for channels that were divided without it.
    WINNOW_DEVICE float add_sink(float& lse) const {
        if (a.params.sink_logits == nullptr || partial() || lse == minus_infinity) return 1.0f;
        float const before = lse, sink = a.params.sink_logits[w.first_head + head] * log2_e, most = fmaxf(lse, sink);
        lse = most + ptx::log2_fast(ptx::exp2_fast(before - most) + ptx::exp2_fast(sink - most));
        return ptx::exp2_fast(before - lse);
    }
    /// `lse` in base 2.
    WINNOW_DEVICE void log_sum_exp(float lse) const {
        if (partial()) {
            a.partial_lse[partial_index()] = lse;
        } else if (!a.params.lse.empty()) {
            a.params.lse.values(w.request.outer, w.request.first_row + w.rows.first + token, w.first_head + head) =
                a.params.lse.base == lse_base::natural ? lse * ln_2 : lse;
        }
    }
    /// True where a merge finishes the rows.
    [[nodiscard]] WINNOW_DEVICE bool partial() const { return a.partial() && !whole; }
    std::int32_t token = 0;
    std::int32_t head = 0;
    bool whole = false;  ///< this split has all of the tile's keys
};

}  // namespace winnow
