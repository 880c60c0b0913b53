// Turns a tile's queries and each step's keys by streaming positions, in shared memory, after they were copied there.
//
//   turn(position) = turn(first key of the granule) * turn(key - first): one sincospi per granule and pair of channels.
//
// Keys before the window stand at their ranks, keys of the window at their positions. A row stands elsewhere for the one
// than for the other, so its queries are loaded again when the walk reaches the window.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/core/streaming.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/policy/attend_policy.hpp"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/attend_work.cuh"
#include "winnow/stage/key_walk.cuh"
#include "winnow/tile/rope.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// Where a tile's queries have been turned to.
enum class query_frame : std::int32_t { none, before_window, window };

/// What turning takes in shared memory. Pairs are numbered [turn k of a column, column], see rotary_pair.
template <int HeadDim, attend_rows Rows>
struct rotation_storage {
    static constexpr attend_tile tile = attend_tile_of({HeadDim, Rows});
    static constexpr int granules = tile.keys / granule_keys, pairs = HeadDim / 2;
    std::uint64_t turns[pairs];              ///< per position
    float2 within[granule_keys - 1][pairs];  ///< of 1, 2, .. positions
    float2 start[granules][pairs];           ///< of the first key of each granule
    std::int32_t before[tile.rows];          ///< sinks and listed keys that a row sees
    list_numbers numbers;
    query_frame frame;
    static_assert(granules * granule_keys == tile.keys);
};

/// Makes the window begin with a step of `step_keys` keys, behind granules that nobody sees, so that the keys of a step
/// are all before the window or all in it.
WINNOW_HOST_DEVICE constexpr void align_window(granule_sequence& g, std::int32_t step_keys) {
    std::int32_t const step = step_keys / granule_keys, before = g.sinks + g.listed;
    std::int32_t const gap = round_up(before, step) - before;
    g.window_origin -= gap * granule_keys;
    g.window += g.window > 0 ? gap : 0;
}

/// Position at which the first key of granule `index` of the walk is turned.
WINNOW_HOST_DEVICE constexpr std::int32_t turning_position(key_walk const& walk, list_numbers numbers,
                                                           std::int32_t sinks, std::int32_t index) {
    granule_sequence const& g = walk.sequence;
    if (index < g.sinks) return index * granule_keys;
    std::int32_t const listed = index - g.sinks;
    if (listed < g.listed)
        return listed_rank(numbers, granule_keys << walk.block_shift, sinks, 0, listed * granule_keys);
    return g.window_origin + (listed - g.listed) * granule_keys;
}

/// Two turns one after the other.
WINNOW_DEVICE float2 combined(float2 a, float2 b) {
    return make_float2(fmaf(a.x, b.x, -(a.y * b.y)), fmaf(a.x, b.y, a.y * b.x));
}

/// Columns of a head whose vectors turn.
template <int HeadDim>
WINNOW_DEVICE vector_columns turning_columns(rotary_arguments const& r) {
    return {HeadDim / vector_channels, r.rotary_columns.divisor};
}

/// Turns the pair of vectors of `column` of row `row` of a swizzled tile; `rotation(k)` is turn k.
template <class T, int HeadDim, class Rotation>
WINNOW_DEVICE void turn_in_tile(T* tile, vector_columns const& columns, rope_pairing pairing, std::int32_t row,
                                std::int32_t column, Rotation rotation) {
    auto* const bytes = reinterpret_cast<unsigned char*>(tile);
    auto& first = *reinterpret_cast<uint4*>(bytes + swizzled<HeadDim>(row, columns.first(column)));
    auto& second = *reinterpret_cast<uint4*>(bytes + swizzled<HeadDim>(row, columns.second(column)));
    uint4 x = first, y = second;
    if (pairing == rope_pairing::halves)
        rotate_halves<T>(x, y, rotation);
    else
        rotate_adjacent<T>(x, y, rotation);
    first = x, second = y;
}

