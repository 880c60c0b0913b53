// Brings a step's keys or values into shared memory by cp.async, each key's row by itself: any page size, any stride.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/attend_work.cuh"
#include "winnow/stage/key_walk.cuh"
#include "winnow/tile/panel.hpp"

namespace winnow {

/// A warp's share of a step: `Rows` rows; lane l knows where rows l, l + 32, ... lie.
template <int Rows>
struct key_row_places {
    static constexpr int each = (Rows + 31) / 32;
    token_location where[each];    ///< token < 0: no row of the tile sees this key. Page ids as they were read
    std::uintptr_t address[each];  ///< of the rows; 0: zeros

    /// Reads where the rows from `first` on lie, counted over the whole walk. Memory is asked for all list entries, then for
    /// all page ids: where each row branches by itself, it waits for the one before. Page ids are first used by resolve.
    template <class T>
    WINNOW_DEVICE void find(attend_arguments<T> const& a, key_walk const& shared_walk, std::int32_t first) {
        kv_index const& kv = a.params.kv;
        key_walk const walk = shared_walk;  // read once: not field by field in each branch
        std::uint32_t const mine = static_cast<std::uint32_t>(first) + threadIdx.x % 32;
        std::int32_t block[each], position[each];
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) block[i] = list_entry(walk, (mine + 32 * i) / granule_keys);
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
            std::uint32_t const index = mine + 32 * i;
            granule const g = granule_at(walk, index / granule_keys, [&](std::int32_t) { return block[i]; });
            position[i] = g.first + index % granule_keys;
            if (g.first < 0 || !seen_keys(walk, g.part).contains(position[i])) position[i] = -1;
        }
        if (walk.linear) {
            WINNOW_UNROLL
            for (int i = 0; i < each; ++i)
                where[i] = {walk.base.outer, position[i] < 0 ? -1 : walk.base.token + position[i]};
            return;
        }
        std::int32_t const* const pages = kv.pages + first_entry(kv, walk.request);
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
            std::int32_t const page = a.page_size.quotient(larger(position[i], 0));
            where[i] = {0, -1};
            if (position[i] >= 0) where[i] = {pages[page], position[i] - page * a.page_size.divisor};
        }
    }

    /// Makes addresses of them. A bad page reads as zeros.
    template <class T>
    WINNOW_DEVICE void resolve(tensor_view<T const, 4> const& rows, std::int32_t kv_head) {
        std::uint32_t const pages = static_cast<std::uint32_t>(rows.extent[0]);
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
            bool const seen = where[i].token >= 0 && static_cast<std::uint32_t>(where[i].outer) < pages;
            T const* const row = rows.data + kv_head * rows.stride[2] + where[i].outer * rows.stride[0] +
                                 where[i].token * rows.stride[1];
            address[i] = seen ? reinterpret_cast<std::uintptr_t>(row) : 0;
        }
    }

    /// Starts copying to rows `first_row` and on, a multiple of 8, of a tile.
    template <class Tile, int HeadDim>
    WINNOW_DEVICE void copy(std::uint32_t tile, int first_row) const {
        // Eight lanes copy a row of a panel. The lanes of a run of 8 rows know its addresses, so that a shuffle names the
        // same lane of each run, an address serves all panels, and the swizzle is the same number for all lanes. Where only
        // 8 rows are left, each eight lanes copy a panel of them.
        constexpr int panels = HeadDim / panel_channels;
        static_assert(Rows % 32 == 0 || (Rows % 32 == 8 && panels == 4), "every lane copies");
        // Shuffles that are waited for together: more would take more registers than there are.
        constexpr int batch = 4;
        int const lane = threadIdx.x % 32, chunk = lane % 8;
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
            bool const whole = 32 * i + 32 <= Rows;
            int const run = whole ? lane - chunk : 0, first_panel = whole ? 0 : lane / 8;
            std::uint32_t const to = tile + Tile::row_offset(first_row + run, first_panel) + (chunk << 4);
            std::uint32_t const exist = __ballot_sync(~0u, address[i] != 0) >> run;
            WINNOW_UNROLL
            for (int first = 0; first < 8; first += batch) {
                std::uintptr_t from[batch];
                WINNOW_UNROLL
                for (int k = 0; k < batch; ++k)
                    from[k] = __shfl_sync(~0u, address[i], first + k, whole ? 8 : 32) + (8 * first_panel + chunk) * 16;
                WINNOW_UNROLL
                for (int k = first; k < first + batch; ++k) WINNOW_UNROLL
                for (int panel = 0; panel < (whole ? panels : 1); ++panel)
                    ptx::copy_async_16((to ^ (k << 4)) + Tile::row_offset(32 * i + k, panel),
                                       reinterpret_cast<void const*>(from[k - first] + panel * panel_row_bytes),
                                       (exist & 1u << k) != 0);
            }
        }
    }
};

}  // namespace winnow
