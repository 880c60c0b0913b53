// Online softmax of score fragments: running row maximum and sum, rescaling of the output when the maximum moves.
//
//   m' = max(m, max_j s_j),  p_j = 2^(c s_j - c m'),  l' = l 2^(c m - c m') + sum_j p_j,  o' = o 2^(c m - c m') + p V.
#pragma once

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/convert.cuh"

namespace winnow {

/// Running maxima of two rows (g and g + 8 of a 16-row fragment).
struct softmax_rows {
    float maximum[2] = {minus_infinity, minus_infinity};
};

/// Maximum over the four lanes that hold a row.
WINNOW_DEVICE float row_maximum(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

WINNOW_DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/// Turns scores into probabilities in place and moves the maxima. `c` = scale * log2(e) > 0; scores of -inf are hidden.
/// Gives this lane's part of the step's sums, and the factors for earlier sums and outputs.
template <int Tiles>
WINNOW_DEVICE void softmax_scores(softmax_rows& state, float (&score)[Tiles][4], float c, float (&step_sum)[2],
                                  float (&rescale)[2]) {
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) {
        float maximum = state.maximum[h];
        WINNOW_UNROLL
        for (int n = 0; n < Tiles; ++n) maximum = fmaxf(maximum, fmaxf(score[n][2 * h], score[n][2 * h + 1]));
        maximum = row_maximum(maximum);
        // A row that has seen nothing yet keeps -inf; base 0 then gives 2^-inf = 0 instead of NaN.
        float const finite = maximum == minus_infinity ? 0.0f : maximum, base = finite * c;
        // From the difference, so that a maximum that stays gives exactly 1: a step in which a row sees nothing leaves its
        // bits alone.
        rescale[h] = ptx::exp2_fast((state.maximum[h] - finite) * c);
        state.maximum[h] = maximum;
        step_sum[h] = 0.0f;
        WINNOW_UNROLL
        for (int n = 0; n < Tiles; ++n) {
            score[n][2 * h] = ptx::exp2_fast(fmaf(score[n][2 * h], c, -base));
            score[n][2 * h + 1] = ptx::exp2_fast(fmaf(score[n][2 * h + 1], c, -base));
            step_sum[h] += score[n][2 * h] + score[n][2 * h + 1];
        }
    }
}

/// Multiplies the two rows of an output fragment by their factors.
template <int OutputTiles>
WINNOW_DEVICE void rescale_rows(float (&output)[OutputTiles][4], float const (&rescale)[2]) {
    WINNOW_UNROLL
    for (int d = 0; d < OutputTiles; ++d) {
        output[d][0] *= rescale[0];
        output[d][1] *= rescale[0];
        output[d][2] *= rescale[1];
        output[d][3] *= rescale[1];
    }
}

/// Both at once. `sum[0]` and `sum[Stride]` are this lane's part of the two rows' sums, in shared memory: they are touched
/// once a step, and the 128-row tile has no registers left for them (ptxas spilled them to local memory).
template <int Stride, int Tiles, int OutputTiles>
WINNOW_DEVICE void softmax_step(softmax_rows& state, float* sum, float (&score)[Tiles][4],
                                float (&output)[OutputTiles][4], float c) {
    float step_sum[2], rescale[2];
    softmax_scores(state, score, c, step_sum, rescale);
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) sum[h * Stride] = fmaf(sum[h * Stride], rescale[h], step_sum[h]);
    // Skipping this where no maximum moved (a vote and a branch) was measured slower: it stops ptxas from mixing these
    // products into the matrix instructions.
    rescale_rows(output, rescale);
}

/// soft_cap * tanh(scale x / soft_cap). Through 2^x the error is 1e-6 of the cap (tanh.approx: 5e-4), which large caps do
/// not forgive where the score is small: there the first terms of the series take over.
WINNOW_DEVICE float soft_capped(float x, float scale, float soft_cap, float inverse_cap) {
    float const scaled = x * scale, y = scaled * inverse_cap, y2 = y * y;
    float const e = ptx::exp2_fast(y * 2.885390082f);                                             // e^(2 y)
    float const series = fmaf(y2, fmaf(y2, fmaf(y2, -17.0f / 315, 2.0f / 15), -1.0f / 3), 1.0f);  // tanh(y) / y
    return y2 < 0.04f ? scaled * series : soft_cap * (1.0f - __fdividef(2.0f, e + 1.0f));
}

}  // namespace winnow
