// The two products of attention where keys and values are fp8 e4m3: widened exactly in the registers of the lanes that
// multiply, without another pass through shared memory.
//
// Such a tile lies as one of half as many 16-bit elements, and ldmatrix takes two bytes for one of those. So a lane gets
// other channels than mma.sync numbers: for every 16 of them, lane q of four gets 4 q.. 4 q + 3.
//   scores  it takes them for contraction indices 2 q, 2 q + 1, 2 q + 8, 2 q + 9, and queries alike: no order matters
//   output  it has two channels for two keys: one tile of 8 columns has the even channels, the next the odd ones
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/matrix_move.cuh"
#include "winnow/ptx/mma_sync.cuh"
#include "winnow/ptx/registers.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// Puts 16 swizzled query rows into the order in which score_widened reads them: the four registers of lane 0, those of
/// lane 1, .. for the first 16 channels, then for the next. All threads call; needs a barrier before and behind.
template <int HeadDim, int Threads, class T>
WINNOW_DEVICE void order_queries(T* queries) {
    static_assert(HeadDim * 2 % Threads == 0, "every thread moves equally many");
    auto* const bytes = reinterpret_cast<unsigned char*>(queries);
    uint4 fragment[HeadDim * 2 / Threads];
    WINNOW_UNROLL
    for (int i = 0; i < HeadDim * 2 / Threads; ++i) {
        int const step = (i * Threads + threadIdx.x) / 32, lane = threadIdx.x % 32;
        auto const channels = [&](int row) {
            return *reinterpret_cast<uint2 const*>(bytes + swizzled<HeadDim>(row, 2 * step + lane % 4 / 2) +
                                                   lane % 2 * 8);
        };
        uint2 const x = channels(lane / 4), y = channels(lane / 4 + 8);
        fragment[i] = make_uint4(x.x, y.x, x.y, y.y);
    }
    __syncthreads();
    WINNOW_UNROLL
    for (int i = 0; i < HeadDim * 2 / Threads; ++i)
        reinterpret_cast<uint4*>(bytes)[i * Threads + threadIdx.x] = fragment[i];
}

/// score[n] = the 16 rows that order_queries left at `queries` times keys 8 n.. of `keys`, the address of the warp's first.
template <class T, int HeadDim, int KeyTiles>
WINNOW_DEVICE void score_widened(float (&score)[KeyTiles][4], std::uint32_t queries, std::uint32_t keys) {
    static_assert(KeyTiles % 2 == 0, "ldmatrix brings two key tiles at a time");
    int const lane = threadIdx.x % 32;
    std::uint32_t const query_base = ptx::opaque(queries + lane * 16);
    std::uint32_t const key_base =
        ptx::opaque(keys + swizzled<HeadDim / 2>((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1));
    WINNOW_UNROLL
    for (int n = 0; n < KeyTiles; ++n) WINNOW_UNROLL
    for (int e = 0; e < 4; ++e) score[n][e] = 0.0f;
    WINNOW_UNROLL
    for (int step = 0; step < HeadDim / 32; ++step) {
        std::uint32_t a[2][4];
        WINNOW_UNROLL
        for (int half = 0; half < 2; ++half) {
            uint4 const v = ptx::load_shared(query_base + (2 * step + half) * 512);
            a[half][0] = v.x, a[half][1] = v.y, a[half][2] = v.z, a[half][3] = v.w;
        }
        WINNOW_UNROLL
        for (int n = 0; n < KeyTiles; n += 2) {
            std::uint32_t b[4];
            ptx::load_matrices(b, swizzled_step(key_base, step) + n * 8 * HeadDim);
            WINNOW_UNROLL
            for (int i = 0; i < 4; ++i)
                ptx::multiply_add<T>(score[n + i / 2], a[i % 2], ptx::widen<T>(b[i]), ptx::widen<T>(b[i] >> 16));
        }
    }
}

/// Two channels of one key and the same two of the next, in the bytes of `pairs`: both keys of each channel, as T.
template <class T>
WINNOW_DEVICE void widen_turned(std::uint32_t (&column)[2], std::uint32_t pairs) {
    if constexpr (std::is_same_v<T, bf16>) {  // which come by way of floats, and these can be packed in any order
        float2 const x = ptx::unpack<fp16>(ptx::widen_e4m3(pairs)), y = ptx::unpack<fp16>(ptx::widen_e4m3(pairs >> 16));
        column[0] = ptx::pack<bf16>(x.x, y.x), column[1] = ptx::pack<bf16>(x.y, y.y);
    } else {
        column[0] = ptx::widen<T>(__byte_perm(pairs, 0, 0x4420)),
        column[1] = ptx::widen<T>(__byte_perm(pairs, 0, 0x4431));
    }
}

/// output += probabilities times the values of the same keys; widened_output finds the channels in it.
template <class T, int HeadDim, int KeyTiles>
WINNOW_DEVICE void accumulate_widened(float (&output)[HeadDim / 8][4], std::uint32_t const (&probability)[KeyTiles][2],
                                      std::uint32_t values) {
    int const lane = threadIdx.x % 32;
    std::uint32_t const value_base = ptx::opaque(values + swizzled<HeadDim / 2>(lane & 15, lane >> 4));
    WINNOW_UNROLL
    for (int n = 0; n < KeyTiles; n += 2) {
        std::uint32_t const a[4] = {probability[n][0], probability[n][1], probability[n + 1][0], probability[n + 1][1]};
        WINNOW_UNROLL
        for (int step = 0; step < HeadDim / 32; ++step) {
            std::uint32_t b[4];
            ptx::load_matrices_transposed(b, swizzled_step(value_base, step) + n * 8 * HeadDim);
            WINNOW_UNROLL
            for (int d = 0; d < 4; d += 2) {
                std::uint32_t first[2], second[2];  // 8 keys, the next 8
                widen_turned<T>(first, b[d]);
                widen_turned<T>(second, b[d + 1]);
                ptx::multiply_add<T>(output[4 * step + d], a, first[0], second[0]);
                ptx::multiply_add<T>(output[4 * step + d + 1], a, first[1], second[1]);
            }
        }
    }
}

/// Channels 16 group + 4 (lane % 4).. of row lane / 4 + 8 half, from what accumulate_widened leaves.
template <int OutputTiles>
WINNOW_DEVICE float4 widened_output(float const (&output)[OutputTiles][4], int group, int half) {
    float const(&even)[4] = output[2 * group], (&odd)[4] = output[2 * group + 1];
    return make_float4(even[2 * half], odd[2 * half], even[2 * half + 1], odd[2 * half + 1]);
}

}  // namespace winnow
