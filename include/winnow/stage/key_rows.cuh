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

/// What addresses of rows are made from, in registers: read from the kernel's arguments through a pointer that is chosen at
/// run time, every row would wait for them.
template <class T>
struct key_row_source {
    T const* base;  ///< of the KV head
    std::int64_t outer_stride;
    std::int64_t token_stride;
    std::uint32_t outer_extent;
};

/// A warp's share of a step: `Rows` rows; lane l knows where rows l, l + 32, ... lie.
template <int Rows>
struct key_row_places {
    static constexpr int each = (Rows + 31) / 32;
    token_location where[each];  ///< token < 0: no row of the tile sees this key. Page ids as they were read

    /// Rows from `first` on, counted over the whole walk.
    template <class T>
    WINNOW_DEVICE void find(attend_arguments<T> const& a, key_walk const& walk, std::int32_t first) {
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
            std::int32_t const index = first + 32 * i + static_cast<int>(threadIdx.x % 32);
            granule const g = granule_at(walk, index / granule_keys);
            std::int32_t const position = g.first + index % granule_keys;
            where[i] = {0, -1};
            if (g.first < 0 || !seen_keys(walk, g.part).contains(position)) continue;
            where[i] = walk.linear ? token_location{walk.base.outer, walk.base.token + position}
                                   : locate_unchecked(a.params.kv, a.page_size, walk.request, position);
        }
    }

    /// Starts copying to rows `first_row` and on, a multiple of 8, of a tile.
    template <class Tile, int HeadDim, class T>
    WINNOW_DEVICE void copy(std::uint32_t tile, int first_row, key_row_source<T> const& from) const {
        constexpr int chunks = HeadDim / 8, at_once = 32 / chunks;  // rows that the warp copies with one instruction
        constexpr int period = at_once < 8 ? 8 / at_once : 1;       // instructions until the swizzle repeats
        int const lane = threadIdx.x % 32, chunk = lane % chunks, part = lane / chunks;
        // Each lane finds the addresses of its rows, 0 for zeros; the lanes that copy a row get it from there. A bad page
        // reads as zeros.
        std::uintptr_t address[each];
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
            bool const seen = where[i].token >= 0 && static_cast<std::uint32_t>(where[i].outer) < from.outer_extent;
            T const* const row = from.base + where[i].outer * from.outer_stride + where[i].token * from.token_stride;
            address[i] = seen ? reinterpret_cast<std::uintptr_t>(row) : 0;
        }
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
            std::uint32_t to = tile + Tile::row_offset(first_row + 32 * i, chunk / 8);
#pragma unroll 1
            for (int j = 0; j < smaller(Rows - 32 * i, 32); j += 8, to += Tile::next_rows) {
                WINNOW_UNROLL
                for (int k = 0; k < period; ++k) {
                    int const row = k * at_once + part;
                    std::uintptr_t const source = __shfl_sync(~0u, address[i], j + row);
                    ptx::copy_async_16(to + row * panel_row_bytes + (((chunk ^ row) & 7) << 4),
                                       reinterpret_cast<T const*>(source) + chunk * 8, source != 0);
                }
            }
        }
    }
};

}  // namespace winnow
