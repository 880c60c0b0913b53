// Block-wide top-k of n scores: exact, deterministic, ties to the smaller index, output ascending by index.
//
// The interval that holds the k-th of 32-bit ordered keys is cut into 256 bins until what it holds is taken whole, or is
// so little that a warp ranks it; then one compaction, in which each warp owns a range of indices. A cut costs one
// barrier: every warp looks for the bin by itself. Mostly one cut is enough.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/shared_memory.cuh"

namespace winnow {

inline constexpr std::int32_t top_k_run = 128;    ///< keys that a warp takes at a time: four next to each other a lane
inline constexpr std::int32_t top_k_ranked = 32;  ///< keys that a warp ranks, one a lane
/// Most keys in a bin of the first cut are 2^18 apart: 32 bins for each power of two, over eight of them below the highest
/// key. Few scores in a list are so close to 0 that they are not told apart.
inline constexpr int top_k_first_shift = 18;

template <int Threads>
struct top_k_storage {
    alignas(16) std::uint32_t histogram[3][256];  ///< of this cut, of the next one, and one that is cleared
    std::uint64_t ranked[top_k_ranked];           ///< by rank_of, in any order
    std::int32_t ranked_count;
    std::uint32_t outside;                               ///< counts what is in no bin
    alignas(16) std::uint32_t warp_least[Threads / 32];  // behind what is cleared, 16 bytes at a time
    std::uint32_t warp_most[Threads / 32];
    std::int32_t warp_above[Threads / 32];
};

/// Indices [begin, end) of n that a warp owns: whole runs, but for the last key.
struct warp_range {
    std::int32_t begin;
    std::int32_t end;
};

WINNOW_HOST_DEVICE constexpr warp_range warp_range_of(std::int32_t n, int warps_log2, std::int32_t warp) {
    std::int32_t const own = (((n - 1) >> warps_log2) / top_k_run + 1) * top_k_run;
    return {smaller(warp * own, n), smaller((warp + 1) * own, n)};
}

/// Where a block keeps its keys: in shared memory.
struct shared_keys {
    std::uint32_t address;

    [[nodiscard]] WINNOW_DEVICE uint4 four(std::int32_t i) const { return ptx::load_shared(address + i * 4); }
    WINNOW_DEVICE void put(std::int32_t i, uint4 x) const { ptx::store_shared(address + i * 4, x); }
};

/// The same for more keys than it has room for.
struct global_keys {
    std::uint32_t* first;

