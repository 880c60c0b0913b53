// Keeps the best chunks of each list: the maximum over its rows of scores, radix select, compaction by position.
//
// Scores are read from memory once and kept in shared memory; ties go to the smaller index.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/prune_place.cuh"
#include "winnow/tile/top_k.cuh"

namespace winnow {

/// Scores of a list of at most prune_select_cached candidates, as selection reads them.
struct prune_select_storage {
    prune_place place;
    top_k_storage<prune_select_threads> top_k;
    alignas(16) std::uint32_t score[prune_select_cached];
};

/// Shared memory for lists of up to `candidates`: scores beyond the cache stay where they are.
constexpr std::size_t prune_select_bytes(std::int32_t candidates) {
    std::int32_t const cached = candidates <= prune_select_cached ? round_up(candidates, 4) : 0;
    return sizeof(prune_select_storage) - (prune_select_cached - cached) * sizeof(std::uint32_t);
}

/// One list's rows of scores: row u of `rows` is the one of unit `first` + u.
struct unit_scores {
    std::uint32_t const* first;
    std::int64_t stride;
    std::int32_t rows;

    [[nodiscard]] WINNOW_DEVICE std::uint32_t at(std::int32_t c) const {
        std::uint32_t most = first[c];
#pragma unroll 1
        for (std::int32_t u = 1; u < rows; ++u) most = larger(most, first[u * stride + c]);
        return most;
    }
    /// Four of them, c a multiple of 4; what stands behind the candidates is not used.
    [[nodiscard]] WINNOW_DEVICE uint4 four_at(std::int32_t c) const {
        uint4 most = *reinterpret_cast<uint4 const*>(first + c);
#pragma unroll 8
        for (std::int32_t u = 1; u < rows; ++u) {
            uint4 const x = *reinterpret_cast<uint4 const*>(first + u * stride + c);
            most = make_uint4(larger(most.x, x.x), larger(most.y, x.y), larger(most.z, x.z), larger(most.w, x.w));
        }
        return most;
    }
};

template <class T>
__global__ void __launch_bounds__(prune_select_threads) prune_select(prune_arguments<T> const __grid_constant__ a) {
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<prune_select_storage*>(raw);
    prune_params<T> const& p = a.params;
    prune_method const& m = p.method;
    prune_stage const& stage = m.stages[a.stage];
    std::int32_t const index = blockIdx.x, head = blockIdx.y, b = blockIdx.z;
    ptx::let_later_grid_start();
    if (leaves_early(a, b)) return;
    ptx::wait_for_earlier_grids();
    if (threadIdx.x == 0) shared.place = place_of(a, index, head, b);
    __syncthreads();
    prune_place const& place = shared.place;
    if (!place.due) return;

    bool const last = a.stage == m.stage_count - 1;
    std::int32_t* list;
    std::int32_t* count;
    if (last && !a.cached) {
        if (place.block < 0 || place.block >= query_blocks_of(a.shape.max_queries, stage.query_block)) return;
        list = p.selection.blocks.data + p.selection.blocks.offset(b, head, place.block);
        count = p.selection.counts.data + p.selection.counts.offset(b, head, place.block);
    } else {
        list = a.lists + a.own.lists + place.list_row * stage.keep;
        count = a.lists + a.own.counts + place.list_row;
    }
    // Intermediate stages hand on left ends; the last one gives block ids.
    auto const entry = [&](std::int32_t c) {
        std::int32_t const left = place.left(c, m.window.sinks, stage.chunk);
        return last ? left >> a.chunk_log2 : left;
    };
    std::int32_t const kept = smaller(place.candidates, stage.keep);
    if (threadIdx.x == 0) *count = kept;
    if (place.candidates <= stage.keep) {
        for (std::int32_t c = threadIdx.x; c < kept; c += prune_select_threads) list[c] = entry(c);
        return;
    }
    unit_range const units = units_of_list(head, a.list_heads, a.units.units);
    std::int64_t const first = a.score_row(b, units.first, index), second = a.score_row(b, units.first + 1, index);
    unit_scores const scores{a.scores + first * a.score_width, (second - first) * a.score_width, units.count};
    // Selection is compiled once: where the scores are in shared memory, they are a list's only row.
    bool const cached = a.max_candidates <= prune_select_cached;
    if (cached) {
#pragma unroll 1
        for (std::int32_t c = threadIdx.x * 4; c < place.candidates; c += prune_select_threads * 4)
            *reinterpret_cast<uint4*>(shared.score + c) = scores.four_at(c);
        __syncthreads();
    }
    unit_scores const seen = cached ? unit_scores{shared.score, 0, 1} : scores;
    select_top_k(
        shared.top_k, place.candidates, kept, [&](std::int32_t c) { return seen.at(c); },
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
