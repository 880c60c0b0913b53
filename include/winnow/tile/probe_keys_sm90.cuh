// probe_keys by warpgroup (sm_90a): four warps with keys of their own against the same query rows, at Hopper's full rate.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/wgmma.cuh"
#include "winnow/tile/panel.hpp"
#include "winnow/tile/probe_keys.cuh"

namespace winnow {

inline constexpr int warpgroup_rows = 64;  // query rows of one product: its columns

/// As score_rows, for whole groups of 64 rows; all four warps of the block do it together.
template <class T, int HeadDim, int Tiles>
WINNOW_DEVICE void score_rows_together(float (&score)[Tiles][2], probe_keys<HeadDim, Tiles> const& keys,
                                       std::int32_t const (&position)[Tiles][2], held_rows const& rows) {
    std::uint32_t const queries = ptx::shared_address(rows.queries), panel = rows.tiles * 8 * panel_row_bytes;
    for (std::int32_t n = 0; n < rows.tiles; n += warpgroup_rows / 8) {
        float product[Tiles][8][4];
        ptx::wgmma_fence();
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) {
            WINNOW_UNROLL
            for (int step = 0; step < HeadDim / 16; ++step) {
                uint4 const &low = keys.part[t][0][step / 2], &high = keys.part[t][1][step / 2];
                std::uint32_t const a[4] = {step % 2 ? low.z : low.x, step % 2 ? high.z : high.x,
                                            step % 2 ? low.w : low.y, step % 2 ? high.w : high.y};
                ptx::wgmma<T, ptx::major::k>(product[t], a,
                                             key_tile<64, panel_channels, atom_order::panels>::key_descriptor(
                                                 queries + step / 4 * panel + n * 8 * panel_row_bytes + step % 4 * 32),
                                             step != 0);
            }
            ptx::wgmma_commit();
        }
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) {
            if (t + 1 < Tiles)  // maxima of the first tile are taken while the second is multiplied
                ptx::wgmma_wait<Tiles - 1>();
            else
                ptx::wgmma_wait<0>();
            ptx::pin(product[t]);
            fold_rows(score[t], product[t], position[t], rows, n);
        }
    }
}

}  // namespace winnow
