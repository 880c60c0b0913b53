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

    /// Starts copying to rows `first_row` and on of a tile of `TileRows` rows.
    template <int TileRows, int HeadDim, class T>
    WINNOW_DEVICE void copy(std::uint32_t tile, int first_row, key_row_source<T> const& from) const {
        constexpr int chunks = HeadDim / 8, rows_at_once = 32 / chunks;
        int const lane = threadIdx.x % 32, chunk = lane % chunks, part = lane / chunks;
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
#pragma unroll 4
            for (int j = 0; j < smaller(Rows - 32 * i, 32) / rows_at_once; ++j) {
                int const row = j * rows_at_once + part;
                std::int32_t const outer = __shfl_sync(~0u, where[i].outer, row);
                std::int32_t const token = __shfl_sync(~0u, where[i].token, row);
                // A bad page reads as zeros.
                bool const seen = token >= 0 && static_cast<std::uint32_t>(outer) < from.outer_extent;
                std::int64_t const offset = seen ? outer * from.outer_stride + token * from.token_stride : 0;
                ptx::copy_async_16(tile + panel_offset<TileRows>(first_row + 32 * i + row, chunk),
                                   from.base + offset + chunk * 8, seen);
            }
        }
    }
};

}  // namespace winnow
