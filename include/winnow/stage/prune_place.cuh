// Which list a block of a pruning kernel works on, and which chunks are its candidates.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/prune_params.hpp"
#include "winnow/core/stage_cache.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/grid_dependency.cuh"

namespace winnow {

/// Arguments of both pruning kernels for one stage of one slab of query blocks.
template <class T>
struct prune_arguments {
    prune_params<T> params;
    batch_shape shape;
    fast_divider page_size;
    std::int32_t list_heads;
    std::int32_t stage;
    std::int32_t first_block;       ///< first query block (of the first stage) of the slab
    std::int32_t slab_blocks;       ///< query blocks of the first stage in a slab
    std::int32_t list_rows;         ///< lists of one stage in `lists`
    std::int32_t max_candidates;    ///< of a list of this stage
    std::int32_t score_width;       ///< width of a row of scores: the most of any stage, rounded up to 16 bytes
    summary_level summaries;        ///< of this stage's chunks
    prune_units units;              ///< how heads are dealt to scoring blocks
    std::int32_t chunks_per_block;  ///< chunks of a scoring block
    std::int32_t walk_rows;         ///< rows that a block of warpgroups has room for
    // Worked out by the host: a thread that divides keeps its block waiting.
    std::int32_t lists_of_slab;  ///< of this stage, per list head
    fast_divider coarse;         ///< query block of the first stage
    fast_divider fine;           ///< query block of this stage
    fast_divider ratio;          ///< blocks of this stage in one of the first
    fast_divider before_ratio;   ///< blocks of this stage in one of the stage before
    std::int32_t finest_lists;  ///< lists of the last stage in a slab, per list head: what rows of lists are counted in
    std::int32_t before_blocks;  ///< blocks of the stage before in one of the first
    std::int32_t chunk_log2;
    std::int32_t pieces_log2;  ///< of the chunks that a parent is cut into; below 0 in the first stage
    stage_region own;          ///< this stage's lists
    stage_region before;       ///< those of the stage before
    std::uint32_t* scores;     ///< [request, unit, list of the slab, candidate] ordered_key
    std::int32_t* lists;       ///< see stage_region_of; the workspace's or the cache's
    stage_cache cache;         ///< decode only: lists live in slots, and stages that are not due are left alone
    bool cached;
    rotary_arguments rotation;  ///< of kernels that turn rows and keys
    prune_groups groups;        ///< lists that one selection serves
    std::int32_t* arrived;  ///< [batch, group] scoring blocks that are done, 0 before and behind each stage; null where
                            ///< selection is a kernel of its own

    /// False for decode steps in which this stage of request `b` has nothing to do. Reads nothing that a kernel of the
    /// step writes, so it may be asked before waiting for them.
    [[nodiscard]] WINNOW_DEVICE bool due(std::int32_t b) const {
        if (!cached) return true;
        std::int32_t const slot = cache.index()(b);
        return slot >= 0 && first_stage_due(cache.step[slot], cache.intervals.steps, stage + 1) <= stage;
    }

    /// Scores of list `index` of the slab by unit `unit` of request `b`. A decode step has one list that is not empty.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t score_row(std::int32_t b, std::int32_t unit,
                                                                      std::int32_t index) const {
        std::int64_t const row = static_cast<std::int64_t>(b) * units.units + unit;
        return cached ? row : row * lists_of_slab + index;
    }
};

/// One list of one stage: its rows, its place, its candidates.
struct prune_place {
    request_view request;
    query_span span;          ///< rows of the query block, by position
    std::int32_t block;       ///< query block counted from the request's first; may be out of range
    std::int64_t list_row;    ///< list of this stage
    std::int64_t parent_row;  ///< list of the stage before
    std::int32_t eligible;    ///< candidates lie below this key
    std::int32_t candidates;
    std::int32_t pieces_log2;  ///< of the chunks that a parent is cut into; below 0 in the first stage
    std::int32_t const* parents;
    bool due;  ///< false: nothing to do here, and nothing may be written

    /// Left end of a chunk that the stage before kept. Lists in a cache that was never reset may hold anything.
    [[nodiscard]] WINNOW_DEVICE std::int32_t parent(std::int32_t i) const {
        return smaller(larger(parents[i], 0), eligible);
    }
    /// Left end of candidate `c`.
    [[nodiscard]] WINNOW_DEVICE std::int32_t left(std::int32_t c, std::int32_t sinks, std::int32_t chunk) const {
        return pieces_log2 < 0 ? sinks + c * chunk : parent(c >> pieces_log2) + (c & ((1 << pieces_log2) - 1)) * chunk;
    }
};

