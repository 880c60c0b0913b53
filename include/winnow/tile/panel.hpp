// How a tile of 64-channel panels lies in shared memory: as TMA writes it with 128-byte swizzle and as wgmma reads it.
//
// A panel holds 64 channels of R rows, 128 bytes a row; a head of D channels is D / 64 panels one behind the other. The
// 16-byte chunk index is XORed with the low three bits of the row, which are address bits 7 to 9: panels must lie at
// multiples of 1024 bytes.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow {

/// Channels, and bytes of a row, of one panel.
inline constexpr int panel_channels = 64;
inline constexpr int panel_row_bytes = 128;

/// Byte offset of chunk `chunk` (8 elements) of row `row` in a tile of `Rows` rows.
template <int Rows>
WINNOW_HOST_DEVICE constexpr std::uint32_t panel_offset(std::uint32_t row, std::uint32_t chunk) {
    return (chunk / 8 * Rows + row) * panel_row_bytes + (((chunk ^ row) & 7u) << 4);
}

/// wgmma's descriptor of a swizzled operand at shared address `address`; `leading` and `stride` in bytes. Steps along an
/// operand add (bytes / 16) to it.
WINNOW_HOST_DEVICE constexpr std::uint64_t matrix_descriptor(std::uint32_t address, std::uint32_t leading,
                                                             std::uint32_t stride) {
    return static_cast<std::uint64_t>((address & 0x3ffffu) >> 4) | static_cast<std::uint64_t>(leading >> 4) << 16 |
           static_cast<std::uint64_t>(stride >> 4) << 32 | std::uint64_t{1} << 62;  // 1: 128-byte swizzle
}

/// Rows of queries or keys, channels summed over: 8 rows are 1024 bytes apart.
WINNOW_HOST_DEVICE constexpr std::uint64_t row_descriptor(std::uint32_t address) {
    return matrix_descriptor(address, 16, 8 * panel_row_bytes);
}
/// The same tile with its `Rows` rows summed over (values): 64 channels further is the next panel.
template <int Rows>
WINNOW_HOST_DEVICE constexpr std::uint64_t column_descriptor(std::uint32_t address) {
    return matrix_descriptor(address, Rows * panel_row_bytes, 8 * panel_row_bytes);
}

/// What to add to a row_descriptor for the 16 channels of step `step`, in a tile of `Rows` rows.
template <int Rows>
WINNOW_HOST_DEVICE constexpr std::uint32_t channel_step(int step) {
    return static_cast<std::uint32_t>((step / 4 * Rows * panel_row_bytes + step % 4 * 32) / 16);
}
/// What to add to a column_descriptor for the 16 rows of step `step`.
WINNOW_HOST_DEVICE constexpr std::uint32_t row_step(int step) {
    return static_cast<std::uint32_t>(step * 16 * panel_row_bytes / 16);
}

}  // namespace winnow