    [[nodiscard]] WINNOW_DEVICE uint4 four(std::int32_t i) const { return *reinterpret_cast<uint4 const*>(first + i); }
    WINNOW_DEVICE void put(std::int32_t i, uint4 x) const { *reinterpret_cast<uint4*>(first + i) = x; }
};

/// The k-th value lies in [least, most]: it is the `remaining`-th highest of `inside` values there.
struct top_k_interval {
    std::uint32_t least;
    std::uint32_t most;
    std::int32_t remaining;
    std::int32_t inside;

    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool taken_whole() const { return inside == remaining; }
};

/// Keys above `key`, and those equal to it up to index `last`, are taken.
struct top_k_threshold {
    std::uint32_t key;
    std::int32_t last;

    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool takes(std::uint32_t x, std::int32_t i) const {
        return (x > key) | ((x == key) & (i <= last));  // no branches
    }
};

/// Orders keys as they are taken: by key, then by smaller index.
WINNOW_HOST_DEVICE constexpr std::uint64_t rank_of(std::uint32_t key, std::int32_t index) {
    return std::uint64_t{key} << 32 | ~static_cast<std::uint32_t>(index);
}

/// How an interval is cut: value x of [first, last] belongs to bin (x - first) >> shift. What lies below is not counted if
/// nothing lies above, nor what lies above if nothing lies below.
struct top_k_cut {
    std::uint32_t first;
    std::uint32_t last;
    int shift;
};

/// Where positive and negative scores are mixed, most of the interval is numbers next to 0. So the first cut looks no
/// further than 2^26 below the highest key, and the second one above the lowest.
WINNOW_DEVICE top_k_cut cut_of(top_k_interval const& at, int cuts) {
    constexpr std::uint32_t most_width = (256u << top_k_first_shift) - 1;
    std::uint32_t const width = at.most - at.least;
    if (width > most_width && cuts == 0) return {at.most - most_width, at.most, top_k_first_shift};
    if (width > most_width && cuts == 1) return {at.least, at.least + most_width, top_k_first_shift};
    return {at.least, at.most, larger(24 - __clz(static_cast<int>(width)), 0)};
}

/// Sum over the lanes up to this one.
WINNOW_DEVICE std::int32_t sum_up_to_lane(std::int32_t x) {
    int const lane = threadIdx.x & 31;
    WINNOW_UNROLL
    for (int o = 1; o < 32; o *= 2) {
        std::int32_t const other = __shfl_up_sync(~0u, x, o);
        if (lane >= o) x += other;
    }
    return x;
}

/// The part of `at` that holds the k-th value, by the histogram of a cut. A warp looks from the top.
WINNOW_DEVICE top_k_interval narrowed(top_k_interval const& at, top_k_cut const& cut, std::uint32_t histogram) {
    int const first = 248 - (threadIdx.x & 31) * 8;  // lane 0 has the highest eight bins
    uint4 const high = ptx::load_shared(histogram + first * 4 + 16), low = ptx::load_shared(histogram + first * 4);
    std::uint32_t const bins[8] = {high.w, high.z, high.y, high.x, low.w, low.z, low.y, low.x};
    std::int32_t total = 0;
    WINNOW_UNROLL
    for (int j = 0; j < 8; ++j) total += bins[j];
    std::int32_t rank = at.remaining;  // of the k-th value among those counted
    if (cut.last < at.most) {
        std::int32_t const beyond = at.inside - __reduce_add_sync(~0u, total);
        if (beyond >= rank) return {cut.last + 1, at.most, rank, beyond};
        rank -= beyond;
    }
    std::int32_t const up_to = sum_up_to_lane(total);
    std::int32_t above = up_to - total;
    bool const here = above < rank && up_to >= rank;  // true of one lane at most
    std::uint32_t bin = 0;
    std::int32_t remaining = 0, inside = 0;
    WINNOW_UNROLL
    for (int j = 0; j < 8; ++j) {
        if (above < rank) bin = first + 7 - j, remaining = rank - above, inside = bins[j];
        above += bins[j];
    }
    inside = __reduce_add_sync(~0u, here ? inside : 0);
    if (inside == 0) {
        std::int32_t const counted = __reduce_add_sync(~0u, total);
        return {at.least, cut.first - 1, at.remaining - counted, at.inside - counted};
    }
    std::uint32_t const least = cut.first + (__reduce_add_sync(~0u, here ? bin : 0) << cut.shift);
    return {least, smaller(cut.last, least + ((1u << cut.shift) - 1)), __reduce_add_sync(~0u, here ? remaining : 0),
            inside};
}

/// A lane's keys from `i` on, those at or behind `end` as 0, which is no key.
WINNOW_DEVICE void cut_off(uint4& x, std::int32_t i, std::int32_t end) {
    if (i >= end) x.x = 0;
    if (i + 1 >= end) x.y = 0;
    if (i + 2 >= end) x.z = 0;
    if (i + 3 >= end) x.w = 0;
}

/// Calls `each` with four keys of the lane at a time, zeros among them, and the index of the first.
template <class Keys, class Each>
WINNOW_DEVICE void visit_keys(warp_range own, Keys keys, Each each) {
    std::int32_t const of_lane = (threadIdx.x & 31) * 4;
#pragma unroll 1
    for (std::int32_t i = own.begin + of_lane; i - of_lane < own.end; i += top_k_run) {
        uint4 const x = i < own.end ? keys.four(i) : make_uint4(0, 0, 0, 0);
        std::uint32_t const key[4] = {x.x, x.y, x.z, x.w};
        each(key, i);
    }
}

/// Cuts `at` until it is taken whole or holds no more than `few` values. `value(x, i)` of keys that are not inside lies
/// outside of `at`. `cuts` counts the cuts so far.
template <int Threads, class Keys, class Value>
WINNOW_DEVICE void narrow(std::uint32_t storage, int threads, warp_range own, Keys keys, top_k_interval& at, int& cuts,
                          std::int32_t few, Value value) {
    constexpr std::uint32_t bytes = sizeof(top_k_storage<Threads>::histogram[0]);
    std::uint32_t const outside = storage + offsetof(top_k_storage<Threads>, outside);
#pragma unroll 1
    for (; !at.taken_whole() && at.inside > few && at.least < at.most; ++cuts) {
        top_k_cut const cut = cut_of(at, cuts);
        std::uint32_t const histogram = storage + cuts % 3 * bytes, width = cut.last - cut.first;
        visit_keys(own, keys, [&](std::uint32_t const(&key)[4], std::int32_t i) {
            WINNOW_UNROLL
            for (int j = 0; j < 4; ++j) {  // a choice of addresses: additions that may not be made would be branches
                std::uint32_t const x = value(key[j], i + j) - cut.first;
                ptx::count_shared(x <= width ? histogram + (x >> cut.shift) * 4 : outside);
            }
        });
        __syncthreads();
        // All have read the histogram of the cut before: it is the one after the next.
        if (cuts > 0) {
#pragma unroll 1
            for (std::uint32_t i = threadIdx.x * 16; i < bytes; i += threads * 16)
                ptx::store_shared(storage + (cuts + 2) % 3 * bytes + i, make_uint4(0, 0, 0, 0));
        }
        at = narrowed(at, cut, histogram);
    }
}

/// Clears what select_top_k counts in. Thread `thread` of the `threads` that call it.
template <int Threads>
WINNOW_DEVICE void clear_top_k(top_k_storage<Threads>& shared, int thread, int threads) {
    std::uint32_t const storage = ptx::pinned_address(&shared);
#pragma unroll 1
    for (int i = thread * 16; i < static_cast<int>(offsetof(top_k_storage<Threads>, warp_least)); i += threads * 16)
        ptx::store_shared(storage + i, make_uint4(0, 0, 0, 0));
}

/// Calls `put(position, index)` for the `k` largest of `n` keys (1 <= k <= n), none of which is 0. `fetch(x, i, end)` gives
/// keys i to i + 3 of the next `Runs` runs, i < n a multiple of 4, and anything from `end` on; it is called once.
/// `keys`: room for n keys, in whole groups of four, which may be where they come from. `shared` is cleared, by any thread.
/// All `threads` of the block call it, whole warps, as many as a power of two; who uses `shared` afterwards needs a
/// barrier.
template <int Runs, int Threads, class Keys, class Fetch, class Put>
WINNOW_DEVICE void select_top_k(top_k_storage<Threads>& shared, int threads, Keys keys, std::int32_t n, std::int32_t k,
                                Fetch fetch, Put put) {
    static_assert(Threads <= 1024, "a lane for each warp");
    int const warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = threads / 32;
    std::uint32_t const storage = ptx::pinned_address(&shared);
    warp_range const own = warp_range_of(n, 31 - __clz(warps), warp);
    std::uint32_t least = ~0u, most = 0;
#pragma unroll 1
    for (std::int32_t run = own.begin; run < own.end; run += Runs * top_k_run) {
        std::int32_t const first = run + lane * 4;
        uint4 x[Runs];
        fetch(x, first, own.end);
        WINNOW_UNROLL
        for (int j = 0; j < Runs; ++j) {
            std::int32_t const i = first + j * top_k_run;
            if (i + 4 > own.end) cut_off(x[j], i, own.end);
            if (i < own.end) keys.put(i, x[j]);
            // 0 becomes the highest of all.
            least = smaller(smaller(least, smaller(x[j].x - 1, x[j].y - 1)), smaller(x[j].z - 1, x[j].w - 1));
            most = larger(larger(most, larger(x[j].x, x[j].y)), larger(x[j].z, x[j].w));
        }
    }
    least = __reduce_min_sync(~0u, least), most = __reduce_max_sync(~0u, most);
    if (lane == 0) shared.warp_least[warp] = least, shared.warp_most[warp] = most;
    __syncthreads();
    least = __reduce_min_sync(~0u, lane < warps ? shared.warp_least[lane] : ~0u);
    most = __reduce_max_sync(~0u, lane < warps ? shared.warp_most[lane] : 0u);

    top_k_interval at{least + 1, most, k, n};
    int cuts = 0;
    narrow<Threads>(storage, threads, own, keys, at, cuts, top_k_ranked,
                    [](std::uint32_t x, std::int32_t) { return x; });
    bool const ranks = !at.taken_whole() && at.inside <= top_k_ranked;
    std::uint32_t const floor = at.least, ranked = ranks ? at.most - at.least + 1 : 0;
    top_k_threshold threshold{ranks ? at.most : at.least - 1, -1};
    std::int32_t above = 0;
    if (!at.taken_whole() && !ranks) {  // many are equal: the interval goes on in indices, smaller ones first
        threshold.key = at.least;
        at = {1, static_cast<std::uint32_t>(n), at.remaining, at.inside};
        narrow<Threads>(storage, threads, own, keys, at, cuts, 1, [&](std::uint32_t x, std::int32_t i) {
            return x == threshold.key ? static_cast<std::uint32_t>(n - i) : 0u;
        });
        threshold.last = n - static_cast<std::int32_t>(at.least);
        visit_keys(own, keys, [&](std::uint32_t const(&key)[4], std::int32_t i) {
            WINNOW_UNROLL
            for (int j = 0; j < 4; ++j) above += key[j] == threshold.key && i + j <= threshold.last;
        });
    }

    visit_keys(own, keys, [&](std::uint32_t const(&key)[4], std::int32_t i) {
        bool any = false;
        WINNOW_UNROLL
        for (int j = 0; j < 4; ++j) above += key[j] > threshold.key, any |= key[j] - floor < ranked;
        if (!any) return;
        std::uint32_t const count = storage + offsetof(top_k_storage<Threads>, ranked_count);
        WINNOW_UNROLL
        for (int j = 0; j < 4; ++j)
            if (key[j] - floor < ranked) shared.ranked[ptx::next_shared(count)] = rank_of(key[j], i + j);
    });
    above = __reduce_add_sync(~0u, above);
    if (lane == 0) shared.warp_above[warp] = above;
    __syncthreads();
    above = __reduce_add_sync(~0u, lane < warp ? shared.warp_above[lane] : 0);  // in the ranges before
    if (ranks) {
        std::uint64_t const mine = shared.ranked[lane];  // 0 behind the last one
        std::int32_t higher = 0;
#pragma unroll 1
        for (int i = 0; i < at.inside; i += 4) {
            WINNOW_UNROLL
            for (int j = 0; j < 4; ++j) higher += shared.ranked[i + j] > mine;
        }
        std::int32_t const index = static_cast<std::int32_t>(~static_cast<std::uint32_t>(mine));
        above += __popc(__ballot_sync(~0u, higher < at.remaining && index < own.begin));
        int const last = __ffs(__ballot_sync(~0u, higher == at.remaining - 1)) - 1;
        threshold = {__shfl_sync(~0u, static_cast<std::uint32_t>(mine >> 32), last), __shfl_sync(~0u, index, last)};
    }
    std::uint32_t const lower = (1u << lane) - 1;
    visit_keys(own, keys, [&](std::uint32_t const(&key)[4], std::int32_t i) {
        std::uint32_t found = 0;  // how many, and from bit 4 on which
        std::int32_t position = above;
        WINNOW_UNROLL
        for (int j = 0; j < 4; ++j) {
            bool const takes = threshold.takes(key[j], i + j);
            position += __popc(__ballot_sync(~0u, takes) & lower);
            found += takes ? 1 + (16u << j) : 0;
        }
        above += __reduce_add_sync(~0u, found & 15);
        // Few keys are taken, and code that is fetched from memory costs microseconds: a loop.
#pragma unroll 1
        for (found >>= 4; found != 0; found &= found - 1) put(position++, i + __ffs(found) - 1);
    });
}

}  // namespace winnow
