// The shape of a cascading cache: sinks, then sub-caches that are rings, each reaching further back by keeping fewer.
//
//   Token t (from 0) is sink t for t < sinks. Sub-cache i accepts what falls out of sub-cache i - 1 at the steps with
//   (t - sinks) mod period[i] = 0; at other steps the offered token and the newest resident fight by score.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

/// Sub-caches of a cascade at most.
inline constexpr std::int32_t max_cascade_levels = 16;

/// Sub-cache i accepts one step in Base^i (the paper: 2).
template <int Base>
struct powers_of {};

/// Sub-cache i accepts one step in i + 1.
struct arithmetic {};

/// The first Count sub-caches accept at every step, sub-cache i behind them at one step in 2^i.
template <int Count>
struct always_first {};

/// Steps between two acceptances of each sub-cache: `.accept = winnow::powers_of<2>{}`. Any other table may be written
/// into `period`.
struct acceptance {
    std::int32_t period[max_cascade_levels] = {};  ///< of each sub-cache, >= 1

    /// Powers of 2.
    WINNOW_HOST_DEVICE constexpr acceptance() : acceptance(powers_of<2>{}) {}
    /// From powers_of, implicitly. Periods beyond 2^30 are 2^30.
    template <int Base>
    WINNOW_HOST_DEVICE constexpr acceptance(powers_of<Base>) {
        static_assert(Base >= 1, "periods are at least 1");
        std::int64_t power = 1;
        for (auto& p : period) {
            p = static_cast<std::int32_t>(smaller<std::int64_t>(power, std::int64_t{1} << 30));
            power = std::int64_t{p} * Base;
        }
    }
    /// From arithmetic, implicitly.
    WINNOW_HOST_DEVICE constexpr acceptance(arithmetic) {
        for (std::int32_t i = 0; i < max_cascade_levels; ++i) period[i] = i + 1;
    }
    /// From always_first, implicitly.
    template <int Count>
    WINNOW_HOST_DEVICE constexpr acceptance(always_first<Count>) {
        for (std::int32_t i = 0; i < max_cascade_levels; ++i) period[i] = i < Count ? 1 : std::int32_t{1} << i;
    }
    /// Equal in every period.
    friend constexpr bool operator==(acceptance const&, acceptance const&) = default;
};

/// Sinks and sub-caches of one sequence. Rows are numbered: sinks, then the slots of sub-cache 0, of sub-cache 1, ...
struct cascade_layout {
    std::int32_t sinks = 0;                      ///< first tokens, kept for good
    std::int32_t levels = 1;                     ///< sub-caches
    std::int32_t size[max_cascade_levels] = {};  ///< slots of each sub-cache; need not be equal
    acceptance accept = {};                      ///< when each sub-cache accepts
    bool eager_fill = true;  ///< accept at every step for the first sinks + slots + 1 tokens, so that nothing is lost

    /// Slots before sub-cache `level`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t slots_before(std::int32_t level) const {
        std::int32_t sum = 0;
        // Short: a kernel that runs this once waits for its code.
        WINNOW_ROLLED
        for (std::int32_t i = 0; i < level; ++i) sum += size[i];
        return sum;
    }
    /// Slots of all sub-caches.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t slots() const { return slots_before(levels); }
    /// Sinks and slots.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t rows() const { return sinks + slots(); }
    /// True if tokens ever fight, so that scores matter: some period is longer than 1.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool selects() const {
        for (std::int32_t i = 0; i < levels; ++i)
            if (accept.period[i] > 1) return true;
        return false;
    }
    /// Tokens that the cache reaches back to, about: sum of size * period, and the sinks.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t span() const {
        std::int64_t sum = sinks;
        for (std::int32_t i = 0; i < levels; ++i) sum += std::int64_t{size[i]} * accept.period[i];
        return sum;
    }
    /// True if sub-cache `level` accepts when token `t` arrives.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool accepts(std::int32_t level, std::int64_t t) const {
        return (eager_fill && t <= rows()) || (t - sinks) % accept.period[level] == 0;
    }
    /// Equal in every field.
    friend constexpr bool operator==(cascade_layout const&, cascade_layout const&) = default;
};

/// `levels` equal sub-caches that share `slots` (a multiple of `levels`).
WINNOW_HOST_DEVICE constexpr cascade_layout even_cascade(std::int32_t sinks, std::int32_t slots, std::int32_t levels) {
    cascade_layout layout;
    layout.sinks = sinks;
    layout.levels = levels;
    for (std::int32_t i = 0; i < levels && i < max_cascade_levels; ++i) layout.size[i] = slots / levels;
    return layout;
}

/// Sinks and a sliding window: a cascade of one sub-cache (StreamingLLM).
WINNOW_HOST_DEVICE constexpr cascade_layout sliding_window(std::int32_t sinks, std::int32_t recent) {
    return even_cascade(sinks, recent, 1);
}

