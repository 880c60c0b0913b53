// Merges partial results of one row: the block's warps take parts in turn, then their sums are added in warp order.
//
//   w_i = 2^(lse_i - max),  output = sum_i w_i output_i / sum_i w_i,  lse = max + log2 sum_i w_i   (base 2 inside).
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/convert.cuh"

namespace winnow {

/// Threads of a merging block, and the channels it can hold.
inline constexpr int merge_warps = 8;

template <int MaxChannels>
struct merge_storage {
    float output[merge_warps][MaxChannels];
    float weight[merge_warps];
    float maximum[merge_warps];
};

/// `lse(i)` is part i's LSE in base 2, `output(i, c)` its channel c, `store(c, value)` takes the merged channel. A part
/// with lse -inf is not read. `extra`: base-2 LSE of one part more, whose channels are 0, which counts where another does.
/// Returns the merged LSE (base 2) to every thread.
template <int MaxChannels, class Lse, class Output, class Store>
WINNOW_DEVICE float merge_parts(merge_storage<MaxChannels>& shared, int parts, int channels, Lse lse, Output output,
                                Store store, float extra = minus_infinity) {
    constexpr int per_lane = MaxChannels / 32;
    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    float maximum = minus_infinity;
    for (int i = threadIdx.x; i < parts; i += merge_warps * 32) maximum = fmaxf(maximum, lse(i));
    WINNOW_UNROLL
    for (int o = 16; o > 0; o /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, o));
    if (lane == 0) shared.maximum[warp] = maximum;
    __syncthreads();
    maximum = shared.maximum[0];
    WINNOW_UNROLL
    for (int w = 1; w < merge_warps; ++w) maximum = fmaxf(maximum, shared.maximum[w]);

    if (maximum == minus_infinity) extra = minus_infinity;
    maximum = fmaxf(maximum, extra);
    float sum[per_lane], weight_sum = 0.0f;
    WINNOW_UNROLL
    for (int k = 0; k < per_lane; ++k) sum[k] = 0.0f;
    float const base = maximum == minus_infinity ? 0.0f : maximum;
#pragma unroll 4
    for (int i = warp; i < parts; i += merge_warps) {
        float const l = lse(i);
        if (l == minus_infinity) continue;
        float const weight = ptx::exp2_fast(l - base);  // NaN stays NaN
        weight_sum += weight;
        WINNOW_UNROLL
        for (int k = 0; k < per_lane; ++k) {
            int const c = lane + 32 * k;
            if (c < channels) sum[k] = fmaf(weight, output(i, c), sum[k]);
        }
    }
    WINNOW_UNROLL
    for (int k = 0; k < per_lane; ++k) shared.output[warp][lane + 32 * k] = sum[k];
    if (lane == 0) shared.weight[warp] = weight_sum;
    __syncthreads();

    float total = extra == minus_infinity ? 0.0f : ptx::exp2_fast(extra - base);
    WINNOW_UNROLL
    for (int w = 0; w < merge_warps; ++w) total += shared.weight[w];
    float const inverse = total == 0.0f ? 0.0f : 1.0f / total;
    for (int c = threadIdx.x; c < channels; c += merge_warps * 32) {
        float value = 0.0f;
        WINNOW_UNROLL
        for (int w = 0; w < merge_warps; ++w) value += shared.output[w][c];
        store(c, value * inverse);
    }
    return total == 0.0f ? minus_infinity : base + ptx::log2_fast(total);
}

}  // namespace winnow
