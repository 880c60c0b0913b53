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

/// Offset of key `index` of the walk in `view`, one of its tensors, without the head's; no_row for keys that no row of the
/// tile sees.
template <class T>
WINNOW_DEVICE std::int64_t row_offset_of(attend_arguments<T> const& a, key_walk const& walk, std::int32_t index,
                                         tensor_view<T const, 4> const& view) {
    granule const g = granule_at(walk, index / granule_keys);
    std::int32_t const position = g.first + index % granule_keys;
    if (g.first < 0 || !seen_keys(walk, g.part).contains(position)) return no_row;
    token_location const at = location_of(a, walk, position);
    return at.outer < 0 ? no_row : at.outer * view.stride[0] + at.token * view.stride[1];
}

/// A warp's share of a step: `Rows` rows of `HeadDim` channels; lane l knows the offsets of rows l, l + 32, ....
template <int Rows>
struct key_row_offsets {
    static constexpr int each = (Rows + 31) / 32;
    std::int64_t offset[each];

    /// Rows from `first` on, counted over the whole walk.
    template <class T>
    WINNOW_DEVICE void find(attend_arguments<T> const& a, key_walk const& walk, std::int32_t first,
                            tensor_view<T const, 4> const& view) {
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i)
            offset[i] = row_offset_of(a, walk, first + 32 * i + static_cast<int>(threadIdx.x % 32), view);
    }

    /// Starts copying to rows `first_row` and on of a tile of `TileRows` rows.
    template <int TileRows, int HeadDim, class T>
    WINNOW_DEVICE void copy(std::uint32_t tile, int first_row, T const* base) const {
        constexpr int chunks = HeadDim / 8, rows_at_once = 32 / chunks;
        int const lane = threadIdx.x % 32, chunk = lane % chunks, part = lane / chunks;
        WINNOW_UNROLL
        for (int i = 0; i < each; ++i) {
#pragma unroll 2
            for (int j = 0; j < smaller(Rows - 32 * i, 32) / rows_at_once; ++j) {
                int const row = j * rows_at_once + part;
                std::int64_t const from = __shfl_sync(~0u, offset[i], row);
                bool const seen = from != no_row;
                ptx::copy_async_16(tile + panel_offset<TileRows>(first_row + 32 * i + row, chunk),
                                   base + (seen ? from : 0) + chunk * 8, seen);
            }
        }
    }
};

}  // namespace winnow
