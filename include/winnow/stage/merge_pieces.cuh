// Merges the splits of a decode tile in the block that arrives last: no second kernel has to start.
//
//   w_i = 2^(lse_i - max),  output = sum_i w_i output_i / sum_i w_i,  lse = max + log2 sum_i w_i, over splits i in order.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/attend_policy.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/attend_work.cuh"

namespace winnow {

/// Shared memory of the merge beside the weights.
struct merge_pieces_storage {
    float inverse[16];  ///< 1 / sum of the weights of each row, 0 where nothing was seen
    std::int32_t last;  ///< this block arrived last
};

/// The thread that calls counts its tile as finished, and the step of the request with its last tile.
template <class T>
WINNOW_DEVICE void finish_tile(attend_arguments<T> const& a, attend_work const& w) {
    if (a.step.step == nullptr) return;
    std::int32_t const tiles = static_cast<std::int32_t>(gridDim.x);
    std::int32_t const slot = a.slots(w.batch);
    if (atomicAdd(a.arrived + static_cast<std::int64_t>(w.batch) * (tiles + 1) + tiles, 1) == tiles - 1 && slot >= 0 &&
        w.request.keys > 0)
        ++a.step.step[slot];
}

/// All threads of the block call when their results are written. `weights`: room for 16 rows of `pieces` floats, which nobody
/// else uses any more. Every split of a tile writes its part and arrives; whoever finds that all others have, merges.
template <int HeadDim, int Threads, class T>
WINNOW_DEVICE void merge_pieces(merge_pieces_storage& shared, float* weights, attend_arguments<T> const& a,
                                attend_work const& w, std::int32_t pieces) {
    constexpr int warps = Threads / 32, columns = HeadDim / 4;
    constexpr int at_a_time = 32;  // parts under way: each round of them is a trip to L2
    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (pieces == 1) {
        if (threadIdx.x == 0 && a.schedule.splits > 1) finish_tile(a, w);
        return;
    }
    __syncthreads();  // the block's part is written
    if (threadIdx.x == 0) {
        std::int64_t const tile = static_cast<std::int64_t>(w.batch) * (gridDim.x + 1) + blockIdx.x;
        __threadfence();
        shared.last = atomicAdd(a.arrived + tile, 1) == pieces - 1;
        __threadfence();
        if (shared.last) finish_tile(a, w);
    }
    __syncthreads();
    if (!shared.last) return;

    attend_work first = w;  // of whose parts the others follow
    first.split = 0;
    attend_row_writer<T> part{a, first}, merged{a, w};
    merged.whole = true;
    for (int row = warp; row < 16; row += warps) {
        if (!part.select(row) || !merged.select(row)) continue;
        // Other blocks wrote these: L1 may hold what the lines were before.
        float const* const lse = a.partial_lse + part.partial_index();
        float maximum = minus_infinity;
        for (std::int32_t i = lane; i < pieces; i += 32) {
            float const l = __ldcg(lse + i);
            weights[row * pieces + i] = l;
            maximum = fmaxf(maximum, l);
        }
        WINNOW_UNROLL
        for (int o = 16; o > 0; o /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, o));
        float const base = maximum == minus_infinity ? 0.0f : maximum;
        float sum = 0.0f;
        for (std::int32_t i = lane; i < pieces; i += 32) {
            float const weight = ptx::exp2_fast(weights[row * pieces + i] - base);  // NaN stays NaN
            weights[row * pieces + i] = weight;
            sum += weight;
        }
        WINNOW_UNROLL
        for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
        if (lane == 0) {
            float total = sum == 0.0f ? minus_infinity : base + ptx::log2_fast(sum);
            shared.inverse[row] = (sum == 0.0f ? 0.0f : 1.0f / sum) * merged.add_sink(total);
            merged.log_sum_exp(total);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * columns; i += Threads) {
        int const row = i / columns, channel = i % columns * 4;
        if (!part.select(row) || !merged.select(row)) continue;
        float4 const* const from =
            reinterpret_cast<float4 const*>(a.partial_output + part.partial_index() * HeadDim + channel);
        float const* const weight = weights + row * pieces;
        float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (std::int32_t begin = 0; begin < pieces; begin += at_a_time) {
            float4 v[at_a_time];
            WINNOW_UNROLL
            for (int k = 0; k < at_a_time; ++k) v[k] = __ldcg(from + smaller(begin + k, pieces - 1) * columns);
            WINNOW_UNROLL
            for (int k = 0; k < at_a_time; ++k) {
                if (begin + k >= pieces) break;
                float const x = weight[begin + k];
                total = make_float4(fmaf(x, v[k].x, total.x), fmaf(x, v[k].y, total.y), fmaf(x, v[k].z, total.z),
                                    fmaf(x, v[k].w, total.w));
            }
        }
        float const inverse = shared.inverse[row];
        merged.channels(channel, total.x * inverse, total.y * inverse);
        merged.channels(channel + 2, total.z * inverse, total.w * inverse);
    }
}

}  // namespace winnow
