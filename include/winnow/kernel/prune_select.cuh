// Keeps the best chunks of each list: the maximum over its rows of scores, the best of them, by position.
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
#include "winnow/stage/select_list.cuh"
#include "winnow/tile/top_k.cuh"

namespace winnow {

/// Shared memory of a block that selects among at most prune_select_cached candidates.
struct prune_select_storage {
    prune_place place;
    top_k_storage<prune_select_threads> top_k;
    alignas(16) std::uint32_t score[prune_select_cached];
};

/// The same for lists of up to `candidates`: scores beyond the cache stay where they are.
constexpr std::size_t prune_select_bytes(std::int32_t candidates) {
    std::int32_t const cached = candidates <= prune_select_cached ? round_up(candidates, 4) : 0;
    return sizeof(prune_select_storage) - (prune_select_cached - cached) * sizeof(std::uint32_t);
}

template <class T>
__global__ void __launch_bounds__(prune_select_threads, prune_select_blocks)
    prune_select(prune_arguments<T> const __grid_constant__ a) {
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<prune_select_storage*>(raw);
    prune_params<T> const& p = a.params;
    prune_method const& m = p.method;
    prune_stage const& stage = m.stages[a.stage];
    std::int32_t const index = blockIdx.x, head = blockIdx.y, b = blockIdx.z;
    ptx::let_later_grid_start();
    if (leaves_early(a, b)) return;
    if (threadIdx.x == 0) shared.place = place_of(a, index, head, b);
    clear_top_k(shared.top_k, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
    ptx::wait_for_earlier_grids();
    if (threadIdx.x == 0) find_candidates(a, shared.place);
    __syncthreads();
    prune_place const& place = shared.place;
    if (!place.due) return;

    auto writer = writer_of<prune_place const&>(a, place, 1);
    if (a.stage == m.stage_count - 1 && !a.cached) {
        if (place.block < 0 || place.block >= query_blocks_of(a.shape.max_queries, stage.query_block)) return;
        writer.list = p.selection.blocks.data + p.selection.blocks.offset(b, head, place.block);
        writer.count = p.selection.counts.data + p.selection.counts.offset(b, head, place.block);
    }
    if (place.candidates <= stage.keep) {
        writer.put_all();
        return;
    }
    constexpr int runs_at_a_time = 1, rows_at_a_time = 2;  // registers for 48 warps
    unit_range const units = units_of_list(head, a.list_heads, a.units.units);
    std::int64_t const first = a.score_row(b, units.first, index), second = a.score_row(b, units.first + 1, index);
    unit_scores const scores{a.scores + first * a.score_width, (second - first) * a.score_width, units.count};
    auto const threads = static_cast<int>(blockDim.x);
    if (a.max_candidates <= prune_select_cached)
        select_best<runs_at_a_time, rows_at_a_time>(shared.top_k, threads,
                                                    shared_keys{ptx::pinned_address(shared.score)}, scores, writer);
    else  // the list's first row takes the best of all rows
        select_best<runs_at_a_time, rows_at_a_time>(shared.top_k, threads, global_keys{scores.first}, scores, writer);
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
