// Brings a step's keys or values into shared memory by TMA, as few boxes as the walk allows.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <limits>

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

/// Maps of one tensor [outer, token, kv_head, channel] by box: one head, and as many tokens as a step, a run of granules,
/// or one. Maps of atoms see axes [channel, row of 8, panel, eight, head], all outer
/// entries' heads one behind the other: heads_per_outer apart.
struct key_maps {
    CUtensorMap step;
    CUtensorMap run[run_sizes];
    CUtensorMap row;  ///< 64 channels of one row, axes [channel, token, head, outer]
    std::int32_t heads_per_outer;
};

/// A head that no tensor has: boxes there arrive as zeros.
inline constexpr std::int32_t no_head = std::numeric_limits<std::int32_t>::max();

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

/// Largest run, as log2 of its granules, that starts at this lane's granule. `follows`: bit l is set where lane l's granule
/// is whole and lies behind lane l - 1's whole one. Runs start at multiples of their size. -1: this lane's granule belongs
/// to a run of an earlier lane.
WINNOW_DEVICE int run_of(std::uint32_t follows) {
    int const lane = threadIdx.x % 32;
    int log = 0;
    WINNOW_UNROLL
    for (int level = 1; level < run_sizes; ++level) {
        int const size = 1 << level, first = lane & -size;
        std::uint32_t const others = ((2u << (size - 2)) - 1) << 1 << first;  // all of the run but its first
        if ((follows & others) == others) log = lane == first ? level : -1;
    }
    return log;
}

/// Copies all channels, `Panels` panels, a panel at a time.
template <class Tile, int Panels>
struct panel_boxes {
    std::uint32_t tile;  ///< shared address
    key_maps const& maps;
    std::uint64_t* full;

    WINNOW_DEVICE void copy(CUtensorMap const& map, int row, token_location from, std::int32_t head) const {
#pragma unroll 1
        for (int p = 0; p < Panels; ++p)
            ptx::copy_box(tile + Tile::row_offset(row, p), map, p * panel_channels, from.token, head, from.outer, full);
    }
};

/// Copies all channels at a time.
template <class Tile>
struct atom_boxes {
    std::uint32_t tile;
    key_maps const& maps;
    std::uint64_t* full;

    WINNOW_DEVICE void copy(CUtensorMap const& map, int row, token_location from, std::int32_t head) const {
        ptx::copy_box(tile + Tile::row_offset(row, 0), map, 0, 0, 0, from.token / granule_keys,
                      from.outer * maps.heads_per_outer + head, full);
    }
};

/// Copies `Granules` granules to rows 0, 8, ... of `to`. Lane l has granule l; a whole warp calls. Whatever the granules
/// are, the same number of bytes arrives. `rows` copies single rows.
template <int Granules, class Boxes, class RowBoxes>
WINNOW_DEVICE void copy_granules(Boxes const& to, RowBoxes const& rows, granule_place const& g, std::int32_t kv_head) {
    int const lane = threadIdx.x % 32;
    bool const whole = g.seen_begin == 0 && g.seen_end == granule_keys;
    std::int32_t const outer = __shfl_up_sync(~0u, g.where.outer, 1), token = __shfl_up_sync(~0u, g.where.token, 1);
    bool const behind = g.where.outer == outer && g.where.token == token + granule_keys;
    std::uint32_t const wholes = __ballot_sync(~0u, whole);
    std::uint32_t const follows = __ballot_sync(~0u, behind) & wholes & wholes << 1;
    constexpr std::uint32_t all = (2u << (Granules - 1)) - 1;  // bits of the granules
    if ((follows & all) == (all & ~1u)) {
        if (lane == 0) to.copy(to.maps.step, 0, g.where, kv_head);
        return;
    }
    int const run = run_of(follows & all);
    if (lane >= Granules || run < 0) return;
    bool const hidden = g.seen_begin >= g.seen_end;
    if (whole || hidden) {
        to.copy(to.maps.run[run], lane * granule_keys, hidden ? token_location{0, 0} : g.where,
                hidden ? no_head : kv_head);
        return;
    }
#pragma unroll 1
    for (int row = 0; row < granule_keys; ++row)
        rows.copy(to.maps.row, lane * granule_keys + row, {g.where.outer, g.where.token + row},
                  row >= g.seen_begin && row < g.seen_end ? kv_head : no_head);
}

}  // namespace winnow
