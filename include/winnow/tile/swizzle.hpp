// Where a row-major tile of 16-bit elements lies in shared memory so that ldmatrix and row copies do not conflict.
//
// Rows of D elements; the 16-byte chunk index is XORed with the row's low three bits, so 8 rows of one column hit
// 8 bank groups. Where two rows share 128 bytes, with the two bits above the lowest, which chooses one of the halves.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow {

/// Byte offset of chunk `chunk` (8 elements) of row `row`, for rows of `Columns` 16-bit elements; 32 or a multiple of 64.
template <int Columns>
WINNOW_HOST_DEVICE constexpr std::uint32_t swizzled(std::uint32_t row, std::uint32_t chunk) {
    static_assert(Columns == 32 || Columns % 64 == 0, "the swizzle permutes groups of 4 or 8 chunks");
    std::uint32_t const turn = Columns == 32 ? row >> 1 & 3u : row & 7u;
    return row * (Columns * 2) + ((chunk ^ turn) << 4);
}

/// Offset of chunk 2 * step + half of the same row, from the offset of chunk `half`: one XOR instead of a new address.
WINNOW_HOST_DEVICE constexpr std::uint32_t swizzled_step(std::uint32_t offset, std::uint32_t step) {
    return offset ^ (step << 5);
}

}  // namespace winnow
