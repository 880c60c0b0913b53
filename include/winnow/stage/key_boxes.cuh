// Brings a step's keys or values into shared memory by TMA, as few boxes as the walk allows.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/bulk_copy.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/attend_work.cuh"
#include "winnow/stage/key_walk.cuh"
#include "winnow/tile/panel.hpp"

namespace winnow {

/// Runs of 1, 2, 4 and 8 granules have a box of their own.
inline constexpr int run_sizes = 4;

/// Maps of one tensor [outer, token, kv_head, channel] by box: 64 channels of one head, and as many tokens as a step, a run
/// of granules, or one.
struct key_maps {
    CUtensorMap step;
    CUtensorMap run[run_sizes];
    CUtensorMap row;
};

/// A head that no tensor has: boxes there arrive as zeros.
inline constexpr std::int32_t no_head = 1 << 30;

/// One granule as the lane that copies it knows it: `what` with the keys [seen_begin, seen_end) of its 8 that some row of
/// the tile sees, and where its first key lies. Other keys arrive as zeros: what memory holds there may be NaN, which a
/// probability of 0 would not hide.
struct granule_place {
    granule what;
    std::int32_t seen_begin;
    std::int32_t seen_end;
    token_location where;
};

/// Place of granule `index` of the walk. Pages hold whole granules.
template <class T>
WINNOW_DEVICE granule_place place_of(attend_arguments<T> const& a, key_walk const& walk, std::int32_t index) {
    granule_place g{granule_at(walk, index), 0, 0, {0, 0}};
    if (g.what.first < 0) return g;
    key_range const seen = seen_keys(walk, g.what.part);
    g.seen_begin = smaller(larger(seen.begin - g.what.first, 0), granule_keys);
    g.seen_end = smaller(larger(seen.end - g.what.first, 0), granule_keys);
    if (g.seen_begin >= g.seen_end) return g;
    g.where = location_of(a, walk, g.what.first);
    if (g.where.outer < 0) g.seen_end = g.seen_begin;  // a bad page reads as zeros
    return g;
}

/// Largest run, as log2 of its granules, that starts at this lane's granule: neighbours in memory that are seen whole.
/// Runs start at multiples of their size. -1: this lane's granule belongs to a run of an earlier lane.
template <int Granules>
WINNOW_DEVICE int run_of(granule_place const& g, bool whole) {
    int const lane = threadIdx.x % 32;
    bool head = true, joined = whole && lane < Granules;  // head of a run; the run at this level is unbroken
    int log = 0;
    WINNOW_UNROLL
    for (int level = 1; level < run_sizes; ++level) {
        int const half = 1 << (level - 1);
        // The upper half must be a run itself and follow this one.
        bool const other = __shfl_down_sync(~0u, joined, half);
        std::int32_t const outer = __shfl_down_sync(~0u, g.where.outer, half);
        std::int32_t const token = __shfl_down_sync(~0u, g.where.token, half);
        bool const starts = lane % (2 * half) == 0;
        bool const grows =
            starts && joined && other && outer == g.where.outer && token == g.where.token + half * granule_keys;
        bool const taken = __shfl_up_sync(~0u, grows, half) && lane % (2 * half) == half;
        if (taken) head = false;
        if (grows) log = level;
        joined = grows;
    }
    return head ? log : -1;
}

/// Copies panels [first_panel, first_panel + Panels) of a step of `Keys` keys to `tile`. Lane l has granule l; a whole warp
/// calls. The bytes that arrive on `full` are Panels * Keys * panel_row_bytes whatever the granules are.
template <int Keys, int Panels>
WINNOW_DEVICE void copy_step(std::uint32_t tile, int first_panel, key_maps const& maps, granule_place const& g,
                             std::int32_t kv_head, std::uint64_t* full) {
    constexpr int granules = Keys / granule_keys;
    int const lane = threadIdx.x % 32;
    bool const whole = g.seen_begin == 0 && g.seen_end == granule_keys;
    std::int32_t const outer = __shfl_sync(~0u, g.where.outer, 0), token = __shfl_sync(~0u, g.where.token, 0);
    bool const follows = whole && g.where.outer == outer && g.where.token == token + lane * granule_keys;
    bool const one_run = __all_sync(~0u, follows || lane >= granules);
    std::uint32_t const start = tile + static_cast<std::uint32_t>(first_panel * Keys * panel_row_bytes);
    if (one_run) {
        if (lane == 0) {
#pragma unroll 1
            for (int p = 0; p < Panels; ++p)
                ptx::copy_box(start + p * Keys * panel_row_bytes, maps.step, (first_panel + p) * panel_channels, token,
                              kv_head, outer, full);
        }
        return;
    }
    int const run = run_of<granules>(g, whole);
    if (lane >= granules || run < 0) return;
    std::uint32_t const mine = start + lane * granule_keys * panel_row_bytes;
    bool const hidden = g.seen_begin >= g.seen_end;
    if (whole || hidden) {
        std::int32_t const head = hidden ? no_head : kv_head;
#pragma unroll 1
        for (int p = 0; p < Panels; ++p)
            ptx::copy_box(mine + p * Keys * panel_row_bytes, maps.run[run], (first_panel + p) * panel_channels,
                          g.where.token, head, g.where.outer, full);
    } else {
#pragma unroll 1
        for (int i = 0; i < Panels * granule_keys; ++i) {
            int const p = i / granule_keys, row = i % granule_keys;
            bool const seen = row >= g.seen_begin && row < g.seen_end;
            ptx::copy_box(mine + p * Keys * panel_row_bytes + row * panel_row_bytes, maps.row,
                          (first_panel + p) * panel_channels, g.where.token + row, seen ? kv_head : no_head,
                          g.where.outer, full);
        }
    }
}

}  // namespace winnow