/// What the host knows of a stage: sets the fields of `a` that depend on a.stage.
template <class T>
constexpr void set_stage(prune_arguments<T>& a, std::int32_t stage) {
    prune_method const& m = a.params.method;
    std::int32_t const first = m.stages[0].query_block, own = m.stages[stage].query_block;
    std::int32_t const before = m.stages[larger(stage - 1, 0)].query_block;
    a.stage = stage;
    a.lists_of_slab = a.slab_blocks * (first / own);
    a.coarse = fast_divider(first);
    a.fine = fast_divider(own);
    a.ratio = fast_divider(first / own);
    a.before_ratio = fast_divider(before / own);
    a.finest_lists = a.slab_blocks * (first / m.last().query_block);
    a.before_blocks = first / before;
    a.chunk_log2 = ceil_log2(m.stages[stage].chunk);
    a.pieces_log2 = stage == 0 ? -1 : ceil_log2(m.stages[stage - 1].chunk) - a.chunk_log2;
    a.own = stage_region_of(m, 1, a.list_rows, stage);
    a.before = stage_region_of(m, 1, a.list_rows, larger(stage - 1, 0));
    a.summaries = summary_level_of(m, a.shape.kv_heads, a.shape.head_dim, a.params.summary.rows,
                                   a.params.summary.max_keys, stage);
}

/// Place of list `index` (query blocks of this stage in the slab) of list head `head` and request `b`. Candidates are those
/// of the first stage; of a later one see find_candidates. One thread calls it, and its block waits. Reads nothing that a
/// kernel of pruning writes, so it may be called before waiting for them.
template <class T>
WINNOW_DEVICE prune_place place_of(prune_arguments<T> const& a, std::int32_t index, std::int32_t head, std::int32_t b) {
    prune_params<T> const& p = a.params;
    prune_method const& m = p.method;
    prune_stage const& stage = m.stages[a.stage];
    prune_place place{};
    place.pieces_log2 = a.pieces_log2;
    // Read first, so that these loads and those of the lengths are under way together.
    std::int32_t const slot = a.cached ? a.cache.index()(b) : -1;
    std::int32_t const step = a.cached ? a.cache.step[larger(slot, 0)] : 0;
    place.request = request_of(a.shape, p.rows, p.kv, a.page_size.divisor, p.mask, b);
    std::int32_t const first = larger(place.request.first_position, 0), coarse = a.ratio.quotient(index);
    std::int32_t const part = index - coarse * a.ratio.divisor;
    std::int32_t const absolute = (a.coarse.quotient(first) + a.first_block + coarse) * a.ratio.divisor + part;
    place.block = absolute - a.fine.quotient(first);
    std::int32_t const begin = absolute * stage.query_block, end = place.request.first_position + place.request.queries;
    place.span = {larger(begin, first), smaller(begin + stage.query_block, end) - 1};  // as span_of
    place.due = true;
    std::int64_t const list = static_cast<std::int64_t>(b) * a.list_heads + head;
    if (a.cached) {
        place.due = slot >= 0 && place.span.first <= place.span.last &&
                    first_stage_due(step, a.cache.intervals.steps, a.stage + 1) <= a.stage;
        if (!place.due) return place;
        place.list_row = place.parent_row = static_cast<std::int64_t>(slot) * a.list_heads + head;
    } else {
        place.list_row = list * a.finest_lists + index;
        place.parent_row = list * a.finest_lists + coarse * a.before_blocks + a.before_ratio.quotient(part);
    }
    if (place.span.last < place.span.first) return place;

    place.eligible = eligible_end(looking_position(p.mask.kind, place.span.last, place.request.keys),
                                  place.request.keys, m.window, p.lookahead);
    if (a.stage == 0) {
        std::int32_t const keys = place.eligible - m.window.sinks;
        place.candidates = keys > 0 ? (keys + stage.chunk - 1) >> a.chunk_log2 : 0;  // first_candidates
        return place;
    }
    place.parents = a.lists + a.before.lists + place.parent_row * m.stages[a.stage - 1].keep;
    return place;
}

/// Candidates of a list of a later stage, by what the one before has kept. The thread that called place_of calls it.
template <class T>
WINNOW_DEVICE void find_candidates(prune_arguments<T> const& a, prune_place& place) {
    if (a.stage == 0 || !place.due || place.span.last < place.span.first) return;
    prune_stage const &stage = a.params.method.stages[a.stage], &before = a.params.method.stages[a.stage - 1];
    // Most lists are full: their last entry is read together with the count.
    std::int32_t const written = a.lists[a.before.counts + place.parent_row], last = place.parents[before.keep - 1];
    std::int32_t count = smaller(written, before.keep);
    if (count < 1) return;
    std::int32_t parent = count == before.keep ? smaller(larger(last, 0), place.eligible) : place.parent(count - 1);
    // Parents ascend, so pieces at or beyond the eligible end are the last ones.
    while (parent >= place.eligible) {
        if (--count == 0) return;
        parent = place.parent(count - 1);
    }
    std::int32_t const keys = place.eligible - parent;
    std::int32_t const pieces = smaller(1 << a.pieces_log2, (keys + stage.chunk - 1) >> a.chunk_log2);
    place.candidates = smaller(a.max_candidates, ((count - 1) << a.pieces_log2) + pieces);
}

/// True for blocks of stages that are not due, which need not wait for earlier kernels. One block of each kernel waits all
/// the same: a kernel that waits for this one waits for those before it as well.
template <class T>
WINNOW_DEVICE bool leaves_early(prune_arguments<T> const& a, std::int32_t b) {
    if (a.due(b)) return false;
    if (blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0) ptx::wait_for_earlier_grids();
    return true;
}

}  // namespace winnow
