// Prefix sums over the threads of a block: before(t) = sum of the values of threads 0 .. t - 1, and the sum of all.
#pragma once

#include "winnow/core/config.hpp"

namespace winnow {

/// Shared memory of block_sum.
template <int Threads, class I>
struct block_sum_storage {
    I warp_sums[Threads / 32];
};

template <class I>
struct block_sum_result {
    I before;
    I all;
};

/// Every thread of the block must call it. Integers, so that the order of additions changes nothing.
template <int Threads, class I>
WINNOW_DEVICE block_sum_result<I> block_sum(block_sum_storage<Threads, I>& shared, I value) {
    static_assert(Threads % 32 == 0, "whole warps");
    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    I inclusive = value;
    WINNOW_UNROLL
    for (int o = 1; o < 32; o *= 2) {
        I const other = __shfl_up_sync(~0u, inclusive, o);
        if (lane >= o) inclusive += other;
    }
    __syncthreads();  // the sums of an earlier call have been read
    if (lane == 31) shared.warp_sums[warp] = inclusive;
    __syncthreads();
    block_sum_result<I> result{inclusive - value, 0};
    WINNOW_UNROLL
    for (int w = 0; w < Threads / 32; ++w) {
        I const sum = shared.warp_sums[w];
        if (w < warp) result.before += sum;
        result.all += sum;
    }
    return result;
}

}  // namespace winnow
