// Block-wide top-k of n scores: exact, deterministic, ties to the smaller index, output ascending by index.
//
// Radix select on 32-bit ordered keys; scores are read once per 8-bit digit and once for compaction.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow {

template <int Threads>
struct top_k_storage {
    std::int32_t histogram[256];
    std::int32_t warp_above[Threads / 32];
    std::int32_t warp_equal[Threads / 32];
    std::uint32_t digit;
    std::int32_t remaining;
};

/// Calls `put(position, index)` for the `k` largest of `n` keys (1 <= k <= n); `key(i)` is read up to five times.
template <int Threads, class Key, class Put>
WINNOW_DEVICE void select_top_k(top_k_storage<Threads>& shared, std::int32_t n, std::int32_t k, Key key, Put put) {
    static_assert(Threads >= 256, "one thread per histogram bin");
    int const t = threadIdx.x, warp = t / 32, lane = t % 32;
    std::uint32_t prefix = 0, mask = 0;
    std::int32_t remaining = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (t < 256) shared.histogram[t] = 0;
        __syncthreads();
        for (std::int32_t i = t; i < n; i += Threads) {
            std::uint32_t const x = key(i);
            if ((x & mask) == prefix) atomicAdd(&shared.histogram[(x >> shift) & 255u], 1);
        }
        __syncthreads();
        if (warp == 0) {  // suffix sums from the highest bin down, 8 bins a lane
            std::int32_t bins[8], total = 0;
            WINNOW_UNROLL
            for (int j = 0; j < 8; ++j) total += bins[j] = shared.histogram[255 - (lane * 8 + j)];
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
                }
                above += bins[j];
            }
        }
        __syncthreads();
        prefix |= shared.digit << shift;
        mask |= 255u << shift;
        remaining = shared.remaining;
    }
    // `prefix` is the k-th largest key; `remaining` of those equal to it are taken, the first ones.
    std::int32_t written = 0, equal_seen = 0;
    for (std::int32_t base = 0; base < n; base += Threads) {
        std::int32_t const i = base + t;
        std::uint32_t const x = i < n ? key(i) : 0;
        bool const above = i < n && x > prefix, equal = i < n && x == prefix;
        unsigned const above_votes = __ballot_sync(~0u, above), equal_votes = __ballot_sync(~0u, equal);
        __syncthreads();  // the last tile's counts have been read
        if (lane == 0) {
            shared.warp_above[warp] = __popc(above_votes);
            shared.warp_equal[warp] = __popc(equal_votes);
        }
        __syncthreads();
        std::int32_t above_before = 0, equal_before = equal_seen, above_all = 0, equal_all = 0;
        WINNOW_UNROLL
        for (int w = 0; w < Threads / 32; ++w) {
            above_before += w < warp ? shared.warp_above[w] : 0;
            equal_before += w < warp ? shared.warp_equal[w] : 0;
            above_all += shared.warp_above[w];
            equal_all += shared.warp_equal[w];
        }
        unsigned const lower = (1u << lane) - 1;
        above_before += __popc(above_votes & lower);
        equal_before += __popc(equal_votes & lower);
        // Before this index: the higher ones of this tile, and as many equal ones as may be taken.
        std::int32_t const equal_taken = equal_before < remaining ? equal_before : remaining;
        std::int32_t const taken_of_earlier = equal_seen < remaining ? equal_seen : remaining;
        std::int32_t const at = written + above_before + equal_taken - taken_of_earlier;
        if (above || (equal && equal_before < remaining)) put(at, i);
        std::int32_t const after = equal_seen + equal_all;
        written += above_all + (after < remaining ? after : remaining) - taken_of_earlier;
        equal_seen = after;
    }
}

}  // namespace winnow
