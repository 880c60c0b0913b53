// Tree search of one chunk: the shortened one finds the path and the score of one that looks at every branch.
#include "winnow/stage/prune_branch.hpp"

#include <limits>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"

using namespace winnow;

namespace {

/// A search of the chunk [first, first + keys) whose key k has score key[k - first]; notes what it looks at.
struct walked {
    prune_branch branch;
    std::vector<std::int32_t> seen;
};

walked walk(std::vector<float> const& key, std::int32_t first, prune_rounds const& rounds) {
    walked w{{first, first, first + static_cast<std::int32_t>(key.size()), minus_infinity}, {}};
    for (std::int32_t round = 0; round < rounds.count; ++round) {
        prune_probes const at = w.branch.probes(rounds, round);
        float found[2] = {7e9f, 7e9f};  // what a product gives where there is no key
        if (at.left != no_key) w.seen.push_back(at.left), found[0] = key[static_cast<std::size_t>(at.left - first)];
        if (at.right != no_key) w.seen.push_back(at.right), found[1] = key[static_cast<std::size_t>(at.right - first)];
        w.branch.descend(at, found[0], found[1]);
    }
    return w;
}

}  // namespace

TEST_CASE("prune_branch: the shortened search of a whole chunk gives the same score from fewer keys", "[stage]") {
    testing::random_source random(3);
    for (std::int32_t const size : {1, 2, 4, 8, 32, 256})
        for (int trial = 0; trial < 200; ++trial) {
            std::vector<float> key(static_cast<std::size_t>(size));
            for (auto& k : key) k = static_cast<float>(static_cast<int>(random.uniform() * 7)) - 3;  // with ties
            walked const all = walk(key, 40, prune_rounds::of(size, false)),
                         few = walk(key, 40, prune_rounds::of(size, true));
            CHECK(all.branch.score == few.branch.score);
            CHECK(std::set<std::int32_t>(all.seen.begin(), all.seen.end()) ==
                  std::set<std::int32_t>(few.seen.begin(), few.seen.end()));
            CHECK(few.seen.size() <= all.seen.size());
            CHECK(few.branch.right - few.branch.left <= (size >= 4 ? 2 : 1));
        }
}

TEST_CASE("prune_branch: a chunk that ends before it begins has no keys, nor do its halves", "[stage]") {
    prune_rounds const rounds = prune_rounds::of(8, false);
    for (std::int32_t const right : {100, 99, 98, 57, 0}) {
        prune_branch const whole{100, 100, right, minus_infinity};
        prune_branch lower = whole, upper = whole;
        lower.right = upper.left = whole.centre();
        for (prune_branch const& branch : {whole, lower, upper})
            for (std::int32_t const round : {0, 1}) {
                prune_probes const at = branch.centres(rounds, round);
                CHECK(at.left == no_key);
                CHECK(at.right == no_key);
            }
    }
}

TEST_CASE("prune_branch: chunks of any length stay inside, end at one key, and prefer the right half of equal ones",
          "[stage]") {
    for (std::int32_t const size : {1, 2, 4, 8, 64})
        for (std::int32_t keys = 1; keys <= size; ++keys) {
            walked const w =
                walk(std::vector<float>(static_cast<std::size_t>(keys), 2.0f), 16, prune_rounds::of(size, false));
            for (std::int32_t const position : w.seen) {
                CHECK(position >= 16);
                CHECK(position < 16 + keys);
            }
            CHECK(w.branch.score == 2.0f);
            CHECK(w.branch.left == 16 + keys - 1);
            CHECK(w.branch.right == 16 + keys);
        }
}

TEST_CASE("prune_branch: no chunk, and scores of nothing, change nothing", "[stage]") {
    prune_rounds const rounds = prune_rounds::of(8, true);
    prune_branch none{0, 0, 0, minus_infinity};
    for (std::int32_t round = 0; round < rounds.count; ++round) {
        CHECK(none.probes(rounds, round).left == no_key);
        none.descend(none.probes(rounds, round), 5.0f, 6.0f);
    }
    CHECK(none.score == minus_infinity);
    CHECK(none.right == 0);
    // Keys that no row may see: scores stay where they are, and the search goes right.
    prune_branch hidden{0, 0, 8, minus_infinity};
    hidden.descend(hidden.probes(rounds, 0), minus_infinity, minus_infinity);
    CHECK(hidden.score == minus_infinity);
    CHECK(hidden.left == 4);
}

TEST_CASE("prune_branch: where sides count, a branch of one key is looked at once more; a NaN is passed over",
          "[stage]") {
    for (std::int32_t const size : {2, 8, 64}) {
        prune_rounds const rounds = prune_rounds::of(size, true, true);
        CHECK(!rounds.shortened);
        walked const w = walk(std::vector<float>(static_cast<std::size_t>(size), 2.0f), 16, rounds);
        REQUIRE(w.seen.size() == static_cast<std::size_t>(2 * rounds.count));
        CHECK(w.seen[w.seen.size() - 2] == w.seen.back());
    }
    float const nan = std::numeric_limits<float>::quiet_NaN();
    for (bool const left : {false, true}) {
        prune_branch branch{0, 0, 8, 1.0f};
        CHECK(!branch.descend(left ? nan : 2.0f, left ? 2.0f : nan));
        CHECK(branch.score == 2.0f);
        CHECK(branch.left == 4);
    }
}
