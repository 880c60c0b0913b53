// Block-wide top-k of n scores: exact, deterministic, ties to the smaller index, output ascending by index.
//
// Radix select on 32-bit ordered keys, eight bits at a time from the first bit in which any two keys differ, until the
// keys above and in a bin are exactly k; then one compaction, in which each warp owns a range of indices.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

template <int Threads>
struct top_k_storage {
    std::int32_t histogram[2][256];
    std::uint32_t warp_differ[Threads / 32];
    std::int32_t warp_above[Threads / 32];
    std::int32_t warp_equal[Threads / 32];
    std::uint32_t digit;
    std::int32_t remaining;
    std::int32_t in_bin;
};

/// Indices [begin, end) of n that a warp owns: whole groups of 32.
struct warp_range {
    std::int32_t begin;
    std::int32_t end;
};

WINNOW_HOST_DEVICE constexpr warp_range warp_range_of(std::int32_t n, std::int32_t warps, std::int32_t warp) {
    std::int32_t const own = round_up(ceil_div(n, warps), 32);
    return {smaller(warp * own, n), smaller((warp + 1) * own, n)};
}

/// Where selection is: keys equal to `prefix` in the bits of `mask` may be among the k, `remaining` of them are.
struct top_k_threshold {
    std::uint32_t prefix;
    std::uint32_t mask;
    std::int32_t remaining;
};

/// One warp looks from the top for the bin that holds the k-th key.
template <int Threads>
WINNOW_DEVICE void find_digit(top_k_storage<Threads>& shared, std::int32_t const (&histogram)[256],
                              std::int32_t remaining) {
    int const lane = threadIdx.x % 32;
    std::int32_t bins[8], total = 0;
    WINNOW_UNROLL
    for (int j = 0; j < 8; ++j) total += bins[j] = histogram[255 - (lane * 8 + j)];
    std::int32_t above = total;
    WINNOW_UNROLL
    for (int o = 1; o < 32; o *= 2) {
        std::int32_t const other = __shfl_up_sync(~0u, above, o);
        if (lane >= o) above += other;
    }
    above -= total;
    WINNOW_UNROLL
    for (int j = 0; j < 8; ++j) {
        if (above < remaining && above + bins[j] >= remaining) {
            shared.digit = 255 - (lane * 8 + j);
            shared.remaining = remaining - above;
            shared.in_bin = bins[j];
        }
        above += bins[j];
    }
}

/// The threshold of the `k` largest keys. `key(i)` is read once, and once for each digit.
template <int Threads, class Key>
WINNOW_DEVICE top_k_threshold find_threshold(top_k_storage<Threads>& shared, std::int32_t n, std::int32_t k, Key key) {
    int const t = threadIdx.x, warp = t / 32, lane = t % 32;
    warp_range const own = warp_range_of(n, Threads / 32, warp);
    std::uint32_t const first = key(0);
    std::uint32_t differ = 0;
    for (std::int32_t i = own.begin + lane; i < own.end; i += 32) differ |= key(i) ^ first;
    WINNOW_UNROLL
    for (int o = 16; o > 0; o /= 2) differ |= __shfl_xor_sync(~0u, differ, o);
    if (lane == 0) shared.warp_differ[warp] = differ;
    if (t < 256) shared.histogram[0][t] = 0;
    __syncthreads();
    WINNOW_UNROLL
    for (int w = 0; w < Threads / 32; ++w) differ |= shared.warp_differ[w];

    // All keys agree in the bits above the first one that differs.
    int const bits = differ == 0 ? 0 : 32 - __clz(static_cast<int>(differ));
    std::uint32_t const mask = bits == 32 ? 0 : ~0u << bits;
    top_k_threshold at{first & mask, mask, k};
    int shift = bits;
#pragma unroll 1
    for (int pass = 0; shift > 0; ++pass) {
        shift = shift > 8 ? shift - 8 : 0;
        std::int32_t* const histogram = shared.histogram[pass % 2];
        for (std::int32_t i = own.begin + lane; i < own.end; i += 32) {
            std::uint32_t const x = key(i);
            if ((x & at.mask) == at.prefix) atomicAdd(&histogram[(x >> shift) & 255u], 1);
        }
        __syncthreads();
        if (warp == 0)
            find_digit(shared, shared.histogram[pass % 2], at.remaining);
        else if (t - 32 < 256)
            shared.histogram[(pass + 1) % 2][t - 32] = 0;
        __syncthreads();
        at = {(at.prefix & ~(255u << shift)) | shared.digit << shift, at.mask | 255u << shift, shared.remaining};
        if (shared.in_bin == at.remaining) break;  // all keys of the bin are taken: lower bits decide nothing
    }
    return at;
}

/// Calls `put(position, index)` for the `k` largest of `n` keys (1 <= k <= n); `key(i)` is read up to seven times.
template <int Threads, class Key, class Put>
WINNOW_DEVICE void select_top_k(top_k_storage<Threads>& shared, std::int32_t n, std::int32_t k, Key key, Put put) {
    static_assert(Threads >= 288, "a thread per histogram bin beside the warp that searches the other histogram");
    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    top_k_threshold const at = find_threshold(shared, n, k, key);
    warp_range const own = warp_range_of(n, Threads / 32, warp);
    std::int32_t above = 0, equal = 0;
#pragma unroll 1
    for (std::int32_t base = own.begin; base < own.end; base += 32) {
        std::uint32_t const x = base + lane < own.end ? key(base + lane) & at.mask : 0;
        above += __popc(__ballot_sync(~0u, base + lane < own.end && x > at.prefix));
        equal += __popc(__ballot_sync(~0u, base + lane < own.end && x == at.prefix));
    }
    if (lane == 0) {
        shared.warp_above[warp] = above;
        shared.warp_equal[warp] = equal;
    }
    __syncthreads();
    above = equal = 0;  // in the ranges before
    WINNOW_UNROLL
    for (int w = 0; w < Threads / 32; ++w) {
        above += w < warp ? shared.warp_above[w] : 0;
        equal += w < warp ? shared.warp_equal[w] : 0;
    }
    // Before an index stand the keys above the threshold, and of those equal to it as many as may be taken.
    unsigned const lower = (1u << lane) - 1;
#pragma unroll 1
    for (std::int32_t base = own.begin; base < own.end; base += 32) {
        std::uint32_t const x = base + lane < own.end ? key(base + lane) & at.mask : 0;
        bool const is_above = base + lane < own.end && x > at.prefix,
                   is_equal = base + lane < own.end && x == at.prefix;
        unsigned const above_votes = __ballot_sync(~0u, is_above), equal_votes = __ballot_sync(~0u, is_equal);
        std::int32_t const equal_before = equal + __popc(equal_votes & lower);
        if (is_above || (is_equal && equal_before < at.remaining))
            put(above + __popc(above_votes & lower) + smaller(equal_before, at.remaining), base + lane);
        above += __popc(above_votes);
        equal += __popc(equal_votes);
    }
}

}  // namespace winnow
