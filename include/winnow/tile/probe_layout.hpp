// Where query rows lie in shared memory for probe_keys, and the position of a key that is not there.
#pragma once

#include <cstdint>
#include <limits>

#include "winnow/core/config.hpp"

namespace winnow {

/// Position of a key that is not there: beyond every row.
inline constexpr std::int32_t no_key = std::numeric_limits<std::int32_t>::max();

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

}  // namespace winnow
