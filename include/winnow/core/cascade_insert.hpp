// Inserting a chunk into one sub-cache, as functions of one element each, so that any number of threads can share them.
//
// With scores fixed, what a sub-cache does with the tokens offered to it is known without stepping through them:
//   * an accepted token is appended and opens a group; the ones refused after it fight for its place. Group 0 is that of
//     the resident that was the newest before;
//   * the winner of a group is its highest score, ties to the later token, and no eviction can come in between, since an
//     eviction comes with an append, which closes the group;
//   * residents and winners in order of age are entries x = 0, 1, ...; append a pushes out entry count + a - size, which
//     is offered to the next sub-cache at the same step.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

/// A token that is offered to a sub-cache.
struct cascade_offer {
    std::int32_t step;    ///< token of the chunk at whose arrival it is offered
    std::int32_t source;  ///< where it lies: row of the cache, or rows() + token of the chunk
    float score;          ///< what it fights with
};

/// A token that ends up in another row of the cache, with what goes there besides keys and values.
struct cascade_move {
    std::int32_t target;  ///< row of the cache
    std::int32_t source;  ///< as in cascade_offer
    float score;          ///< of the token
    std::int32_t origin;  ///< index of the token in its sequence, modulo 2^32
};

/// True if a newcomer takes a resident's place: its score is not lower. NaN is below every number.
WINNOW_HOST_DEVICE constexpr bool beats(float newcomer, float resident) {
    return ordered_key(newcomer) >= ordered_key(resident);
}

/// Rows that one insertion may change at most: the moves of one head.
WINNOW_HOST_DEVICE constexpr std::int32_t max_cascade_moves(cascade_layout const& layout, std::int32_t tokens) {
    std::int32_t sum = smaller(layout.sinks, tokens);
    for (std::int32_t i = 0; i < layout.levels; ++i) sum += smaller(layout.size[i], tokens);
    return sum;
}

/// One sub-cache of one head while a chunk is inserted; everything is as it was before the chunk.
struct cascade_level {
    std::int32_t size;       ///< slots
    std::int32_t count;      ///< residents
    std::int32_t head;       ///< slot of the oldest
    std::int32_t first_row;  ///< of the cache
    float const* score;      ///< [size]

    cascade_offer const* offered;  ///< in order of steps
    std::int32_t offers;           ///< in `offered`
    std::int32_t const* appended;  ///< indices of the offers that are appended, ascending
    std::int32_t appends;          ///< in `appended`
    cascade_offer const* winner;   ///< [appends + 1] of each group

    /// Slot of entry x.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t slot(std::int32_t x) const {
        return static_cast<std::int32_t>((std::int64_t{head} + x) % size);
    }
    /// True if offer k is appended when the sub-cache accepts at its step or not: an empty one takes what comes.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool appends_offer(std::int32_t k, bool accepted) const {
        return accepted || (count == 0 && k == 0);
    }
    /// Resident x < count, oldest first.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr cascade_offer resident(std::int32_t x) const {
        return {-1, first_row + slot(x), score[slot(x)]};
    }
    /// Winner of group g <= appends; needs `appended`. Group 0 of an empty sub-cache has none (source -1). One pass over
    /// the group, which is period[i] / period[i - 1] offers long in the steady state.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr cascade_offer winner_of(std::int32_t g) const {
        cascade_offer best{-1, -1, 0.0f};
        if (g > 0) best = offered[appended[g - 1]];
        if (g == 0 && count > 0) best = resident(count - 1);
        std::int32_t const end = g < appends ? appended[g] : offers;
        for (std::int32_t k = g == 0 ? 0 : appended[g - 1] + 1; k < end; ++k)
            if (beats(offered[k].score, best.score)) best = offered[k];
        return best;
    }
    /// Entry x < count + appends; needs `winner`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr cascade_offer entry(std::int32_t x) const {
        return x < count - 1 ? resident(x) : winner[x - (count - 1)];
    }
    /// Entries that are pushed out: the first ones.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t evicted() const {
        return larger(count + appends - size, 0);
    }
    /// Pushed-out entry x < evicted() as an offer to the next sub-cache.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr cascade_offer passed_on(std::int32_t x) const {
        cascade_offer offer = entry(x);
        offer.step = offered[appended[x + size - count]].step;
        return offer;
    }
    /// First entry that lies in a row where it did not lie before; all later ones do as well. The newest resident
    /// counts if it lost.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t first_moved() const {
        bool const lost = count > 0 && winner[0].source != resident(count - 1).source;
        return larger(evicted(), lost ? count - 1 : count);
    }
    /// Number of residents afterwards.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t next_count() const {
        return smaller(count + appends, size);
    }
    /// Slot of the oldest afterwards.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t next_head() const { return slot(evicted()); }
};

/// Sub-cache `level` before a chunk; lists are the caller's to fill in. Bad counters are clamped.
WINNOW_HOST_DEVICE constexpr cascade_level level_of(cascade_layout const& layout, cascade_counters const& counters,
                                                    std::int32_t level, float const* slot_scores) {
    std::int32_t const before = layout.slots_before(level), size = layout.size[level];
    std::int32_t const head = counters.head[level];
    return {size,
            smaller(larger(counters.count[level], 0), size),
            head >= 0 && head < size ? head : 0,
            layout.sinks + before,
            slot_scores == nullptr ? nullptr : slot_scores + before,
            nullptr,
            0,
            nullptr,
            0,
            nullptr};
}

/// What a sub-cache does with a single token, if one is offered to it: known from the counters alone, but for the end of a
/// fight. The first sub-cache that evicts nothing is the last to be offered one.
struct cascade_single {
    bool appends;             ///< takes it; else it fights with the newest resident
    bool evicts;              ///< and pushes out the oldest
    std::int32_t target;      ///< row that the token takes, if it does
    std::int32_t oldest;      ///< row whose token is pushed out
    std::int32_t next_count;  ///< tokens afterwards, if one is offered
    std::int32_t next_head;   ///< slot of the oldest afterwards
};

/// Sub-cache `index` when token `seen` arrives.
WINNOW_HOST_DEVICE constexpr cascade_single single_of(cascade_layout const& layout, cascade_counters const& counters,
                                                      std::int32_t index) {
    cascade_level const level = level_of(layout, counters, index, nullptr);
    bool const appends = level.count == 0 || layout.accepts(index, larger<std::int64_t>(counters.seen, 0));
    bool const evicts = appends && level.count == level.size;
    auto const slot = [&](std::int32_t x) {  // of entry x <= size, without a division
        std::int64_t const s = std::int64_t{level.head} + x;
        return static_cast<std::int32_t>(s < level.size ? s : s - level.size);
    };
    return {appends,
            evicts,
            level.first_row + slot(appends ? level.count : level.count - 1),
            level.first_row + level.head,
            level.count + (appends && !evicts ? 1 : 0),
            evicts ? slot(1) : level.head};
}

}  // namespace winnow
