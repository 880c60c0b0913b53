// Keeps the best chunks of each list: radix select on ordered keys, then compaction in ascending order of position.
//
// Four passes over the scores find the key of the last chunk kept, eight bits at a time; ties go to the smaller index.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/stage/prune_place.cuh"
#include "winnow/tile/top_k.cuh"

namespace winnow {

template <class T>
__global__ void __launch_bounds__(prune_select_threads) prune_select(prune_arguments<T> const __grid_constant__ a) {
    __shared__ prune_place shared_place;
    __shared__ top_k_storage<prune_select_threads> storage;
    prune_params<T> const& p = a.params;
    prune_method const& m = p.method;
    prune_stage const& stage = m.stages[a.stage];
    std::int32_t const index = blockIdx.x, head = blockIdx.y, b = blockIdx.z;
    if (threadIdx.x == 0) shared_place = place_of(a, index, head, b);
    __syncthreads();
    prune_place const& place = shared_place;
    if (!place.due) return;

    bool const last = a.stage == m.stage_count - 1;
    std::int32_t* list;
    std::int32_t* count;
    if (last && !a.cached) {
        if (place.block < 0 || place.block >= query_blocks_of(a.shape.max_queries, stage.query_block)) return;
        list = p.selection.blocks.data + p.selection.blocks.offset(b, head, place.block);
        count = p.selection.counts.data + p.selection.counts.offset(b, head, place.block);
    } else {
        stage_region const region = stage_region_of(m, 1, a.list_rows, a.stage);
        list = a.lists + region.lists + place.list_row * stage.keep;
        count = a.lists + region.counts + place.list_row;
    }
    // Intermediate stages hand on left ends; the last one gives block ids.
    auto const entry = [&](std::int32_t c) {
        std::int32_t const left = place.left(c, m.window.sinks, stage.chunk);
        return last ? left / stage.chunk : left;
    };
    std::int32_t const kept = smaller(place.candidates, stage.keep);
    if (threadIdx.x == 0) *count = kept;
    if (place.candidates <= stage.keep) {
        for (std::int32_t c = threadIdx.x; c < kept; c += prune_select_threads) list[c] = entry(c);
        return;
    }
    std::uint32_t const* const scores = a.scores + place.score_row * a.max_candidates;
    select_top_k<prune_select_threads>(
        storage, place.candidates, kept, [&](std::int32_t c) { return scores[c]; },
        [&](std::int32_t at, std::int32_t c) { list[at] = entry(c); });
}

/// Arguments of advance_steps.
struct step_arguments {
    stage_cache cache;
    kv_index kv;
    batch_shape shape;
    std::int32_t page_size;
};

/// Counts one decode step in every slot that was used. One thread per request.
template <int Threads>
__global__ void __launch_bounds__(Threads) advance_steps(step_arguments const __grid_constant__ a) {
    std::int32_t const b = blockIdx.x * Threads + threadIdx.x;
    if (b >= a.shape.batch) return;
    std::int32_t const slot = a.cache.index()(b);
    if (slot >= 0 && request_of(a.shape, {}, a.kv, a.page_size, causal{}, b).keys > 0) ++a.cache.step[slot];
}

}  // namespace winnow
