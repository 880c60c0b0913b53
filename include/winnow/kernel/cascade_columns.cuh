// Columns of the score kernels: probabilities of queries, summed over queries for the keys that a thread holds.
//
//   sum[key] += exp2(scale log2(e) q . k + offset[q]),  offset[q] = age log2(beta) - lse
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/tile/exp2.cuh"

namespace winnow {

/// Offset of the exponent of a query, base 2: -lse, and the weight of its age. -inf for one that does not exist, has seen
/// nothing, or does not count.
template <class T>
WINNOW_DEVICE float query_offset(cascade_attend_arguments<T> const& a, cascade_chunk const& chunk, std::int32_t head,
                                 std::int32_t query) {
    if (query >= chunk.tokens || query < chunk.tokens - a.params.scorer.counted(chunk.tokens)) return minus_infinity;
    float const lse = a.lse.values(chunk.outer, chunk.first_row + query, head);
    float const base2 = a.lse.base == lse_base::natural ? lse * log2_e : lse;
    // Ages times log2(beta) in double: for a beta next to 1 the product is what counts.
    auto const age = static_cast<float>(a.log2_beta * (chunk.tokens - 1 - query));
    return lse != minus_infinity ? age - base2 : minus_infinity;
}

/// Columns [begin, end) of a block.
struct column_range {
    std::int32_t begin, end;
};

/// Hides columns before `first_seen` (+ the distance of the key from this lane's first), and those outside `range`.
/// Hidden scores are -inf whatever they were: what lies behind a request may be NaN, which an offset does not hide.
template <int RowTiles, int ColumnTiles>
WINNOW_DEVICE void hide_queries(float (&score)[RowTiles][ColumnTiles][4], std::int32_t first_seen, column_range range) {
    int const lane = threadIdx.x % 32;
    WINNOW_UNROLL
    for (int i = 0; i < RowTiles; ++i) WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) {
        std::int32_t const begin = larger(first_seen + 16 * i + 8 * h, range.begin);
        WINNOW_UNROLL
        for (int n = 0; n < ColumnTiles; ++n) WINNOW_UNROLL
        for (int e = 0; e < 2; ++e) {
            std::int32_t const column = 8 * n + 2 * (lane % 4) + e;
            if (column < begin || column >= range.end) score[i][n][2 * h + e] = minus_infinity;
        }
    }
}

/// Adds the probabilities of a block of columns to the sums of this thread's keys; `offset` of the first column. Of every
/// `Every` tiles of columns the last one takes 2^x by polynomial; none if 0.
template <int Every, int RowTiles, int ColumnTiles>
WINNOW_DEVICE void add_probabilities(float (&sum)[RowTiles][2], float const (&score)[RowTiles][ColumnTiles][4],
                                     float const* offset, float c) {
    int const lane = threadIdx.x % 32;
    WINNOW_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
        float2 const o = *reinterpret_cast<float2 const*>(offset + 8 * n + 2 * (lane % 4));
        WINNOW_UNROLL
        for (int i = 0; i < RowTiles; ++i) WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) {
            float const x = fmaf(score[i][n][2 * h], c, o.x), y = fmaf(score[i][n][2 * h + 1], c, o.y);
            if (Every > 0 && n % larger(Every, 1) == Every - 1) {
                exp2_parts const first = exp2_polynomial(x), second = exp2_polynomial(y);
                sum[i][h] = fmaf(first.value, first.scale, fmaf(second.value, second.scale, sum[i][h]));
            } else {
                sum[i][h] += ptx::exp2_fast(x) + ptx::exp2_fast(y);
            }
        }
    }
}

}  // namespace winnow
