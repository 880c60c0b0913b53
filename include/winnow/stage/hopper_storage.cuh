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

/// Kernel arguments: those of every attention kernel, and the maps of keys and values.
template <class T>
struct hopper_arguments {
    key_maps keys;
    key_maps values;
    attend_arguments<T> attend;
    std::int32_t* next_tile;     ///< 0 at launch; blocks draw their tiles from it
    std::int32_t tiles;          ///< of all requests and splits
    fast_divider request_tiles;  ///< tiles of one request's split
    fast_divider splits;
};

/// A tile to compute. Tiles are handed round in a ring: one warp draws them, all others read them.
struct hopper_task {
    attend_work work;
    key_walk walk;
    step_range steps;
    bool last;  ///< there is no tile, and none will follow
};

/// What the masking warps need to know of a step.
template <int Keys>
struct hopper_step {
    std::int32_t granule[Keys / granule_keys];  ///< first key | part, as in key_step
    std::int32_t masked;
};

/// Shared memory of one block. `full` barriers end a phase when a slot holds its item, `empty` ones when it is free.
template <class T, int HeadDim, attend_rows Rows>
struct hopper_storage {
    static constexpr hopper_tile tile = hopper_tile_of({HeadDim, Rows});
    static constexpr int tasks = 4;  ///< a tile is drawn while the one before is worked on: never waited for
    static constexpr int steps = 2 * tile.stages;  ///< masking may still read a step whose keys are gone

    alignas(1024) T query[tile.warpgroups()][64 * HeadDim];  ///< later: a warpgroup's output on its way to the other
    alignas(1024) T key[tile.stages][tile.keys * HeadDim];
    alignas(1024) T value[tile.stages][tile.keys * HeadDim];
    hopper_task task[tasks];
    hopper_step<tile.keys> step[steps];
    row_limits limits[tile.warpgroups()][64];  ///< the second warpgroup's later: see hopper_rows::exchange
    std::uint64_t task_full[tasks], task_empty[tasks];
    std::uint64_t key_full[tile.stages], key_empty[tile.stages];
    std::uint64_t value_full[tile.stages], value_empty[tile.stages];

    using ring = ring_position<tile.stages>;
    using task_ring = ring_position<tasks>;
    using step_ring = ring_position<steps>;
};

/// Named barriers; 0 is __syncthreads.
enum class hopper_barrier : int { warpgroup = 1, exchange = 3 };

}  // namespace winnow
