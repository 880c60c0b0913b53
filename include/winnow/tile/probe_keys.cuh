// Products of keys anywhere in memory with query rows in shared memory: 16 keys a tile, in registers, never staged.
//
// Keys are the left operand of mma.sync and stay in registers; rows of queries stream by as the right one. A product
// sums over channels, so their order is free: lane 4 g + q reads chunks q, q + 4, .. (of 8 channels) of key g, and of
// query row g, and takes a chunk as the operands of two steps. 16-byte loads thereby need no ldmatrix, no staging in
// shared memory and no barrier.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/min_max.cuh"
#include "winnow/ptx/mma_sync.cuh"
#include "winnow/tile/probe_layout.hpp"

namespace winnow {

/// Keys of `Tiles` tiles: [tile][rows g and g + 8][chunk 4 j + q].
template <int HeadDim, int Tiles>
struct probe_keys {
    uint4 part[Tiles][2][HeadDim / 32];
};

/// This lane's chunks of the key at `key` (its first channel); null gives zeros.
template <class T, int HeadDim>
WINNOW_DEVICE void load_key(uint4 (&part)[HeadDim / 32], T const* key) {
    uint4 const* const at = reinterpret_cast<uint4 const*>(key) + threadIdx.x % 4;
    WINNOW_UNROLL
    for (int j = 0; j < HeadDim / 32; ++j) part[j] = key != nullptr ? at[4 * j] : make_uint4(0, 0, 0, 0);
}

/// The same of a key in fp8, which waits in every other part for widen_keys: 16 channels a load, see widened_place.
template <class T, int HeadDim>
WINNOW_DEVICE void load_key(uint4 (&part)[HeadDim / 32], fp8_e4m3 const* key) {
    uint4 const* const at = reinterpret_cast<uint4 const*>(key) + threadIdx.x % 4;
    WINNOW_UNROLL
    for (int i = 0; i < HeadDim / 64; ++i) part[2 * i] = key != nullptr ? at[4 * i] : make_uint4(0, 0, 0, 0);
}

/// Widens keys in fp8 to T, exactly, once all of them are under way: a key that is widened where it is loaded keeps the
/// next one waiting.
template <class T, int HeadDim, int Tiles>
WINNOW_DEVICE void widen_keys(probe_keys<HeadDim, Tiles>& keys) {
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) WINNOW_UNROLL
    for (int i = 0; i < HeadDim / 64; ++i) {
        uint4(&part)[HeadDim / 32] = keys.part[t][h];
        uint4 const v = part[2 * i];
        part[2 * i] =
            make_uint4(ptx::widen<T>(v.x), ptx::widen<T>(v.x >> 16), ptx::widen<T>(v.y), ptx::widen<T>(v.y >> 16));
        part[2 * i + 1] =
            make_uint4(ptx::widen<T>(v.z), ptx::widen<T>(v.z >> 16), ptx::widen<T>(v.w), ptx::widen<T>(v.w >> 16));
    }
}

/// product[tile][2 h + e] += key g + 8 h of the tile times query row 2 q + e of the eight at `queries`, whose pairs of
/// channels pass through `part`.
template <class T, int HeadDim, int Tiles, class Part>
WINNOW_DEVICE void multiply_rows(float (&product)[Tiles][4], probe_keys<HeadDim, Tiles> const& keys,
                                 unsigned char const* queries, Part part) {
    std::uint32_t const lane = threadIdx.x % 32;
    unsigned char const* const even = queries + query_chunk_offset<HeadDim>(lane / 4, lane % 4);
    unsigned char const* const odd = queries + query_chunk_offset<HeadDim>(lane / 4, lane % 4 + 4);
    WINNOW_UNROLL
    for (int j = 0; j < HeadDim / 32; ++j) {
        uint4 const row = *reinterpret_cast<uint4 const*>((j % 2 == 0 ? even : odd) + j / 2 * 128);
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) {
            uint4 const &low = keys.part[t][0][j], &high = keys.part[t][1][j];
            std::uint32_t const first[4] = {low.x, high.x, low.y, high.y};
            std::uint32_t const second[4] = {low.z, high.z, low.w, high.w};
            ptx::multiply_add<T>(product[t], first, part(row.x), part(row.y));
            ptx::multiply_add<T>(product[t], second, part(row.z), part(row.w));
        }
    }
}

