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

/// Finds out which rows the block scores with; none: there is nothing to do. Reads nothing that a kernel of pruning writes.
/// One thread calls it, and its block waits.
template <class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void prepare_rows(prune_arguments<T> const& a, prune_walk_storage<HeadDim>& shared) {
    // Lists first: blocks that run together look at the same chunks of one KV head, which L2 then holds.
    std::int32_t const lists = a.lists_of_slab, tile = blockIdx.x / lists, index = blockIdx.x - tile * lists,
                       unit = blockIdx.y, b = blockIdx.z, stride = a.params.method.stages[a.stage].query_stride;
    std::int32_t const first_head = unit * a.units.walkers * a.units.heads;
    prune_place const place = place_of(a, index, list_head_of(first_head, a.shape.heads, a.list_heads), b);
    prune_walk_work work{};
    if (place.due && place.span.first <= place.span.last) {
        std::int32_t const first_group = place.span.first / stride;
        prune_row_set const set{first_group,     place.span.last / stride - first_group + 1,
                                first_head,      a.units.heads,
                                a.units.walkers, rows_of_product(Unit)};
        shared.place = place, shared.set = set;
        shared.source = query_source_of(a, place);
        work.request = b, work.kv_head = first_head / a.shape.group();
        work.first_chunk = tile * a.chunks_per_block;
        work.rows = set.padded();
        work.hold(set.walkers_held(prune_walk_rows_held(HeadDim)));
        work.slices = set.slices(prune_walk_rows_held(HeadDim));
        work.all_visible =
            place.eligible <= looking_position(a.params.mask.kind, place.span.first, place.request.keys) + 1;
        work.scores = a.scores + a.score_row(b, unit, index) * a.score_width + work.first_chunk;
    }
    shared.work = work;
}

/// Finds out which chunks it scores. One thread calls it behind prepare_rows, if there are rows, while others bring these
/// in.
template <class T, int HeadDim>
WINNOW_DEVICE void prepare_chunks(prune_arguments<T> const& a, prune_walk_storage<HeadDim>& shared) {
    prune_method const& m = a.params.method;
    prune_stage const& stage = m.stages[a.stage];
    prune_place place = shared.place;
    find_candidates(a, place);
    prune_walk_work& work = shared.work;
    // A stage that keeps all its candidates needs no scores.
    if (place.candidates <= stage.keep || work.first_chunk >= place.candidates) return;
    shared.place.candidates = place.candidates;
    work.chunks = smaller(a.chunks_per_block, place.candidates - work.first_chunk);
    work.tiles = ceil_div(work.chunks, prune_walk_tile::chunks);
    // Only a list's last chunk can be cut short.
    bool const whole_chunks =
        work.first_chunk + work.chunks < place.candidates ||
        place.left(place.candidates - 1, m.window.sinks, stage.chunk) + stage.chunk <= place.eligible;
    work.rounds = prune_rounds::of(stage.chunk, whole_chunks);
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
    if (t == 0) prepare_rows<T, HeadDim, Unit>(a, shared);
    __syncthreads();
    prune_walk_work& work = shared.work;
    if (work.rows == 0) return ptx::wait_for_earlier_grids();
        // Numbers are read again where they are needed: registers are short while keys are searched.
#pragma unroll 1
    for (std::int32_t first_walker = 0; first_walker < shared.set.walkers; first_walker += work.walkers) {
        // All warps bring rows in, but for one that first finds the chunks.
        std::int32_t const busy = first_walker == 0 ? 32 : 0,
                           held = smaller(work.walkers, shared.set.walkers - first_walker);
        if (first_walker > 0) __syncthreads();
        if (work.slices == 1 && t >= busy)
            hold_walk_rows<T, HeadDim, Unit>(shared, queries, first_walker, 0, held * work.rows, t - busy,
                                             threads - busy);
        ptx::copy_async_commit();
        if (first_walker == 0) ptx::wait_for_earlier_grids();
        if (t == 0) {
            if (first_walker == 0)
                prepare_chunks(a, shared);
            else
                work.hold(held);
        }
        __syncthreads();
        if (work.chunks == 0) return ptx::copy_async_wait<0>();
        if (shared.set.walkers > 1 && first_walker == 0)
            for (std::int32_t c = t; c < work.chunks; c += threads) shared.best[c] = 0;
        // Keys are on their way while rows arrive.
        prune_walk<T, HeadDim, Unit> walk{a, shared, queries};
        walk.begin();
        ptx::copy_async_wait<prune_walk_tile_of(HeadDim).tiles>();
        ptx::async_proxy_fence();
        __syncthreads();
        walk.run();
    }
    if (shared.set.walkers == 1) return;
    __syncthreads();
    for (std::int32_t c = t; c < work.chunks; c += threads) work.scores[c] = shared.best[c];
#endif
}

}  // namespace winnow
