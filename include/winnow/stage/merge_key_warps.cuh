// Merges the warps of a decode tile: each has all rows, and a share of the keys.
//
//   w_i = 2^(c m_i - c max),  output = sum_i w_i output_i / sum_i w_i sum_i,  over warps i in order.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/attend_tile.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/tile/online_softmax.cuh"
#include "winnow/tile/widen.cuh"

namespace winnow {

/// Adds the results of warps that shared 16 rows and split the keys, in warp order. `shared` has their tile, room for
/// sums and maxima, and `lane_sum`, see softmax_step; `writer` takes the first `rows` rows as an attend_row_writer does.
template <int HeadDim, class Storage, class Writer>
WINNOW_DEVICE void merge_key_warps(Storage& shared, softmax_rows const& state, float const (&output)[HeadDim / 8][4],
                                   float c, float value_scale, std::int32_t rows, Writer& writer) {
    constexpr attend_tile tile = Storage::tile;
    static_assert(tile.rows == 16 && tile.row_warps == 1);
    static_assert(Storage::scratch_bytes() >= sizeof(float) * tile.key_warps * 16 * HeadDim,
                  "the key and value tiles hold the sums");
    constexpr int channels = HeadDim / 32;
    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* const sums = shared.scratch();  // [key warp][16][HeadDim], over keys and values
    // Rows begin in different banks, so that the lanes of a fragment's rows do not meet.
    auto const at = [](int key_warp, int row, int channel) {
        return (key_warp * 16 + row) * HeadDim + (channel ^ (Storage::widens ? (row & 1) * 16 : (row & 3) * 8));
    };
    __syncthreads();  // nobody reads the tiles any more
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) {
        int const row = lane / 4 + 8 * h;
        float const sum = row_sum(shared.lane_sum[h][threadIdx.x]);
        if (row >= rows) continue;
        if (lane % 4 == 0) shared.maximum[warp][row] = state.maximum[h], shared.sum[warp][row] = sum;
        if constexpr (Storage::widens) {
            WINNOW_UNROLL
            for (int d = 0; d < HeadDim / 16; ++d)
                *reinterpret_cast<float4*>(sums + at(warp, row, 16 * d + 4 * (lane % 4))) =
                    widened_output(output, d, h);
        } else {
            WINNOW_UNROLL
            for (int d = 0; d < HeadDim / 8; ++d)
                *reinterpret_cast<float2*>(sums + at(warp, row, 8 * d + 2 * (lane % 4))) =
                    make_float2(output[d][2 * h], output[d][2 * h + 1]);
        }
    }
    __syncthreads();
#pragma unroll 1
    for (int row = warp; row < rows; row += tile.key_warps) {
        if (!writer.select(row)) continue;
        float maximum = shared.maximum[0][row], sum = 0.0f, total[channels];
        WINNOW_UNROLL
        for (int i = 0; i < channels; ++i) total[i] = 0.0f;
        WINNOW_UNROLL
        for (int k = 1; k < tile.key_warps; ++k) maximum = fmaxf(maximum, shared.maximum[k][row]);
        WINNOW_UNROLL
        for (int k = 0; k < tile.key_warps; ++k) {
            // Without a maximum nothing was seen, and sums are 0 (or NaN, which has to get through).
            float const factor =
                maximum == minus_infinity ? 1.0f : ptx::exp2_fast((shared.maximum[k][row] - maximum) * c);
            sum = fmaf(shared.sum[k][row], factor, sum);
            WINNOW_UNROLL
            for (int i = 0; i < channels; i += 2) {
                float2 const v = *reinterpret_cast<float2 const*>(sums + at(k, row, lane * channels + i));
                total[i] = fmaf(v.x, factor, total[i]);
                total[i + 1] = fmaf(v.y, factor, total[i + 1]);
            }
        }
        float lse = sum == 0.0f ? minus_infinity : maximum * c + ptx::log2_fast(sum);
        float const inverse = (sum == 0.0f ? 0.0f : 1.0f / sum) * writer.add_sink(lse) * value_scale;
        WINNOW_UNROLL
        for (int i = 0; i < channels; ++i) total[i] *= inverse;
        if constexpr (requires { writer.corrects(); }) {
            if (writer.corrects()) {
                auto const correction = writer.correction(1.0f, lse);
                WINNOW_UNROLL
                for (int i = 0; i < channels; i += 2) correction.apply(lane * channels + i, total[i], total[i + 1]);
            }
        }
        WINNOW_UNROLL
        for (int i = 0; i < channels; i += 2) writer.channels(lane * channels + i, total[i], total[i + 1]);
        if (lane == 0) writer.log_sum_exp(lse);
    }
}

}  // namespace winnow