/// What changes with time in a sequence's cache, apart from the tokens: the same for all heads. All zero: empty. No
/// default values, since it lies in shared memory too: `cascade_counters{}` is empty.
struct cascade_counters {
    std::int64_t seen;                       ///< tokens ever offered
    std::int32_t count[max_cascade_levels];  ///< tokens in each sub-cache
    std::int32_t head[max_cascade_levels];   ///< slot of its oldest token; 0 until it is full

    /// Equal in every counter.
    friend constexpr bool operator==(cascade_counters const&, cascade_counters const&) = default;
};

/// Sinks that hold a token.
WINNOW_HOST_DEVICE constexpr std::int32_t filled_sinks(cascade_layout const& layout, cascade_counters const& counters) {
    return static_cast<std::int32_t>(smaller<std::int64_t>(larger<std::int64_t>(counters.seen, 0), layout.sinks));
}

/// Tokens in the cache, sinks among them. Bad counts are clamped, so that no kernel reads outside the cache.
WINNOW_HOST_DEVICE constexpr std::int32_t live_tokens(cascade_layout const& layout, cascade_counters const& counters) {
    std::int32_t sum = filled_sinks(layout, counters);
    WINNOW_ROLLED
    for (std::int32_t i = 0; i < layout.levels; ++i) sum += smaller(larger(counters.count[i], 0), layout.size[i]);
    return sum;
}

/// True if row `row` < rows() of the cache holds a token; clamped as live_tokens().
WINNOW_HOST_DEVICE constexpr bool holds_token(cascade_layout const& layout, cascade_counters const& counters,
                                              std::int32_t row) {
    if (row < layout.sinks) return row < filled_sinks(layout, counters);
    std::int32_t slot = row - layout.sinks, level = 0;
    WINNOW_ROLLED
    for (; level < layout.levels - 1 && slot >= layout.size[level]; ++level) slot -= layout.size[level];
    return slot < smaller(counters.count[level], layout.size[level]);
}

/// A cached token.
struct cascade_entry {
    std::int32_t row;       ///< of the cache
    std::int32_t position;  ///< among the cached tokens from oldest to newest: what RoPE takes
};

/// Entry `index` of the cached tokens in physical order, 0 <= index < live_tokens(): sinks, then sub-cache after
/// sub-cache, slot after slot. Its position counts the sinks, all of the older sub-caches (those behind), and the older
/// tokens of its own.
WINNOW_HOST_DEVICE constexpr cascade_entry entry_at(cascade_layout const& layout, cascade_counters const& counters,
                                                    std::int32_t index) {
    std::int32_t const sinks = filled_sinks(layout, counters);
    if (index < sinks) return {index, index};
    std::int32_t slot = index - sinks, before = 0, level = 0, count = 0;
    for (;; ++level) {
        count = smaller(larger(counters.count[level], 0), layout.size[level]);
        if (slot < count || level + 1 >= layout.levels) break;
        slot -= count;
        before += layout.size[level];
    }
    std::int32_t older = sinks;
    for (std::int32_t i = level + 1; i < layout.levels; ++i)
        older += smaller(larger(counters.count[i], 0), layout.size[i]);
    std::int32_t const age = slot - counters.head[level];
    return {layout.sinks + before + slot, older + (age < 0 ? age + count : age)};
}

/// A run of rows whose positions ascend with the rows: position = row - row_origin. A ring makes two.
struct cascade_segment {
    std::int32_t first_row;   ///< of the cache
    std::int32_t rows;        ///< may be 0
    std::int32_t first;       ///< index among the cached tokens in physical order
    std::int32_t row_origin;  ///< row that would have position 0
};

/// Segments of a cache: the sinks, and two of each sub-cache.
WINNOW_HOST_DEVICE constexpr std::int32_t segments_of(cascade_layout const& layout) { return 1 + 2 * layout.levels; }

/// Segment `index` < segments_of(); clamped as live_tokens().
WINNOW_HOST_DEVICE constexpr cascade_segment segment_at(cascade_layout const& layout, cascade_counters const& counters,
                                                        std::int32_t index) {
    std::int32_t const sinks = filled_sinks(layout, counters);
    if (index == 0) return {0, sinks, 0, 0};
    std::int32_t const level = (index - 1) / 2;
    bool const newer = index % 2 == 1;  // slots before the head come after those behind it
    std::int32_t row = layout.sinks, first = sinks, older = sinks, count = 0;
    WINNOW_ROLLED
    for (std::int32_t i = 0; i < layout.levels; ++i) {
        std::int32_t const n = smaller(larger(counters.count[i], 0), layout.size[i]);
        if (i < level) row += layout.size[i], first += n;
        if (i == level) count = n;
        if (i > level) older += n;
    }
    std::int32_t const head = smaller(larger(counters.head[level], 0), count);
    if (newer) return {row, head, first, row + head - count - older};
    return {row + head, count - head, first + head, row + head - older};
}

}  // namespace winnow