/// Query rows in shared memory that keys are scored against.
struct held_rows {
    unsigned char const* queries;  ///< see query_chunk_offset
    std::int32_t const* looking;   ///< position each row looks from
    std::int32_t tiles;            ///< of eight rows
    bool all_visible;              ///< every row may see every key, so that no position needs to be compared
};

/// What stands for a chunk: one key, or two that bound all its keys from above and from below, channel by channel.
template <int HeadDim, int Tiles>
struct probe_bounds {
    probe_keys<HeadDim, Tiles> high;
    probe_keys<HeadDim, Tiles> low;
};

template <class T, int HeadDim, int Tiles>
WINNOW_DEVICE void multiply(float (&product)[Tiles][4], probe_keys<HeadDim, Tiles> const& keys,
                            unsigned char const* queries) {
    multiply_rows<T>(product, keys, queries, [](std::uint32_t pair) { return pair; });
}

/// The most that a key within bounds can give: channels where the query is positive take the upper one.
template <class T, int HeadDim, int Tiles>
WINNOW_DEVICE void multiply(float (&product)[Tiles][4], probe_bounds<HeadDim, Tiles> const& bounds,
                            unsigned char const* queries) {
    multiply_rows<T>(product, bounds.high, queries, [](std::uint32_t pair) { return ptx::maximum<T>(pair, 0u); });
    multiply_rows<T>(product, bounds.low, queries, [](std::uint32_t pair) { return ptx::minimum<T>(pair, 0u); });
}

/// score[h] = max of itself and the products of key g + 8 h with the rows of `Count` groups of eight from group `first`
/// on that may see it. NaN never wins.
template <int Count>
WINNOW_DEVICE void fold_rows(float (&score)[2], float const (&product)[Count][4], std::int32_t const (&position)[2],
                             held_rows const& rows, std::int32_t first) {
    WINNOW_UNROLL
    for (int n = 0; n < Count; ++n) WINNOW_UNROLL
    for (int e = 0; e < 2; ++e) {
        if (rows.all_visible) {
            score[0] = fmaxf(score[0], product[n][e]);
            score[1] = fmaxf(score[1], product[n][2 + e]);
        } else {
            std::int32_t const looking = rows.looking[(first + n) * 8 + threadIdx.x % 4 * 2 + e];
            if (position[0] <= looking) score[0] = fmaxf(score[0], product[n][e]);
            if (position[1] <= looking) score[1] = fmaxf(score[1], product[n][2 + e]);
        }
    }
}

/// score[tile][h] = max of itself and, over this lane's rows that may see key g + 8 h at `position`, their products
/// with it. NaN never wins. quad_maximum brings the lanes together.
template <class T, int HeadDim, class Keys, int Tiles>
WINNOW_DEVICE void score_rows(float (&score)[Tiles][2], Keys const& keys, std::int32_t const (&position)[Tiles][2],
                              held_rows const& rows) {
#pragma unroll 1
    for (std::int32_t n = 0; n < rows.tiles; ++n) {
        float product[Tiles][4];
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
        for (int e = 0; e < 4; ++e) product[t][e] = 0.0f;
        multiply<T>(product, keys, rows.queries + n * 8 * HeadDim * 2);
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) {
            float const one[1][4] = {{product[t][0], product[t][1], product[t][2], product[t][3]}};
            fold_rows(score[t], one, position[t], rows, n);
        }
    }
}

/// Maximum over the four lanes that hold products of the same keys.
template <int Tiles>
WINNOW_DEVICE void quad_maximum(float (&score)[Tiles][2]) {
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) WINNOW_UNROLL
    for (int o = 1; o < 4; o *= 2) score[t][h] = fmaxf(score[t][h], __shfl_xor_sync(~0u, score[t][h], o));
}

}  // namespace winnow
