// Summaries of whole chunks of keys, kept beside a cache, so that scorers that look at all keys of a chunk read one row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/prune_stages.hpp"

namespace winnow {

/// Rows that a scorer's summary of a chunk takes: mean_key the mean; min_max_bound the largest and the smallest value of
/// each channel; the others look at single keys and need none.
WINNOW_HOST_DEVICE constexpr std::int32_t summary_parts(scorer s) {
    return s == scorer::mean_key ? 1 : s == scorer::min_max_bound ? 2 : 0;
}

/// The caller owns the memory: one level for each stage of a method, on its grid of chunks, which starts at the end of
/// the sinks. `summarise` fills it; pruning reads summaries of whole chunks and works out itself what a list's last chunk
/// needs, so that lists are the same with and without. T is the keys' type, const to read.
template <class T>
struct key_summary {
    T* data = nullptr;                  ///< summary_elements(...) elements, 16-byte aligned; null: there are none
    std::int32_t rows = 0;              ///< requests that there is room for
    std::int32_t max_keys = 0;          ///< keys of a request that there is room for
    std::int32_t const* row = nullptr;  ///< [batch] row of each request, outside [0, rows): none; null: row = request

    /// Row of request `b`, or -1.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t row_of(std::int32_t b) const {
        std::int32_t const r = row == nullptr ? b : row[b];
        return data != nullptr && r >= 0 && r < rows ? r : -1;
    }
    /// Summaries that were written serve where they are read.
    template <class U>
    requires(std::is_same_v<U, T const> && !std::is_const_v<T>) WINNOW_HOST_DEVICE constexpr
    operator key_summary<U>() const {
        return {data, rows, max_keys, row};
    }
};

/// Where one stage's summaries lie: [row, chunk, kv_head, part, channel].
struct summary_level {
    std::int64_t offset;    ///< of the level, in elements
    std::int32_t chunks;    ///< whole chunks of a request
    std::int32_t chunk;     ///< keys of a chunk
    std::int32_t sinks;     ///< where the grid starts
    std::int32_t heads;     ///< KV heads
    std::int32_t channels;  ///< of all parts

    /// Index of the chunk of `size` keys that starts at key `left`, or -1 where the level does not have it.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t chunk_at(std::int32_t left, std::int32_t size) const {
        std::int32_t const from_start = left - sinks;
        bool const on_grid = size == chunk && from_start >= 0 && from_start % chunk == 0;
        return on_grid && from_start / chunk < chunks ? from_start / chunk : -1;
    }
    /// First element of the summary of chunk `c` and KV head `head` of a row.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t offset_of(std::int32_t row, std::int32_t c,
                                                                      std::int32_t head) const {
        return offset + ((static_cast<std::int64_t>(row) * chunks + c) * heads + head) * channels;
    }
    /// Elements of the level.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t elements(std::int32_t rows) const {
        return static_cast<std::int64_t>(rows) * chunks * heads * channels;
    }
};

/// Whole chunks among the first `keys` keys.
WINNOW_HOST_DEVICE constexpr std::int32_t whole_chunks(std::int32_t keys, std::int32_t sinks, std::int32_t chunk) {
    return keys > sinks ? (keys - sinks) / chunk : 0;
}

/// Level of stage `stage`.
WINNOW_HOST_DEVICE constexpr summary_level summary_level_of(prune_method const& m, std::int32_t kv_heads,
                                                            std::int32_t head_dim, std::int32_t rows,
                                                            std::int32_t max_keys, std::int32_t stage) {
    summary_level level{};
    for (std::int32_t i = 0; i <= stage; ++i) {
        level = {level.offset + level.elements(rows),
                 whole_chunks(max_keys, m.window.sinks, m.stages[i].chunk),
                 m.stages[i].chunk,
                 m.window.sinks,
                 kv_heads,
                 summary_parts(m.scorer) * head_dim};
    }
    return level;
}

/// Elements that the summaries of a method take: rows * kv_heads * parts * head_dim * the whole chunks of all stages.
constexpr std::size_t summary_elements(prune_method const& m, std::int32_t kv_heads, std::int32_t head_dim,
                                       std::int32_t rows, std::int32_t max_keys) {
    std::int32_t const stages = smaller<std::int32_t>(m.stage_count, max_prune_stages);
    if (stages < 1) return 0;
    summary_level const last = summary_level_of(m, kv_heads, head_dim, rows, max_keys, stages - 1);
    return static_cast<std::size_t>(last.offset + last.elements(rows));
}

}  // namespace winnow
