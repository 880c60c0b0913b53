// Writes a list of chunks: all candidates of a stage where it keeps them all, otherwise those with the best scores, by
// position.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/atomic.cuh"
#include "winnow/stage/prune_place.cuh"
#include "winnow/tile/top_k.cuh"

namespace winnow {

/// One list's rows of scores: row u of `rows` is the one of unit `first` + u.
struct unit_scores {
    std::uint32_t* first;
    std::int64_t stride;
    std::int32_t rows;

    /// The best of candidates c to c + 3, c a multiple of 4, and of those of the `Runs` - 1 runs that follow; what stands at
    /// or behind `end` is not used. Other blocks of the kernel that reads may have written them, so L1 is passed by.
    template <int AtATime, int Runs>
    WINNOW_DEVICE void fetch(uint4 (&most)[Runs], std::int32_t c, std::int32_t end) const {
        std::int32_t at[Runs];
        WINNOW_UNROLL
        for (int j = 0; j < Runs; ++j) {
            at[j] = smaller(c + j * top_k_run, (end - 1) & ~3);  // all loads are made, so that none waits for a branch
            most[j] = make_uint4(0, 0, 0, 0);                    // below every score
        }
#pragma unroll AtATime
        for (std::int32_t u = 0; u < rows; ++u) {
            WINNOW_UNROLL
            for (int j = 0; j < Runs; ++j) {
                uint4 const x = __ldcg(reinterpret_cast<uint4 const*>(first + u * stride + at[j]));
                most[j] = make_uint4(larger(most[j].x, x.x), larger(most[j].y, x.y), larger(most[j].z, x.z),
                                     larger(most[j].w, x.w));
            }
        }
    }
};

/// Where a list goes, and what is written there. Heads that walk together have `copies` equal lists, one behind the other.
/// `Place`: prune_place, which is in registers then, or a reference to one in shared memory.
template <class Place>
struct list_writer {
    Place place;
    std::int32_t* list;
    std::int32_t* count;
    std::int32_t copies;
    std::int32_t keep;
    std::int32_t sinks;
    std::int32_t chunk;
    std::int32_t entry_log2;  ///< keys that an entry counts: stages hand on left ends, the last one gives block ids

    WINNOW_DEVICE void put(std::int32_t at, std::int32_t candidate) const {
        std::int32_t const entry = place.left(candidate, sinks, chunk) >> entry_log2;
#pragma unroll 1
        for (std::int32_t i = 0; i < copies; ++i) list[i * keep + at] = entry;
    }
    /// All threads of the block call it. Returns how many are kept.
    WINNOW_DEVICE std::int32_t put_count() const {
        std::int32_t const kept = smaller(place.candidates, keep);
        for (std::int32_t i = threadIdx.x; i < copies; i += blockDim.x) count[i] = kept;
        return kept;
    }
    /// All candidates, where no more are there than are kept.
    WINNOW_DEVICE void put_all() const {
        std::int32_t const kept = put_count();
        for (std::int32_t c = threadIdx.x; c < kept; c += blockDim.x) put(c, c);
    }
};

/// Writes the best of more candidates than are kept. All `threads` of the block call it. `room`: for the scores, in whole
/// groups of four. `Runs` runs of `AtATime` rows of scores are under way: many where the block has the multiprocessor to
/// itself.
template <int Runs, int AtATime, int Threads, class Keys, class Place>
WINNOW_DEVICE void select_best(top_k_storage<Threads>& shared, int threads, Keys room, unit_scores const& scores,
                               list_writer<Place> const& writer) {
    std::int32_t const candidates = writer.place.candidates, kept = writer.put_count();
    select_top_k<Runs>(
        shared, threads, room, candidates, kept,
        [&](uint4(&x)[Runs], std::int32_t c, std::int32_t end) { scores.fetch<AtATime>(x, c, end); },
        [&](std::int32_t at, std::int32_t c) { writer.put(at, c); });
}

/// Writer of a list in `a.lists`: the workspace's or the cache's.
template <class Place, class T>
WINNOW_DEVICE list_writer<Place> writer_of(prune_arguments<T> const& a, prune_place const& place, std::int32_t copies) {
    prune_method const& m = a.params.method;
    prune_stage const& stage = m.stages[a.stage];
    return {place,
            a.lists + a.own.lists + place.list_row * stage.keep,
            a.lists + a.own.counts + place.list_row,
            copies,
            stage.keep,
            m.window.sinks,
            stage.chunk,
            a.stage == m.stage_count - 1 ? a.chunk_log2 : 0};
}

/// Counts a scoring block as done, of a list of group `group` of the batch with `candidates`. True for the last one of the
/// list, which sees what all others have written. All threads of the block call it when their scores are written.
/// `meanwhile(thread, threads)`: what the warps but the first do while the count is on its way to L2 and back.
template <class T, class Meanwhile>
WINNOW_DEVICE bool arrives_last(std::int32_t& shared, prune_arguments<T> const& a, std::int64_t group,
                                std::int32_t candidates, Meanwhile meanwhile) {
    __syncthreads();
    if (threadIdx.x == 0) {
        std::int32_t const blocks = a.groups.units * ceil_div(candidates, a.chunks_per_block);
        shared = ptx::count_arrival(a.arrived + group) == blocks - 1;
        if (shared) a.arrived[group] = 0;  // for the next stage
    }
    if (threadIdx.x >= 32) meanwhile(static_cast<int>(threadIdx.x) - 32, static_cast<int>(blockDim.x) - 32);
    __syncthreads();
    return shared != 0;
}

}  // namespace winnow
