// Block-wide top-k of n scores: exact, deterministic, ties to the smaller index, output ascending by index.
//
// Radix select on 32-bit ordered keys, eight bits at a time from the first bit in which any two keys differ, until the
// keys above and in a bin are exactly k; then one compaction, in which each warp owns a range of indices. A digit costs
// one barrier: every warp looks for the bin by itself.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

inline constexpr int top_k_digits = 4;          ///< of a key, 8 bits each
inline constexpr std::int32_t top_k_run = 128;  ///< keys that a warp takes at a time: four next to each other a lane

template <int Threads>
struct top_k_storage {
    alignas(16) std::int32_t histogram[top_k_digits][256];
    std::uint32_t warp_any[Threads / 32];  ///< bits that any key has
    std::uint32_t warp_all[Threads / 32];  ///< bits that all keys have
    std::int32_t warp_above[Threads / 32];
    std::int32_t warp_equal[Threads / 32];
};

/// Indices [begin, end) of n that a warp owns: whole runs, but for the last key.
struct warp_range {
    std::int32_t begin;
    std::int32_t end;
};

WINNOW_HOST_DEVICE constexpr warp_range warp_range_of(std::int32_t n, std::int32_t warps, std::int32_t warp) {
    std::int32_t const own = round_up(ceil_div(n, warps), top_k_run);
    return {smaller(warp * own, n), smaller((warp + 1) * own, n)};
}

/// Where selection is: keys equal to `prefix` in the bits of `mask` may be among the k, `remaining` of them are.
struct top_k_threshold {
    std::uint32_t prefix;
    std::uint32_t mask;
    std::int32_t remaining;
};

/// The bin that holds the k-th key.
struct top_k_bin {
    std::uint32_t digit;
    std::int32_t remaining;  ///< of its keys that are among the k
    std::int32_t keys;
};

/// A warp looks from the top for the bin that holds the `remaining`-th key.
WINNOW_DEVICE top_k_bin find_bin(std::int32_t const (&histogram)[256], std::int32_t remaining) {
    int const lane = threadIdx.x % 32, first = 248 - lane * 8;  // lane 0 has the highest eight bins
    int4 const high = *reinterpret_cast<int4 const*>(histogram + first + 4),
               low = *reinterpret_cast<int4 const*>(histogram + first);
    std::int32_t const bins[8] = {high.w, high.z, high.y, high.x, low.w, low.z, low.y, low.x};
    std::int32_t total = 0;
    WINNOW_UNROLL
    for (int j = 0; j < 8; ++j) total += bins[j];
    std::int32_t above = total;
    WINNOW_UNROLL
    for (int o = 1; o < 32; o *= 2) {
        std::int32_t const other = __shfl_up_sync(~0u, above, o);
        if (lane >= o) above += other;
    }
    above -= total;
    top_k_bin own{0, 0, 0};  // of one lane alone it is not
    WINNOW_UNROLL
    for (int j = 0; j < 8; ++j) {
        if (above < remaining && above + bins[j] >= remaining)
            own = {static_cast<std::uint32_t>(first + 7 - j), remaining - above, bins[j]};
        above += bins[j];
    }
    return {__reduce_or_sync(~0u, own.digit), __reduce_add_sync(~0u, own.remaining), __reduce_add_sync(~0u, own.keys)};
}

/// A lane's keys of the run at `run`, those at or behind `end` as 0, which is no key.
template <class Four>
WINNOW_DEVICE void read_run(std::uint32_t (&key)[4], std::int32_t run, std::int32_t end, Four four) {
    std::int32_t const i = run + threadIdx.x % 32 * 4;
    uint4 const x = i < end ? four(i) : make_uint4(0, 0, 0, 0);
    key[0] = x.x;
    key[1] = i + 1 < end ? x.y : 0;
    key[2] = i + 2 < end ? x.z : 0;
    key[3] = i + 3 < end ? x.w : 0;
}

/// Calls `each` with the lane's keys of its warp's range, zeros among them.
template <class Four, class Each>
WINNOW_DEVICE void visit_keys(warp_range own, Four four, Each each) {
#pragma unroll 1
    for (std::int32_t run = own.begin; run < own.end; run += top_k_run) {
        std::uint32_t key[4];
        read_run(key, run, own.end, four);
        WINNOW_UNROLL
        for (int j = 0; j < 4; ++j) each(key[j]);
    }
}

