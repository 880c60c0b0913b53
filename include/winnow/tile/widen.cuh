// Widens a tile of fp8 e4m3 rows to bf16 or fp16, exactly, into the swizzled place where products read it.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// `to`: `Keys` rows of `HeadDim` elements, swizzled; `from`: the same rows one after the other. All threads call; needs a
/// barrier before and behind. About 5 instructions for two elements, a third of what a step costs beside its loads.
template <class T, int Keys, int HeadDim, int Threads>
WINNOW_DEVICE void widen_tile(T* to, fp8_e4m3 const* from) {
    constexpr int chunks = HeadDim / 16;  // of 16 bytes, which become two of the wider tile
    static_assert(Keys * chunks % Threads == 0, "every thread widens equally many");
    auto* const bytes = reinterpret_cast<unsigned char*>(to);
    WINNOW_UNROLL
    for (int pass = 0; pass < Keys * chunks / Threads; ++pass) {
        int const i = pass * Threads + static_cast<int>(threadIdx.x), row = i / chunks, chunk = i % chunks;
        uint4 const v = reinterpret_cast<uint4 const*>(from)[i];
        *reinterpret_cast<uint4*>(bytes + swizzled<HeadDim>(row, 2 * chunk)) =
            make_uint4(ptx::widen<T>(v.x), ptx::widen<T>(v.x >> 16), ptx::widen<T>(v.y), ptx::widen<T>(v.y >> 16));
        *reinterpret_cast<uint4*>(bytes + swizzled<HeadDim>(row, 2 * chunk + 1)) =
            make_uint4(ptx::widen<T>(v.z), ptx::widen<T>(v.z >> 16), ptx::widen<T>(v.w), ptx::widen<T>(v.w >> 16));
    }
}

}  // namespace winnow