/// What does not change over a tile: frequencies, the turns inside a granule, what each row sees before its window. Needs
/// a barrier behind; brings one of its own.
template <class T, int HeadDim, attend_rows Rows>
__device__ __noinline__ void begin_rotation(rotation_storage<HeadDim, Rows>& shared, attend_arguments<T> const& a,
                                            attend_work const& w, key_walk const& walk) {
    constexpr attend_tile tile = attend_tile_of({HeadDim, Rows});
    rotary_arguments const& r = a.rotation;
    vector_columns const columns = turning_columns<HeadDim>(r);
    std::int32_t const thread = static_cast<std::int32_t>(threadIdx.x), pairs = r.pairs.divisor;
    attention_window const window = a.params.window;
    std::int32_t const block_size = granule_keys << walk.block_shift;
    list_numbers const numbers = list_numbers_of(walk.list, walk.list_count, block_size, window.sinks);
    if (thread == 0) shared.numbers = numbers, shared.frame = query_frame::none;
    for (std::int32_t row = thread; row < tile.rows; row += tile.threads()) {
        visible_ranges const seen = ranges_of(looking_of(a, w, row), w.request.keys, window);
        shared.before[row] =
            keys_before_window(numbers, walk.list, walk.list_count, block_size, window.sinks, seen.list_end);
    }
    for (std::int32_t i = thread; i < pairs; i += tile.threads()) {
        std::int32_t const k = r.rotary_columns.quotient(i), column = i - k * columns.rotary;
        std::int32_t const pair = rotary_pair(r.rotation.pairing, columns, column, k);
        shared.turns[i] = turns_of(frequency_of(r.rotation, r.log2_theta, pairs, pair));
    }
    __syncthreads();
    for (std::int32_t i = thread; i < pairs * (granule_keys - 1); i += tile.threads()) {
        std::int32_t const inside = r.pairs.quotient(i), pair = i - inside * pairs;
        shared.within[inside][pair] = rotation_by(half_turns(shared.turns[pair], inside + 1));
    }
}

/// Turns the tile's queries to where their rows stand for keys before the window, or for those in it.
template <class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void rotate_queries(T* queries, rotation_storage<HeadDim, Rows> const& shared,
                                  attend_arguments<T> const& a, attend_work const& w, query_frame frame) {
    constexpr attend_tile tile = attend_tile_of({HeadDim, Rows});
    rotary_arguments const& r = a.rotation;
    vector_columns const columns = turning_columns<HeadDim>(r);
#pragma unroll 1
    for (std::int32_t i = threadIdx.x; i < tile.rows * columns.rotary; i += tile.threads()) {
        std::int32_t const row = r.rotary_columns.quotient(i), column = i - row * columns.rotary;
        std::int32_t const position = frame == query_frame::window
                                          ? larger(looking_of(a, w, row), 0)
                                          : streaming_row_position(a.params.window.recent, shared.before[row]);
        turn_in_tile<T, HeadDim>(queries, columns, r.rotation.pairing, row, column, [&](int k) {
            return rotation_by(half_turns(shared.turns[k * columns.rotary + column], position));
        });
    }
}

/// Turns the keys of step `step`. Needs a barrier before and behind; brings one of its own.
template <class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void rotate_keys(T* keys, rotation_storage<HeadDim, Rows>& shared, attend_arguments<T> const& a,
                               key_walk const& walk, std::int32_t step) {
    using storage = rotation_storage<HeadDim, Rows>;
    constexpr attend_tile tile = attend_tile_of({HeadDim, Rows});
    rotary_arguments const& r = a.rotation;
    vector_columns const columns = turning_columns<HeadDim>(r);
    std::int32_t const pairs = r.pairs.divisor;
#pragma unroll 1
    for (std::int32_t i = threadIdx.x; i < storage::granules * pairs; i += tile.threads()) {
        std::int32_t const granule = r.pairs.quotient(i), pair = i - granule * pairs;
        std::int32_t const position =
            turning_position(walk, shared.numbers, a.params.window.sinks, step * storage::granules + granule);
        shared.start[granule][pair] = rotation_by(half_turns(shared.turns[pair], position));
    }
    __syncthreads();
#pragma unroll 1
    for (std::int32_t i = threadIdx.x; i < tile.keys * columns.rotary; i += tile.threads()) {
        std::int32_t const row = r.rotary_columns.quotient(i), column = i - row * columns.rotary;
        std::int32_t const inside = row % granule_keys;
        float2 const* const start = shared.start[row / granule_keys] + column;
        float2 const* const within = shared.within[larger(inside - 1, 0)] + column;
        turn_in_tile<T, HeadDim>(keys, columns, r.rotation.pairing, row, column, [&](int k) {
            float2 const base = start[k * columns.rotary];
            return inside == 0 ? base : combined(base, within[k * columns.rotary]);
        });
    }
}

}  // namespace winnow
