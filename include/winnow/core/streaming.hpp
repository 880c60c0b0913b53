// Streaming positions: a row numbers the keys it sees without gaps, so that distances stay small in any context.
//
//   distance(row, key) = row's position - key's           in the window
//                      = recent - 1 + n - r               before it; r: rank of the key among the n keys seen there
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

/// Whether attention turns queries and keys as it loads them.
enum class key_rotation : std::int32_t {
    none,      ///< keys are cached as they are used
    streaming  ///< keys are cached without rotary embedding, and turned by streaming positions
};

/// How the keys of an ascending list of blocks are numbered behind the sinks. Blocks that end within the sinks have no
/// numbers, nor have keys of the first numbered block that are sinks.
struct list_numbers {
    std::int32_t first = 0;   ///< entry with the first numbered block
    std::int32_t hidden = 0;  ///< its keys that are sinks
};

/// First entry of [begin, count) whose block, moved on by `shift` blocks, starts at `key` or behind; log2(count) loads.
WINNOW_HOST_DEVICE constexpr std::int32_t first_entry_from(std::int32_t const* list, std::int32_t begin,
                                                           std::int32_t count, std::int32_t block_size,
                                                           std::int32_t shift, std::int64_t key) {
    std::int32_t low = begin, high = count;
    while (low < high) {
        std::int32_t const middle = low + (high - low) / 2;
        if ((std::int64_t{list[middle]} + shift) * block_size >= key)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/// Numbering of a list of `count` blocks behind `sinks` sinks.
WINNOW_HOST_DEVICE constexpr list_numbers list_numbers_of(std::int32_t const* list, std::int32_t count,
                                                          std::int32_t block_size, std::int32_t sinks) {
    std::int32_t const first = first_entry_from(list, 0, count, block_size, 1, std::int64_t{sinks} + 1);
    if (first >= count) return {first, 0};
    return {first, static_cast<std::int32_t>(larger<std::int64_t>(sinks - std::int64_t{list[first]} * block_size, 0))};
}

/// Rank of key `inside` of the block of entry `entry`. Sinks rank by their positions.
WINNOW_HOST_DEVICE constexpr std::int32_t listed_rank(list_numbers n, std::int32_t block_size, std::int32_t sinks,
                                                      std::int32_t entry, std::int32_t inside) {
    return sinks + (entry - n.first) * block_size + inside - n.hidden;
}

/// Sinks and listed keys below `end`, where the row's listed keys end: visible_ranges::list_end.
WINNOW_HOST_DEVICE constexpr std::int32_t keys_before_window(list_numbers n, std::int32_t const* list,
                                                             std::int32_t count, std::int32_t block_size,
                                                             std::int32_t sinks, std::int32_t end) {
    if (end <= sinks || n.first >= count) return smaller(larger(end, 0), sinks);
    std::int32_t const behind = first_entry_from(list, n.first, count, block_size, 0, end);
    if (behind == n.first) return sinks;
    std::int64_t const over = (std::int64_t{list[behind - 1]} + 1) * block_size - end;
    return listed_rank(n, block_size, sinks, behind, 0) - static_cast<std::int32_t>(larger<std::int64_t>(over, 0));
}

/// Where a row stands for keys before its window, of which it sees `before`, if they stand at their ranks.
WINNOW_HOST_DEVICE constexpr std::int32_t streaming_row_position(std::int32_t recent, std::int32_t before) {
    return before > 0 ? recent - 1 + before : 0;  // a window that hides nothing may be as long as int32 allows
}

}  // namespace winnow
