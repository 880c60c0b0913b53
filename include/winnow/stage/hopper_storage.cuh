// What the warps of a Hopper attention block share: arguments, tasks, stages and barriers.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/attend_tile.hpp"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/attend_work.cuh"
#include "winnow/stage/key_boxes.cuh"
#include "winnow/stage/key_walk.cuh"
#include "winnow/tile/panel.hpp"
#include "winnow/tile/pipeline.hpp"

namespace winnow {

/// Kernel arguments: those of every attention kernel, the tensor maps, and how tiles are numbered.
template <class T>
struct hopper_arguments {
    key_maps keys;
    key_maps values;
    CUtensorMap queries;  ///< boxes of 64 channels of a warpgroup's 64 rows, if `boxes_in`
    CUtensorMap output;   ///< boxes of 64 channels of a warp's 16 rows, if `boxes_out`
    attend_arguments<T> attend;
    std::int32_t* next_tile;     ///< 0 at launch; blocks draw their tiles from it
    std::int32_t tiles;          ///< of all requests and splits
    fast_divider request_tiles;  ///< tiles of one request's split
    fast_divider splits;
    bool boxes_in;   ///< queries come by TMA
    bool boxes_out;  ///< finished rows leave by TMA, where all 16 exist
};

/// Rows of a box of queries, and of one of finished rows.
inline constexpr std::int32_t hopper_query_rows = 64, hopper_output_rows = 16;

/// How a loader lays out a tile.
WINNOW_HOST_DEVICE constexpr atom_order order_of(key_loader loader) {
    return loader == key_loader::atoms ? atom_order::rows : atom_order::panels;
}

/// A tile to compute. Tiles are handed round in a ring: one warp draws them, all others read them.
struct hopper_task {
    attend_work work;
    key_walk walk;
    step_range steps;
    bool last;  ///< there is no tile, and none will follow
};

/// How a step is masked.
enum class step_mask : std::int32_t {
    none,  ///< every row sees every key
    run,   ///< one part's neighbours: a row sees those between two limits
    mixed  ///< granule by granule
};

/// What the masking warps need to know of a step.
template <int Keys>
struct hopper_step {
    std::int32_t granule[Keys / granule_keys];  ///< first key | part, as in key_step
    step_mask mask;
};

/// Where rows wait on their way out; nothing where the queries' place serves (head_dim 256, whose tiles fill the memory).
template <class T, int Elements>
struct hopper_output {
    alignas(1024) T output[Elements];
};
template <class T>
struct hopper_output<T, 0> {};

/// Elements of it: every warpgroup's rows.
WINNOW_HOST_DEVICE constexpr int output_elements(attend_problem p) {
    hopper_tile const tile = hopper_tile_of(p);
    return tile.query == query_place::results ? 0 : tile.warpgroups() * 64 * p.head_dim;
}

/// Shared memory of one block. `full` barriers end a phase when a slot holds its item, `empty` ones when it is free.
template <class T, int HeadDim, attend_rows Rows>
struct hopper_storage : hopper_output<T, output_elements({HeadDim, Rows})> {
    static constexpr hopper_tile tile = hopper_tile_of({HeadDim, Rows});
    static constexpr int tasks = 3;  ///< a tile is drawn while the one before is worked on: never waited for
    /// Masking may still read a step whose keys are gone, in each warpgroup that takes steps in turn. So a note is written
    /// over once the keys `key_warpgroups` steps later are handed back: by the warps that have read it, or, in a later
    /// task, by others that have met those in hopper_rows::exchange. The number of stages does not matter.
    static constexpr int steps = tile.key_stages + tile.key_warpgroups;

    alignas(1024) T query[tile.query_stages()][tile.warpgroups()][64 * HeadDim];
    alignas(1024) T key[tile.key_stages][tile.keys * HeadDim];
    alignas(1024) T value[tile.value_stages][tile.keys * HeadDim];
    hopper_task task[tasks];
    hopper_step<tile.keys> step[steps];
    row_limits limits[tile.warpgroups()][64];  ///< the second warpgroup's later: see hopper_rows::exchange
    std::uint64_t task_full[tasks], task_empty[tasks];
    std::uint64_t query_full[tile.query_stages()], query_empty[tile.query_stages()];  ///< where queries come by TMA
    std::uint64_t key_full[tile.key_stages], key_empty[tile.key_stages];
    std::uint64_t value_full[tile.value_stages], value_empty[tile.value_stages];

    /// Room for the fp32 results of 64 rows, or for all warpgroups' finished rows; queries are not touched meanwhile.
    WINNOW_DEVICE T* results() {
        if constexpr (tile.query == query_place::results) {
            return query[0][0];
        } else {
            return this->output;
        }
    }

    using query_ring = ring_position<tile.query_stages()>;
    using key_ring = ring_position<tile.key_stages>;
    using value_ring = ring_position<tile.value_stages>;
    using task_ring = ring_position<tasks>;
    using step_ring = ring_position<steps>;
};

/// Named barriers; 0 is __syncthreads. `warpgroup` is the first of three.
enum class hopper_barrier : int { warpgroup = 1, exchange = 4 };

}  // namespace winnow
