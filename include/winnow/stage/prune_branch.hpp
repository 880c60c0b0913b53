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
    /// A key counts differently as a left and as a right probe, where these stand at different distances: then a branch of
    /// one key is looked at once more from either side.
    bool sided;

    /// In the last round both keys of a whole chunk have been looked at on the way down, but for the first key of either
    /// half of the chunk, so that one key is left to look at. `whole`: no chunk is cut short.
    WINNOW_HOST_DEVICE static constexpr prune_rounds of(std::int32_t size, bool whole, bool sided = false) {
        return {size, larger(ceil_log2(size), 1) + (sided ? 1 : 0), size >= 4 && whole && !sided, sided};
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
    /// Of a length, rounded down, so that a branch that ends before it begins, as a chunk outside the context does, has
    /// no half with keys in it. A shift, where a division takes three instructions.
    [[nodiscard]] WINNOW_HOST_DEVICE static constexpr std::int32_t half(std::int32_t length) { return length >> 1; }

    /// Keys to look at in a round that is not the last one of a shortened search. A branch of one key was looked at when
    /// its parent was; only a chunk that starts as one is looked at again.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr prune_probes centres(prune_rounds const& rounds,
                                                                    std::int32_t round) const {
        if (right - left < (round > 0 && !rounds.sided ? 2 : 1)) return {no_key, no_key};
        return {left + half(centre() - left), centre() + half(right - centre())};
    }
    /// The key that the last round of a shortened search looks at.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t unseen(prune_rounds const& rounds) const {
        return left < right && (left == first || left - first == half(rounds.size)) ? left : no_key;
    }
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr prune_probes probes(prune_rounds const& rounds,
                                                                   std::int32_t round) const {
        if (rounds.last(round)) return {unseen(rounds), no_key};
        return centres(rounds, round);
    }

    /// Goes on with the half of the better key: the right one where both are as good. True for the left one.
    WINNOW_HOST_DEVICE constexpr bool descend(float found_left, float found_right) {
        score = larger(larger(score, found_left), found_right);  // in this order a NaN is passed over
        bool const goes_left = found_left > found_right;
        (goes_left ? right : left) = centre();
        return goes_left;
    }
    /// The same where there may be no key, or one.
    WINNOW_HOST_DEVICE constexpr void descend(prune_probes const& at, float found_left, float found_right) {
        if (at.right != no_key)
            descend(found_left, found_right);
        else if (at.left != no_key)
            score = larger(score, found_left);
    }
};

}  // namespace winnow
