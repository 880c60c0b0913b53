// Rotations of a block's rows: a table of sines and cosines that heads share, and pairs of vectors turned by it.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/tile/rope.cuh"

namespace winnow {

/// Two vectors on their way; the second one is unused where a column has only one.
struct vector_pair {
    uint4 first, second;
};

/// Fills `turns` with a position's share of each pair, [k, column]. For thread `thread` of `Threads`; the caller's barrier
/// follows.
template <int Threads>
WINNOW_DEVICE void fill_turns(rotary_arguments const& a, vector_columns const& columns, std::int32_t thread,
                              std::uint64_t* turns) {
    std::int32_t const pairs = a.pairs.divisor, rotary = columns.rotary;
    // An exp2 in double per pair and block, unless there is a table.
    for (std::int32_t i = thread; i < pairs; i += Threads) {
        std::int32_t const k = a.rotary_columns.quotient(i), column = i - k * rotary;
        std::int32_t const pair = rotary_pair(a.rotation.pairing, columns, column, k);
        turns[i] = turns_of(frequency_of(a.rotation, a.log2_theta, pairs, pair));
    }
}

/// Fills rotation[row, k, column] for `rows` rows, so that threads of neighbouring columns read neighbouring words, when
/// `turns` and `position` are in place. The caller's barrier follows.
template <int Threads>
WINNOW_DEVICE void turn_positions(rotary_arguments const& a, std::int32_t rows, std::int32_t const* position,
                                  std::uint64_t const* turns, float2* rotation) {
    std::int32_t const pairs = a.pairs.divisor;
    // A 64-bit product and a sincospi per pair and row.
    for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < rows * pairs; i += Threads) {
        std::int32_t const row = a.pairs.quotient(i);
        rotation[i] = rotation_by(half_turns(turns[i - row * pairs], position[row]));
    }
}

/// Both. `position` must be in place behind the barrier that this brings.
template <int Threads>
WINNOW_DEVICE void fill_rotations(rotary_arguments const& a, vector_columns const& columns, std::int32_t rows,
                                  std::int32_t const* position, std::uint64_t* turns, float2* rotation) {
    fill_turns<Threads>(a, columns, static_cast<std::int32_t>(threadIdx.x), turns);
    __syncthreads();
    turn_positions<Threads>(a, rows, position, turns, rotation);
}

/// Turns a pair of vectors of row `row` if its column is rotated.
template <class T>
WINNOW_DEVICE void rotate_pair(rotary_arguments const& a, std::int32_t columns, float2 const* rotation,
                               std::int32_t row, std::int32_t column, vector_pair& pair) {
    if (column >= columns) return;
    float2 const* const rotations = rotation + row * a.pairs.divisor + column;
    auto const turn = [&](int k) { return rotations[k * columns]; };
    if (a.rotation.pairing == rope_pairing::halves)
        rotate_halves<T>(pair.first, pair.second, turn);
    else
        rotate_adjacent<T>(pair.first, pair.second, turn);
}

/// Moves a column of two vectors of a head, turned where `turns` is true.
template <class T>
WINNOW_DEVICE void move_pair(rotary_arguments const& a, vector_columns const& columns, float2 const* rotation,
                             std::int32_t row, std::int32_t column, T const* from, T* to, bool turns) {
    std::int32_t const low = columns.first(column) * vector_channels;
    std::int32_t const high = columns.second(column) * vector_channels;
    vector_pair pair{*reinterpret_cast<uint4 const*>(from + low), *reinterpret_cast<uint4 const*>(from + high)};
    if (turns) rotate_pair<T>(a, columns.rotary, rotation, row, column, pair);
    *reinterpret_cast<uint4*>(to + low) = pair.first;
    *reinterpret_cast<uint4*>(to + high) = pair.second;
}

}  // namespace winnow
