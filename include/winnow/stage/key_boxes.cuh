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

/// Where a box lies in a tensor, as the maps of one loader count.
struct box_place {
    std::int32_t token;
    std::int32_t head;
    std::int32_t outer;
};

/// Copies all channels, `Panels` panels, a panel at a time.
template <class Tile, int Panels>
struct panel_boxes {
    std::uint32_t tile;  ///< shared address
    std::uint64_t* full;

    WINNOW_DEVICE static box_place at(key_maps const&, token_location where, std::int32_t head) {
        return {where.token, head, where.outer};
    }
    WINNOW_DEVICE void copy(CUtensorMap const& map, int row, box_place const& from) const {
#pragma unroll 1
        for (int p = 0; p < Panels; ++p)
            ptx::copy_box(tile + Tile::row_offset(row, p), map, p * panel_channels, from.token, from.head, from.outer,
                          full);
    }
};

/// Copies all channels at a time.
template <class Tile>
struct atom_boxes {
    std::uint32_t tile;
    std::uint64_t* full;

    WINNOW_DEVICE static box_place at(key_maps const& maps, token_location where, std::int32_t head) {
        return {where.token / granule_keys, where.outer * maps.heads_per_outer + head, 0};
    }
    WINNOW_DEVICE void copy(CUtensorMap const& map, int row, box_place const& from) const {
        ptx::copy_box(tile + Tile::row_offset(row, 0), map, 0, 0, 0, from.token, from.head, full);
    }
};

/// What one lane copies of a step. It is made before the step's slot is waited for, and a step ahead, so that the compiler
/// leaves it there: between the wait and the copies every instruction of this lone warp is waited for.
struct lane_boxes {
    enum class kind : std::int32_t { none, box, rows } what;
    CUtensorMap const* map;  ///< of a box
    box_place from;
    granule_place granule;  ///< of rows
    std::int32_t kv_head;
};

/// Share of the lane with granule `g`; lane l has granule l of `Granules`. A whole warp calls.
template <int Granules, class Boxes>
WINNOW_DEVICE lane_boxes boxes_of(key_maps const& maps, granule_place const& g, std::int32_t kv_head) {
    int const lane = threadIdx.x % 32;
    bool const whole = g.seen_begin == 0 && g.seen_end == granule_keys, hidden = g.seen_begin >= g.seen_end;
    std::int32_t const outer = __shfl_up_sync(~0u, g.where.outer, 1), token = __shfl_up_sync(~0u, g.where.token, 1);
    bool const behind = g.where.outer == outer && g.where.token == token + granule_keys;
    std::uint32_t const wholes = __ballot_sync(~0u, whole);
    constexpr std::uint32_t all = (2u << (Granules - 1)) - 1;  // bits of the granules
    std::uint32_t const follows = __ballot_sync(~0u, behind) & wholes & wholes << 1 & all;
    bool const one = follows == (all & ~1u);
    int const run = one ? lane == 0 ? 0 : -1 : run_of(follows);
    lane_boxes r;
    r.what = lane >= Granules || run < 0 ? lane_boxes::kind::none
             : whole || hidden           ? lane_boxes::kind::box
                                         : lane_boxes::kind::rows;
    r.map = one ? &maps.step : &maps.run[larger(run, 0)];
    r.from = hidden ? Boxes::at(maps, {0, 0}, no_head) : Boxes::at(maps, g.where, kv_head);
    r.granule = g;
    r.kv_head = kv_head;
    return r;
}

/// Copies a step to rows 0, 8, ... of `to`. Whatever the granules are, the same number of bytes arrives. `rows` copies
/// single rows.
template <class Boxes, class RowBoxes>
WINNOW_DEVICE void copy_granules(Boxes const& to, RowBoxes const& rows, key_maps const& maps, lane_boxes const& mine) {
    int const lane = threadIdx.x % 32;
    granule_place const& g = mine.granule;
    if (mine.what == lane_boxes::kind::box) to.copy(*mine.map, lane * granule_keys, mine.from);
    if (mine.what != lane_boxes::kind::rows) return;
#pragma unroll 1
    for (int row = 0; row < granule_keys; ++row)
        rows.copy(maps.row, lane * granule_keys + row,
                  RowBoxes::at(maps, {g.where.outer, g.where.token + row},
                               row >= g.seen_begin && row < g.seen_end ? mine.kv_head : no_head));
}

}  // namespace winnow
