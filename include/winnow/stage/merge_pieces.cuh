// Merges the splits of a decode tile in the block that arrives last: no second kernel has to start.
//
//   w_i = 2^(lse_i - max),  output = sum_i w_i output_i / sum_i w_i,  lse = max + log2 sum_i w_i, over splits i in order.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/attend_policy.hpp"
#include "winnow/ptx/atomic.cuh"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/attend_work.cuh"

namespace winnow {

/// Shared memory of the merge.
template <int Warps>
struct merge_pieces_storage {
    float weight[Warps][32];  ///< of the parts that a warp adds at a time
    bool last;                ///< this block arrived last of its tile's
};

/// Counts a tile as arrived, for the thread that calls; true for the last tile of its request.
template <class T>
WINNOW_DEVICE bool last_tile(attend_arguments<T> const& a, attend_work const& w) {
    if (a.step.step == nullptr) return false;
    std::int32_t const tiles = static_cast<std::int32_t>(gridDim.x);
    return atomicAdd(a.arrived + static_cast<std::int64_t>(w.batch) * (tiles + 1) + tiles, 1) == tiles - 1;
}

/// Counts the step of the request, all of whose blocks have read it.
template <class T>
WINNOW_DEVICE void count_step(attend_arguments<T> const& a, attend_work const& w) {
    std::int32_t const slot = a.slots(w.batch);
    if (slot >= 0 && w.request.keys > 0) ++a.step.step[slot];
}

/// A lane's channels of a part, zeros where it does not exist. Other blocks wrote them: L1 may hold what the lines were
/// before.
template <int Channels>
WINNOW_DEVICE void load_part(float (&part)[Channels], float const* from, bool exists) {
    using chunk = std::conditional_t<Channels == 2, float2, float4>;
    constexpr int each = sizeof(chunk) / sizeof(float);
    WINNOW_UNROLL
    for (int c = 0; c < Channels; c += each) {
        chunk const v = exists ? __ldcg(reinterpret_cast<chunk const*>(from + c)) : chunk{};
        part[c] = v.x, part[c + 1] = v.y;
        if constexpr (each == 4) part[c + 2] = v.z, part[c + 3] = v.w;
    }
}

/// A warp merges the row that `row` (an attend_row_writer, or alike) has selected, of `pieces` parts; each lane has channels side by side. Parts come many
/// at a time and together with their lses: each round of them is a trip to L2. `weights`: shared memory of the warp.
/// `Registers`: how many a thread has for parts.
template <int HeadDim, int Registers, class Row>
WINNOW_DEVICE void merge_row(float (&weights)[32], Row const& row, std::int32_t pieces) {
    constexpr int channels = HeadDim / 32;
    constexpr int at_a_time = smaller(Registers / channels, 32);
    int const lane = threadIdx.x % 32;
    std::int64_t const first = row.partial_index() - row.w.split;
    float const* const lses = row.a.partial_lse + first;
    float const* const parts = row.a.partial_output + first * HeadDim + lane * channels;
    float base = minus_infinity, sum = 0.0f, total[channels];
    WINNOW_UNROLL
    for (int c = 0; c < channels; ++c) total[c] = 0.0f;
#pragma unroll 1
    for (std::int32_t begin = 0; begin < pieces; begin += at_a_time) {
        std::int32_t const count = smaller(pieces - begin, at_a_time);
        float const lse = lane < count ? __ldcg(lses + begin + lane) : minus_infinity;
        float part[at_a_time][channels];
        WINNOW_UNROLL
        for (int k = 0; k < at_a_time; ++k) load_part(part[k], parts + (std::int64_t{begin} + k) * HeadDim, k < count);
        float maximum = fmaxf(base, lse);
        WINNOW_UNROLL
        for (int o = 16; o > 0; o /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, o));
        float const rescale = base == maximum ? 1.0f : ptx::exp2_fast(base - maximum);
        float const weight = lse == minus_infinity ? 0.0f : ptx::exp2_fast(lse - maximum);  // NaN stays NaN
        base = maximum;
        weights[lane] = weight;
        __syncwarp();
        float of_round = weight;
        WINNOW_UNROLL
        for (int o = 16; o > 0; o /= 2) of_round += __shfl_xor_sync(~0u, of_round, o);
        sum = fmaf(sum, rescale, of_round);
        WINNOW_UNROLL
        for (int c = 0; c < channels; ++c) total[c] *= rescale;
        WINNOW_UNROLL
        for (int k = 0; k < at_a_time; ++k) WINNOW_UNROLL
        for (int c = 0; c < channels; ++c) total[c] = fmaf(weights[k], part[k][c], total[c]);
        __syncwarp();
    }
    float lse = sum == 0.0f ? minus_infinity : base + ptx::log2_fast(sum);
    float const inverse = (sum == 0.0f ? 0.0f : 1.0f / sum) * row.add_sink(lse);
    WINNOW_UNROLL
    for (int c = 0; c < channels; c += 2) row.channels(lane * channels + c, total[c] * inverse, total[c + 1] * inverse);
    if (lane == 0) row.log_sum_exp(lse);
}

/// All threads of the block call when their results are written. Every split of a tile writes its part and arrives; whoever
/// finds that all others have, merges, a warp for each row.
template <int HeadDim, int Registers, int Warps, class T>
WINNOW_DEVICE void merge_pieces(merge_pieces_storage<Warps>& shared, attend_arguments<T> const& a, attend_work const& w,
                                std::int32_t pieces) {
    if (pieces == 1) {
        if (threadIdx.x == 0 && a.schedule.splits > 1 && last_tile(a, w)) count_step(a, w);
        return;
    }
    __syncthreads();  // the block's part is written
    if (threadIdx.x == 0) {
        std::int64_t const tile = static_cast<std::int64_t>(w.batch) * (gridDim.x + 1) + blockIdx.x;
        shared.last = ptx::count_arrival(a.arrived + tile) == pieces - 1;
    }
    __syncthreads();
    if (!shared.last) return;
    bool const ends_step = threadIdx.x == 0 && last_tile(a, w);  // known when rows are merged
    attend_row_writer<T> merged{a, w};
    merged.whole = true;
#pragma unroll 1
    for (int row = threadIdx.x / 32; row < w.rows.count * a.schedule.tile_heads; row += Warps)
        if (merged.select(row)) merge_row<HeadDim, Registers>(shared.weight[threadIdx.x / 32], merged, pieces);
    if (ends_step) count_step(a, w);
}

}  // namespace winnow
