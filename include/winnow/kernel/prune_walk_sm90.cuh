// Scores the chunks of one pruning stage by tree search on Hopper (sm_90a): as kernel/prune_score.cuh, by warpgroups whose
// keys lie in shared memory.
//
// One block: one query block, one unit (a KV group or a query head), a range of chunks. Its warpgroups share the averaged
// query rows and nothing else.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/prune_place.cuh"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/stage/prune_walk_sm90.cuh"

namespace winnow {

/// Bytes in front of the tiles of keys, for a block that holds `rows` rows.
template <int HeadDim>
constexpr std::size_t prune_walk_held_bytes(std::int32_t rows) {
    return prune_walk_rows_offset<HeadDim> + static_cast<std::size_t>(rows) * HeadDim * 2;
}

/// Launch bounds as a plain integer, as in hopper_bounds.
template <int HeadDim>
struct prune_walk_bounds {
    static constexpr int threads = prune_walk_tile_of(HeadDim).threads();
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Finds out what the block has to do; no chunks: nothing. One thread calls it, and its block waits.
template <class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void prepare_walk(prune_arguments<T> const& a, prune_walk_storage<HeadDim>& shared) {
    prune_method const& m = a.params.method;
    prune_stage const& stage = m.stages[a.stage];
    // Lists first: blocks that run together look at the same chunks of one KV head, which L2 then holds.
    std::int32_t const lists = a.lists_of_slab, tile = blockIdx.x / lists, index = blockIdx.x - tile * lists,
                       unit = blockIdx.y, b = blockIdx.z;
    std::int32_t const first_chunk = tile * a.chunks_per_block;
    std::int32_t const first_head = unit * a.units.walkers * a.units.heads;
    prune_place place = place_of(a, index, list_head_of(first_head, a.shape.heads, a.list_heads), b);
    find_candidates(a, place);
    prune_walk_work work{};
    // A stage that keeps all its candidates needs no scores.
    if (place.due && place.candidates > stage.keep && first_chunk < place.candidates) {
        std::int32_t const first_group = place.span.first / stage.query_stride;
        prune_row_set const set{first_group,     place.span.last / stage.query_stride - first_group + 1,
                                first_head,      a.units.heads,
                                a.units.walkers, rows_of_product(Unit)};
        shared.place = place, shared.set = set;
        shared.source = query_source_of(a, place);
        work.request = b, work.kv_head = first_head / a.shape.group();
        work.first_chunk = first_chunk;
        work.chunks = smaller(a.chunks_per_block, place.candidates - first_chunk);
        work.rows = set.padded();
        work.tiles = ceil_div(work.chunks, prune_walk_tile::chunks);
        work.hold(set.walkers_held(prune_walk_rows_held(HeadDim)), prune_walk_tile_of(HeadDim).tiles);
        work.slices = set.slices(prune_walk_rows_held(HeadDim));
        work.all_visible =
            place.eligible <= looking_position(a.params.mask.kind, place.span.first, place.request.keys) + 1;
        // Only a list's last chunk can be cut short.
        bool const whole_chunks =
            first_chunk + work.chunks < place.candidates ||
            place.left(place.candidates - 1, m.window.sinks, stage.chunk) + stage.chunk <= place.eligible;
        work.rounds = prune_rounds::of(stage.chunk, whole_chunks);
        work.scores = a.scores + a.score_row(b, unit, index) * a.score_width + first_chunk;
    }
    shared.work = work;
}

#endif

/// Launched with any number of warpgroups up to prune_walk_tile::warpgroups.
template <class T, int HeadDim, product_unit Unit>
__global__ void __launch_bounds__(prune_walk_bounds<HeadDim>::threads, 1)
    prune_walk_sm90(prune_arguments<T> const __grid_constant__ a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<prune_walk_storage<HeadDim>*>(raw);
    unsigned char* const queries = raw + prune_walk_rows_offset<HeadDim>;
    std::int32_t const t = threadIdx.x, threads = blockDim.x, b = blockIdx.z;

    ptx::let_later_grid_start();
    if (leaves_early(a, b)) return;
    ptx::wait_for_earlier_grids();
    if (t == 0) prepare_walk<T, HeadDim, Unit>(a, shared);
    __syncthreads();
    prune_walk_work& work = shared.work;
    if (work.chunks == 0) return;
    std::int32_t const walkers = shared.set.walkers, walkers_held = work.walkers;
    if (walkers > 1)
        for (std::int32_t c = t; c < work.chunks; c += threads) shared.best[c] = 0;  // scores come behind a barrier
#pragma unroll 1
    for (std::int32_t first_walker = 0; first_walker < walkers; first_walker += walkers_held) {
        if (first_walker > 0) {
            __syncthreads();
            if (t == 0) work.hold(smaller(walkers_held, walkers - first_walker), prune_walk_tile_of(HeadDim).tiles);
            __syncthreads();
        }
        // Keys are on their way while rows are brought in.
        prune_walk<T, HeadDim, Unit> walk{a, shared, queries};
        walk.begin();
        if (work.slices == 1) {
            hold_query_rows<T, HeadDim, Unit>(shared, queries, shared.set, first_walker, 0, work.rows_held);
            __syncthreads();
        }
        walk.run();
    }
    if (walkers == 1) return;
    __syncthreads();
    for (std::int32_t c = t; c < work.chunks; c += threads) work.scores[c] = shared.best[c];
#endif
}

}  // namespace winnow