/// Calls `put(position, index)` for the `k` largest of `n` keys (1 <= k <= n), none of which is 0. `four(i)` gives keys i
/// to i + 3, i < n a multiple of 4, and anything from n on; a key is read up to seven times. All threads of the block
/// call it; who uses `shared` afterwards needs a barrier.
template <int Threads, class Four, class Put>
WINNOW_DEVICE void select_top_k(top_k_storage<Threads>& shared, std::int32_t n, std::int32_t k, Four four, Put put) {
    constexpr int warps = Threads / 32;
    static_assert(warps <= 32, "a lane for each warp");
    int const t = threadIdx.x, warp = t / 32, lane = t % 32;
    warp_range const own = warp_range_of(n, warps, warp);
    for (int i = t; i < top_k_digits * 256; i += Threads) shared.histogram[i / 256][i % 256] = 0;
    std::uint32_t any = 0, all = ~0u;
    visit_keys(own, four, [&](std::uint32_t x) { any |= x, all &= x == 0 ? ~0u : x; });
    any = __reduce_or_sync(~0u, any), all = __reduce_and_sync(~0u, all);
    if (lane == 0) shared.warp_any[warp] = any, shared.warp_all[warp] = all;
    __syncthreads();
    any = __reduce_or_sync(~0u, lane < warps ? shared.warp_any[lane] : 0u);
    all = __reduce_and_sync(~0u, lane < warps ? shared.warp_all[lane] : ~0u);

    // All keys agree in the bits above the first one that differs.
    std::uint32_t const differ = any & ~all;
    int shift = differ == 0 ? 0 : 32 - __clz(static_cast<int>(differ));
    std::uint32_t const mask = shift == 32 ? 0 : ~0u << shift;
    top_k_threshold at{all & mask, mask, k};
#pragma unroll 1
    for (int digit = 0; shift > 0; ++digit) {
        shift = shift > 8 ? shift - 8 : 0;
        std::int32_t(&histogram)[256] = shared.histogram[digit];
        visit_keys(own, four, [&](std::uint32_t x) {
            if ((x & at.mask) == at.prefix && x != 0) atomicAdd(&histogram[(x >> shift) & 255u], 1);
        });
        __syncthreads();
        top_k_bin const bin = find_bin(histogram, at.remaining);
        at = {(at.prefix & ~(255u << shift)) | bin.digit << shift, at.mask | 255u << shift, bin.remaining};
        if (bin.keys == bin.remaining) break;  // all keys of the bin are taken: lower bits decide nothing
    }

    // A zero is never above the threshold, but may be equal to it in its bits.
    auto const is_equal = [&](std::uint32_t x) { return (x & at.mask) == at.prefix && x != 0; };
    std::int32_t above = 0, equal = 0;
    visit_keys(own, four, [&](std::uint32_t x) { above += (x & at.mask) > at.prefix, equal += is_equal(x); });
    above = __reduce_add_sync(~0u, above), equal = __reduce_add_sync(~0u, equal);
    if (lane == 0) shared.warp_above[warp] = above, shared.warp_equal[warp] = equal;
    __syncthreads();
    above = __reduce_add_sync(~0u, lane < warp ? shared.warp_above[lane] : 0);  // in the ranges before
    equal = __reduce_add_sync(~0u, lane < warp ? shared.warp_equal[lane] : 0);
    // Before an index stand the keys above the threshold, and of those equal to it as many as may be taken.
#pragma unroll 1
    for (std::int32_t run = own.begin; run < own.end; run += top_k_run) {
        std::uint32_t key[4];
        read_run(key, run, own.end, four);
        std::uint32_t takes = 0, ties = 0;  // bit j: key j
        WINNOW_UNROLL
        for (int j = 0; j < 4; ++j) {
            takes |= ((key[j] & at.mask) > at.prefix ? 1u : 0u) << j;
            ties |= (is_equal(key[j]) ? 1u : 0u) << j;
        }
        std::uint32_t const found = __popc(takes) + (__popc(ties) << 16);
        std::uint32_t before = found;
        WINNOW_UNROLL
        for (int o = 1; o < 32; o *= 2) {
            std::uint32_t const other = __shfl_up_sync(~0u, before, o);
            if (lane >= o) before += other;
        }
        before -= found;
        std::int32_t above_before = above + static_cast<std::int32_t>(before & 0xffff),
                     equal_before = equal + static_cast<std::int32_t>(before >> 16);
        // Few keys are taken, and code that is fetched from memory costs microseconds: a loop.
#pragma unroll 1
        for (std::int32_t i = run + lane * 4; (takes | ties) != 0; ++i, takes >>= 1, ties >>= 1) {
            bool const taken = (takes & 1) != 0, tied = (ties & 1) != 0;
            if (taken || (tied && equal_before < at.remaining))
                put(above_before + smaller(equal_before, at.remaining), i);
            above_before += taken, equal_before += tied;
        }
        std::uint32_t const of_run = __reduce_add_sync(~0u, found);
        above += static_cast<std::int32_t>(of_run & 0xffff), equal += static_cast<std::int32_t>(of_run >> 16);
    }
}

}  // namespace winnow
