// The two matrix products of attention on fragments: scores = queries keys^T and output += probabilities values.
//
// Tiles lie swizzled in shared memory (tile/swizzle.hpp). Key fragments are loaded once for all row tiles of a warp.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/matrix_move.cuh"
#include "winnow/ptx/mma_sync.cuh"
#include "winnow/ptx/registers.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// score[i][n] = rows 16 i.. of `queries` times keys 8 n.. of `keys`; addresses of the warp's first row and first key.
template <class T, int HeadDim, int RowTiles, int KeyTiles>
WINNOW_DEVICE void score_tile(float (&score)[RowTiles][KeyTiles][4], std::uint32_t queries, std::uint32_t keys) {
    static_assert(KeyTiles % 2 == 0, "ldmatrix brings two key tiles at a time");
    int const lane = threadIdx.x % 32;
    std::uint32_t const query_base = ptx::opaque(queries + swizzled<HeadDim>(lane & 15, lane >> 4));
    std::uint32_t const key_base =
        ptx::opaque(keys + swizzled<HeadDim>((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1));
    WINNOW_UNROLL
    for (int i = 0; i < RowTiles; ++i) WINNOW_UNROLL
    for (int n = 0; n < KeyTiles; ++n) WINNOW_UNROLL
    for (int e = 0; e < 4; ++e) score[i][n][e] = 0.0f;
    WINNOW_UNROLL
    for (int step = 0; step < HeadDim / 16; ++step) {
        std::uint32_t a[RowTiles][4];
        WINNOW_UNROLL
        for (int i = 0; i < RowTiles; ++i)
            ptx::load_matrices(a[i], swizzled_step(query_base, step) + i * 16 * HeadDim * 2);
        WINNOW_UNROLL
        for (int n = 0; n < KeyTiles; n += 2) {
            std::uint32_t b[4];
            ptx::load_matrices(b, swizzled_step(key_base, step) + n * 8 * HeadDim * 2);
            WINNOW_UNROLL
            for (int i = 0; i < RowTiles; ++i) {
                ptx::multiply_add<T>(score[i][n], a[i], b[0], b[1]);
                ptx::multiply_add<T>(score[i][n + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/// Fragments of 16 RowTiles rows from the one at address `rows`: a left operand that stays for many products.
template <int HeadDim, int RowTiles>
WINNOW_DEVICE void load_rows(std::uint32_t (&a)[RowTiles][HeadDim / 16][4], std::uint32_t rows) {
    int const lane = threadIdx.x % 32;
    std::uint32_t const base = rows + swizzled<HeadDim>(lane & 15, lane >> 4);
    WINNOW_UNROLL
    for (int i = 0; i < RowTiles; ++i) WINNOW_UNROLL
    for (int step = 0; step < HeadDim / 16; ++step)
        ptx::load_matrices(a[i][step], swizzled_step(base, step) + i * 16 * HeadDim * 2);
}

/// score[i][n] = rows 16 i.. of load_rows times columns 8 n.. of `columns`, the address of the first.
template <class T, int HeadDim, int RowTiles, int ColumnTiles>
WINNOW_DEVICE void score_rows(float (&score)[RowTiles][ColumnTiles][4],
                              std::uint32_t const (&a)[RowTiles][HeadDim / 16][4], std::uint32_t columns) {
    static_assert(ColumnTiles % 2 == 0, "ldmatrix brings two column tiles at a time");
    int const lane = threadIdx.x % 32;
    std::uint32_t const base =
        ptx::opaque(columns + swizzled<HeadDim>((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1));
    WINNOW_UNROLL
    for (int i = 0; i < RowTiles; ++i) WINNOW_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) WINNOW_UNROLL
    for (int e = 0; e < 4; ++e) score[i][n][e] = 0.0f;
    WINNOW_UNROLL
    for (int step = 0; step < HeadDim / 16; ++step) {
        WINNOW_UNROLL
        for (int n = 0; n < ColumnTiles; n += 2) {
            std::uint32_t b[4];
            ptx::load_matrices(b, swizzled_step(base, step) + n * 8 * HeadDim * 2);
            WINNOW_UNROLL
            for (int i = 0; i < RowTiles; ++i) {
                ptx::multiply_add<T>(score[i][n], a[i][step], b[0], b[1]);
                ptx::multiply_add<T>(score[i][n + 1], a[i][step], b[2], b[3]);
            }
        }
    }
}

/// Probabilities rounded to T, as the left operand of accumulate_tile: an accumulator fragment is an operand fragment.
template <class T, int KeyTiles>
WINNOW_DEVICE void round_probabilities(std::uint32_t (&packed)[KeyTiles][2], float const (&probability)[KeyTiles][4]) {
    WINNOW_UNROLL
    for (int n = 0; n < KeyTiles; ++n) {
        packed[n][0] = ptx::pack<T>(probability[n][0], probability[n][1]);
        packed[n][1] = ptx::pack<T>(probability[n][2], probability[n][3]);
    }
}

/// output[i] += probabilities times the values of the same keys.
template <class T, int HeadDim, int RowTiles, int KeyTiles>
WINNOW_DEVICE void accumulate_tile(float (&output)[RowTiles][HeadDim / 8][4],
                                   std::uint32_t const (&probability)[RowTiles][KeyTiles][2], std::uint32_t values) {
    int const lane = threadIdx.x % 32;
    std::uint32_t const value_base = ptx::opaque(values + swizzled<HeadDim>(lane & 15, lane >> 4));
    WINNOW_UNROLL
    for (int n = 0; n < KeyTiles; n += 2) {
        WINNOW_UNROLL
        for (int d = 0; d < HeadDim / 16; ++d) {
            std::uint32_t b[4];
            ptx::load_matrices_transposed(b, swizzled_step(value_base, d) + n * 8 * HeadDim * 2);
            WINNOW_UNROLL
            for (int i = 0; i < RowTiles; ++i) {
                std::uint32_t const a[4] = {probability[i][n][0], probability[i][n][1], probability[i][n + 1][0],
                                            probability[i][n + 1][1]};
                ptx::multiply_add<T>(output[i][2 * d], a, b[0], b[1]);
                ptx::multiply_add<T>(output[i][2 * d + 1], a, b[2], b[3]);
            }
        }
    }
}

}  // namespace winnow
