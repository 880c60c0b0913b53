// Pruning over keys that are cached without rotary embedding: query rows turned in shared memory, keys in registers.
//
//   relative       left probe at distance reach + 1, right probe at reach: rows are turned twice, keys are not
//   chunk_indexed  row at min(position, chunks + reach), key at the number of its chunk: both are turned
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/tile/probe_keys.cuh"
#include "winnow/tile/rope.cuh"

namespace winnow {

/// What turning needs of a launch and a list. Empty where nothing turns.
template <product_unit Unit>
struct prune_turning {};
template <>
struct prune_turning<product_unit::turned> {
    unsigned char* rows;         ///< the block's
    std::uint64_t const* turns;  ///< per position, [turn k of a column, column]
    std::int32_t copy_rows;      ///< between the rows of left and of right probes
    std::int32_t chunks;         ///< of the stage's list
    std::int32_t first_chunk;    ///< number of a warp's first chunk in it
    std::int32_t first_walker;   ///< whose rows are held; in slices there is room for one alone
};

/// Frequencies of the block's rotation. Needs a barrier behind.
template <class T, int HeadDim>
WINNOW_DEVICE void fill_turns(prune_arguments<T> const& a, std::uint64_t* turns) {
    rotary_arguments const& r = a.rotation;
    vector_columns const columns{HeadDim / vector_channels, r.rotary_columns.divisor};
    std::int32_t const pairs = r.pairs.divisor;
    for (std::int32_t i = threadIdx.x; i < pairs; i += blockDim.x) {
        std::int32_t const k = r.rotary_columns.quotient(i), column = i - k * columns.rotary;
        std::int32_t const pair = rotary_pair(r.rotation.pairing, columns, column, k);
        turns[i] = turns_of(frequency_of(r.rotation, r.log2_theta, pairs, pair));
    }
}

/// As hold_query_rows, and turns them: with scan_style::relative into two copies.
template <class T, int HeadDim>
__device__ __noinline__ void hold_turned_rows(prune_score_storage<HeadDim>& shared, prune_arguments<T> const& a,
                                              prune_turning<product_unit::turned> const& turning,
                                              prune_row_set const& set, std::int32_t first_walker,
                                              std::int32_t first_row, std::int32_t count) {
    hold_query_rows<T, HeadDim, product_unit::warp>(shared, turning.rows, set, first_walker, first_row, count);
    __syncthreads();
    rotary_arguments const& r = a.rotation;
    vector_columns const columns{HeadDim / vector_channels, r.rotary_columns.divisor};
    bool const relative = a.params.scan == scan_style::relative;
    std::int32_t const reach = scan_reach(a.params.method);
    auto const at = [&](std::int32_t row, std::int32_t chunk) -> uint4& {
        return *reinterpret_cast<uint4*>(turning.rows + query_chunk_offset<HeadDim>(row, chunk));
    };
#pragma unroll 1
    for (std::int32_t i = threadIdx.x; i < count * columns.count(); i += blockDim.x) {
        std::int32_t const row = i / columns.count(), column = i - row * columns.count();
        std::int32_t const low = columns.first(column), high = columns.second(column);
        bool const both = columns.has_second(column), turns = column < columns.rotary;
        uint4 const x = at(row, low), y = both ? at(row, high) : make_uint4(0, 0, 0, 0);
        std::int32_t const seen = scan_row_position(shared.looking[row], turning.chunks, reach);
#pragma unroll 1
        for (std::int32_t copy = 0; copy < (relative ? 2 : 1); ++copy) {
            uint4 u = x, v = y;
            std::int32_t const position = relative ? reach + 1 - copy : seen;
            auto const rotation = [&](int k) {
                return rotation_by(half_turns(turning.turns[k * columns.rotary + column], position));
            };
            if (turns && r.rotation.pairing == rope_pairing::halves)
                rotate_halves<T>(u, v, rotation);
            else if (turns)
                rotate_adjacent<T>(u, v, rotation);
            at(row + copy * turning.copy_rows, low) = u;
            if (both) at(row + copy * turning.copy_rows, high) = v;
        }
    }
}

/// Turns a key, this lane's chunks of it, to `position`: all channels, in halves, which one lane holds both.
template <class T, int HeadDim>
WINNOW_DEVICE void turn_key(uint4 (&part)[HeadDim / 32], std::uint64_t const* turns, std::int32_t position) {
    constexpr int columns = HeadDim / 16;
    WINNOW_UNROLL
    for (int j = 0; j < HeadDim / 64; ++j) {
        std::uint64_t const* const column = turns + 4 * j + threadIdx.x % 4;
        rotate_halves<T>(part[j], part[j + HeadDim / 64],
                         [&](int k) { return rotation_by(half_turns(column[k * columns], position)); });
    }
}

}  // namespace winnow
