// Which list a block of a pruning kernel works on, and which chunks are its candidates.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/prune_params.hpp"
#include "winnow/core/stage_cache.hpp"
#include "winnow/policy/prune_policy.hpp"

namespace winnow {

/// Arguments of both pruning kernels for one stage of one slab of query blocks.
template <class T>
struct prune_arguments {
    prune_params<T> params;
    batch_shape shape;
    fast_divider page_size;
    std::int32_t list_heads;
    std::int32_t stage;
    std::int32_t first_block;  ///< first query block (of the first stage) of the slab
    std::int32_t slab_blocks;  ///< query blocks of the first stage in a slab
    std::int32_t list_rows;    ///< lists of one stage in `lists`
    std::int32_t max_candidates;
    std::int32_t score_width;       ///< width of a row of scores: max_candidates, rounded up to 16 bytes
    summary_level summaries;        ///< of this stage's chunks
    prune_units units;              ///< how heads are dealt to scoring blocks
    std::int32_t chunks_per_block;  ///< chunks of a scoring block
    std::uint32_t* scores;          ///< [request, unit, list of the slab, candidate] ordered_key
    std::int32_t* lists;            ///< see stage_region_of; the workspace's or the cache's
    stage_cache cache;              ///< decode only: lists live in slots, and stages that are not due are left alone
    bool cached;

    /// Lists of this stage in a slab.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t slab_lists() const {
        return slab_blocks * (params.method.stages[0].query_block / params.method.stages[stage].query_block);
    }
    /// Scores of list `index` of the slab by unit `unit` of request `b`. A decode step has one list that is not empty.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t score_row(std::int32_t b, std::int32_t unit,
                                                                      std::int32_t index) const {
        std::int64_t const row = static_cast<std::int64_t>(b) * units.units + unit;
        return cached ? row : row * slab_lists() + index;
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
    std::int32_t pieces;  ///< chunks that a parent is cut into; 0 in the first stage
    std::int32_t const* parents;
    bool due;  ///< false: nothing to do here, and nothing may be written

    /// Left end of a chunk that the stage before kept. Lists in a cache that was never reset may hold anything.
    [[nodiscard]] WINNOW_DEVICE std::int32_t parent(std::int32_t i) const {
        return smaller(larger(parents[i], 0), eligible);
    }
    /// Left end of candidate `c`.
    [[nodiscard]] WINNOW_DEVICE std::int32_t left(std::int32_t c, std::int32_t sinks, std::int32_t chunk) const {
        return pieces == 0 ? sinks + c * chunk : parent(c / pieces) + c % pieces * chunk;
    }
};

/// Place of list `index` (finest query blocks of the slab) of list head `head` and request `b`.
template <class T>
WINNOW_DEVICE prune_place place_of(prune_arguments<T> const& a, std::int32_t index, std::int32_t head, std::int32_t b) {
    prune_params<T> const& p = a.params;
    prune_method const& m = p.method;
    prune_stage const& stage = m.stages[a.stage];
    std::int32_t const coarse = m.stages[0].query_block, ratio = coarse / stage.query_block;
    prune_place place{};
    // Read first, so that these loads and those of the lengths are under way together.
    std::int32_t const slot = a.cached ? a.cache.index()(b) : -1;
    std::int32_t const step = a.cached ? a.cache.step[larger(slot, 0)] : 0;
    place.request = request_of(a.shape, p.rows, p.kv, a.page_size.divisor, p.mask, b);
    std::int32_t const first = larger(place.request.first_position, 0);
    std::int32_t const absolute = (first / coarse + a.first_block + index / ratio) * ratio + index % ratio;
    place.block = absolute - first / stage.query_block;
    place.span = span_of(place.request, stage.query_block, place.block);
    place.due = true;
    std::int64_t const list = static_cast<std::int64_t>(b) * a.list_heads + head;
    if (a.cached) {
        place.due = slot >= 0 && place.span.first <= place.span.last &&
                    first_stage_due(step, a.cache.intervals.steps, m.stage_count) <= a.stage;
        if (!place.due) return place;
        place.list_row = place.parent_row = static_cast<std::int64_t>(slot) * a.list_heads + head;
    } else {
        std::int64_t const per_list = static_cast<std::int64_t>(a.slab_blocks) * (coarse / m.last().query_block);
        place.list_row = list * per_list + index;
        if (a.stage > 0) {
            std::int32_t const before = coarse / m.stages[a.stage - 1].query_block;
            place.parent_row = list * per_list + index / ratio * before + index % ratio * before / ratio;
        }
    }
    if (place.span.last < place.span.first) return place;

    place.eligible = eligible_end(looking_position(p.mask.kind, place.span.last, place.request.keys),
                                  place.request.keys, m.window, p.lookahead);
    if (a.stage == 0) {
        place.candidates = first_candidates(place.eligible, m.window.sinks, stage.chunk);
        return place;
    }
    stage_region const region = stage_region_of(m, 1, a.list_rows, a.stage - 1);
    place.parents = a.lists + region.lists + place.parent_row * m.stages[a.stage - 1].keep;
    place.pieces = m.stages[a.stage - 1].chunk / stage.chunk;
    // Parents ascend, so pieces at or beyond the eligible end are the last ones.
    std::int32_t count = smaller(a.lists[region.counts + place.parent_row], m.stages[a.stage - 1].keep);
    while (count > 0 && place.parent(count - 1) >= place.eligible) --count;
    if (count > 0)
        place.candidates =
            smaller(a.max_candidates,
                    (count - 1) * place.pieces +
                        smaller(place.pieces, ceil_div(place.eligible - place.parent(count - 1), stage.chunk)));
    return place;
}

}  // namespace winnow
