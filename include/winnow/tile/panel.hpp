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

/// How the 1024-byte atoms (8 rows of a panel) of a tile of keys or values follow each other.
enum class atom_order : std::int32_t {
    panels,  ///< panel by panel: a box of 64 channels is one piece
    rows     ///< 8 rows by 8 rows, each with all its channels: a box of all channels is one piece
};

/// A tile of `Rows` rows of `Channels` channels in one of the orders: bytes between atoms, and what wgmma makes of them.
template <int Rows, int Channels, atom_order Order>
struct key_tile {
    static constexpr int panels = Channels / panel_channels, atom = 8 * panel_row_bytes;
    static constexpr int next_rows = Order == atom_order::panels ? atom : panels * atom;     ///< 8 rows further
    static constexpr int next_panel = Order == atom_order::panels ? Rows / 8 * atom : atom;  ///< 64 channels further

    /// Start of row `row` of panel `panel`.
    WINNOW_HOST_DEVICE static constexpr std::uint32_t row_offset(int row, int panel) {
        return static_cast<std::uint32_t>(row / 8 * next_rows + row % 8 * panel_row_bytes + panel * next_panel);
    }
    /// Keys, channels summed over; and what to add for the 16 channels of step `step`.
    WINNOW_HOST_DEVICE static constexpr std::uint64_t key_descriptor(std::uint32_t address) {
        return matrix_descriptor(address, 16, next_rows);
    }
    WINNOW_HOST_DEVICE static constexpr std::uint32_t channel_step(int step) {
        return static_cast<std::uint32_t>((step / 4 * next_panel + step % 4 * 32) / 16);
    }
    /// Values, rows summed over; and what to add for the 16 rows of step `step`, for the channels from panel `panel` on.
    WINNOW_HOST_DEVICE static constexpr std::uint64_t value_descriptor(std::uint32_t address) {
        return matrix_descriptor(address, next_panel, next_rows);
    }
    WINNOW_HOST_DEVICE static constexpr std::uint32_t row_step(int step, int panel) {
        return static_cast<std::uint32_t>((step * 2 * next_rows + panel * next_panel) / 16);
    }
};

}  // namespace winnow
