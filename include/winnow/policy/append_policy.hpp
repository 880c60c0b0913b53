// Tuning of `append`: rows per block, and how the 16-byte vectors of a head are dealt to threads in pairs.
#pragma once

#include <cmath>
#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/rope.hpp"

namespace winnow {

inline constexpr int append_threads = 256;
inline constexpr int append_items = 2;     ///< pairs of vectors that a thread has in flight
inline constexpr int append_rows = 8;      ///< rows of a block at most
inline constexpr int append_pairs = 512;   ///< rotations that a block holds, 8 bytes each: one row of 1024 channels
inline constexpr int append_groups = 512;  ///< groups of rows to make before they grow: blocks for every multiprocessor
inline constexpr int vector_channels = 8;  ///< 16-bit channels in 16 bytes

/// Rows that a block takes: one where rows are few, so that all multiprocessors get some, and never more than it can
/// hold rotations for. With 8 rows of 8 heads of 128 channels a thread has all that it moves in flight.
WINNOW_HOST_DEVICE constexpr std::int32_t append_rows_of(std::int64_t rows, std::int32_t pairs) {
    std::int32_t const most = pairs == 0 ? append_rows : smaller(append_rows, append_pairs / pairs);
    return static_cast<std::int32_t>(smaller<std::int64_t>(larger<std::int64_t>(rows / append_groups, 1), most));
}

/// A head's vectors in columns of two, so that one thread holds both halves of every pair of channels that turn
/// together, and neighbouring threads read neighbouring vectors. Columns below `rotary` are rotated:
///
///     vectors   0 1 2 3 | 4 5 6 7 | 8 9 10         vectors = 11, rotary = 4
///     columns   (0,4) (1,5) (2,6) (3,7) (8,10) (9,-)
struct vector_columns {
    std::int32_t vectors = 0;  ///< of a head
    std::int32_t rotary = 0;   ///< columns that are rotated: rotary_dim / 16

    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t count() const { return rotary + plain(); }
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t first(std::int32_t column) const {
        return column < rotary ? column : column + rotary;
    }
    /// `vectors` or more where the column has one vector only.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t second(std::int32_t column) const {
        return column + rotary + (column < rotary ? 0 : plain());
    }
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool has_second(std::int32_t column) const {
        return second(column) < vectors;
    }

private:
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t plain() const { return ceil_div(vectors - 2 * rotary, 2); }
};

/// Pair of channels that rotation `k` (0 .. 7) of a rotated column turns. Halves: channel k of both vectors. Adjacent:
/// rotations 0 .. 3 turn the four pairs of the first vector, 4 .. 7 those of the second.
WINNOW_HOST_DEVICE constexpr std::int32_t rotary_pair(rope_pairing pairing, vector_columns const& columns,
                                                      std::int32_t column, std::int32_t k) {
    constexpr std::int32_t in_vector = vector_channels / 2;
    if (pairing == rope_pairing::halves) return column * vector_channels + k;
    return k < in_vector ? columns.first(column) * in_vector + k : columns.second(column) * in_vector + k - in_vector;
}

/// A rotation as kernels take it.
struct rotary_arguments {
    rope rotation;
    double log2_theta;
    fast_divider pairs;           ///< rotations of a row; 1 without a rotation
    fast_divider rotary_columns;  ///< columns of a head that they belong to, pairs / 8
};

/// The rotation of heads of `head_dim` channels.
inline rotary_arguments rotary_arguments_of(rope const& rotation, std::int32_t head_dim) {
    std::int32_t const pairs = rotation.pairs(head_dim);
    rotary_arguments a{};
    a.rotation = rotation;
    a.log2_theta = rotation.theta > 0 ? std::log2(static_cast<double>(rotation.theta)) : 0.0;
    if (pairs > 0) a.pairs = fast_divider(pairs), a.rotary_columns = fast_divider(pairs / vector_channels);
    return a;
}

}  // namespace winnow
