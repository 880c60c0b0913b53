// How a tree search goes down one chunk: which two keys a round looks at, and which half it keeps.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/tile/probe_layout.hpp"

namespace winnow {

/// Keys that a round looks at, by position: the centres of both halves of a branch.
struct prune_probes {
    std::int32_t left;   ///< no_key: the round passes by
    std::int32_t right;  ///< no_key in the last round of a shortened search
};

/// What a search of the chunks of a block has in common.
struct prune_rounds {
    std::int32_t size;   ///< keys of a chunk
    std::int32_t count;  ///< rounds
    bool shortened;      ///< in the last round, a branch of two keys is left; see last

    /// In the last round both keys of a whole chunk have been looked at on the way down, but for the first key of either
    /// half of the chunk, so that one key is left to look at. `whole`: no chunk is cut short.
    WINNOW_HOST_DEVICE static constexpr prune_rounds of(std::int32_t size, bool whole) {
        return {size, larger(ceil_log2(size), 1), size >= 4 && whole};
    }
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool last(std::int32_t round) const {
        return shortened && round == count - 1;
    }
};

/// One chunk on its way down; nothing where left == right.
struct alignas(16) prune_branch {
    std::int32_t first;  ///< key of the chunk
    std::int32_t left;   ///< the branch: keys [left, right)
    std::int32_t right;
    float score;  ///< of the best key on the path

    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t centre() const { return left + half(right - left); }
    /// Of a length, rounded down: a shift, where a signed division takes three instructions.
    [[nodiscard]] WINNOW_HOST_DEVICE static constexpr std::int32_t half(std::int32_t length) {
        return static_cast<std::int32_t>(static_cast<std::uint32_t>(length) >> 1);
    }

    /// Keys to look at. A branch of one key was looked at when its parent was; only a chunk that starts as one is looked
    /// at again.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr prune_probes probes(prune_rounds const& rounds,
                                                                   std::int32_t round) const {
        if (left >= right) return {no_key, no_key};
        if (rounds.last(round)) {
            bool const unseen = left == first || left - first == half(rounds.size);
            return {unseen ? left : no_key, no_key};
        }
        if (round > 0 && right - left == 1) return {no_key, no_key};
        return {left + half(centre() - left), centre() + half(right - centre())};
    }

    /// Goes on with the half of the better key: the right one where both are as good.
    WINNOW_HOST_DEVICE constexpr void descend(prune_probes const& at, float found_left, float found_right) {
        if (at.left == no_key) return;
        score = larger(score, found_left);
        if (at.right == no_key) return;
        score = larger(score, found_right);
        (found_left > found_right ? right : left) = centre();
    }
};

}  // namespace winnow
