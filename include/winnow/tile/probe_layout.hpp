// Where query rows lie in shared memory for probe_keys: by chunks of 8 channels for mma.sync, by words for wgmma.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/tile/panel.hpp"

namespace winnow {

/// Offset in bytes of chunk `chunk` of query row `row`. Lanes 0-7 read four chunks of two rows at once: odd rows swap
/// their halves of 128 bytes, so that these eight lie in different banks.
template <int HeadDim>
WINNOW_HOST_DEVICE constexpr std::uint32_t query_chunk_offset(std::uint32_t row, std::uint32_t chunk) {
    return row * (HeadDim * 2) + ((chunk ^ ((row & 1u) << 2)) << 4);
}

/// Keys of one byte a channel come 16 channels at a time, two chunks side by side: lane q holds chunks 8 i + 2 q and the
/// next one, where it would hold 8 i + q and 8 i + q + 4 of wider keys. So chunks of query rows change places.
///
/// Place of chunk `chunk` in a row that meets such keys.
WINNOW_HOST_DEVICE constexpr std::uint32_t widened_place(std::uint32_t chunk) {
    return (chunk & ~7u) | (chunk & 1u) << 2 | (chunk & 7u) >> 1;
}

/// wgmma reads rows as panels of 64 channels, 16 for each step. A step's channels are those that a lane's registers hold,
/// so that keys stay as they were loaded: word w of chunk 4 j + q belongs to step 2 j + w / 2, there to channels 2 q and
/// 2 q + 1, behind eight others where w is odd.
///
/// Offset in bytes of word `word` of chunk `chunk` of query row `row`, in panels of `rows` rows.
WINNOW_HOST_DEVICE constexpr std::uint32_t query_word_offset(std::uint32_t rows, std::uint32_t row, std::uint32_t chunk,
                                                             std::uint32_t word) {
    std::uint32_t const step = chunk / 4 * 2 + word / 2, piece = step % 4 * 2 + word % 2;  // pieces of 16 bytes
    return (step / 4 * rows + row) * panel_row_bytes + ((piece ^ (row & 7u)) << 4) + chunk % 4 * 4;
}

}  // namespace winnow
