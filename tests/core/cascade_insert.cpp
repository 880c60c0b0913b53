// Insertion element by element against insertion token by token: the functions that the kernel runs, in plain loops.
#include <cstdint>
#include <vector>

#include "support/cascade_input.hpp"
#include "support/catch.hpp"
#include "winnow/core/cascade_insert.hpp"
#include "winnow/reference/cascade_insert.hpp"

using namespace winnow;

namespace {

// One set of tokens: counters, scores and origins by slot.
struct state {
    explicit state(cascade_layout const& layout)
        : score(static_cast<std::size_t>(layout.slots())), origin(static_cast<std::size_t>(layout.slots())) {}

    cascade_counters counters{};
    std::vector<float> score;
    std::vector<std::int32_t> origin;
};

// As the kernel does it, level by level; returns the moves.
std::vector<cascade_move> insert(cascade_layout const& layout, state& s, std::vector<float> const& scores) {
    auto const tokens = static_cast<std::int32_t>(scores.size());
    std::vector<cascade_offer> offered;
    std::vector<cascade_move> moves;
    cascade_counters after = s.counters;
    std::int64_t const seen = s.counters.seen;
    auto const move = [&](std::int32_t target, cascade_offer const& from) {
        std::int32_t const token = from.source - layout.rows();
        moves.push_back({target, from.source, from.score,
                         token >= 0 ? static_cast<std::int32_t>(seen + token)
                                    : s.origin[static_cast<std::size_t>(from.source - layout.sinks)]});
    };
    for (std::int32_t u = 0; u < tokens; ++u) {
        cascade_offer const offer{u, layout.rows() + u, scores[static_cast<std::size_t>(u)]};
        if (seen + u < layout.sinks)
            move(static_cast<std::int32_t>(seen) + u, offer);
        else
            offered.push_back(offer);
    }
    for (std::int32_t i = 0; i < layout.levels && !offered.empty(); ++i) {
        cascade_level level = level_of(layout, s.counters, i, s.score.data());
        std::vector<std::int32_t> appended;
        std::vector<cascade_offer> winner, next;
        level.offered = offered.data(), level.offers = static_cast<std::int32_t>(offered.size());
        for (std::int32_t k = 0; k < level.offers; ++k)
            if (level.appends_offer(k, layout.accepts(i, seen + offered[static_cast<std::size_t>(k)].step)))
                appended.push_back(k);
        level.appended = appended.data(), level.appends = static_cast<std::int32_t>(appended.size());
        for (std::int32_t g = 0; g <= level.appends; ++g) winner.push_back(level.winner_of(g));
        level.winner = winner.data();
        for (std::int32_t x = 0; x < level.evicted(); ++x) next.push_back(level.passed_on(x));
        for (std::int32_t x = level.first_moved(); x < level.count + level.appends; ++x)
            move(level.first_row + level.slot(x), level.entry(x));
        after.count[i] = level.next_count(), after.head[i] = level.next_head();
        offered = next;
    }
    after.seen = seen + tokens;
    s.counters = after;
    state const old = s;
    for (auto const& m : moves) {
        if (m.target < layout.sinks) continue;
        s.score[static_cast<std::size_t>(m.target - layout.sinks)] = m.score;
        s.origin[static_cast<std::size_t>(m.target - layout.sinks)] = m.origin;
    }
    return moves;
}

// One token, as the kernel for it does it: every sub-cache at once.
void insert_single(cascade_layout const& layout, state& s, float token_score) {
    state const before = s;
    std::int64_t const seen = before.counters.seen;
    s.counters.seen = seen + 1;
    if (seen < layout.sinks) return;
    float score = token_score;
    auto origin = static_cast<std::int32_t>(seen);
    for (std::int32_t i = 0; i < layout.levels; ++i) {
        cascade_single const level = single_of(layout, before.counters, i);
        auto const target = static_cast<std::size_t>(level.target - layout.sinks);
        auto const oldest = static_cast<std::size_t>(level.oldest - layout.sinks);
        if (level.appends || beats(score, before.score[target])) s.score[target] = score, s.origin[target] = origin;
        s.counters.count[i] = level.next_count, s.counters.head[i] = level.next_head;
        if (!level.evicts) return;
        score = before.score[oldest], origin = before.origin[oldest];
    }
}

// The same steps by the oracle, on a cache with one head of 64 channels.
class oracle {
public:
    explicit oracle(cascade_layout const& layout) {
        cache_.layout = layout;
        cache_.sequences = 1, cache_.kv_heads = 1, cache_.head_dim = 64;
        memory_.resize(cascade_bytes(cache_) / sizeof(line));
        cache_.memory = memory_.data();
    }
    void insert(std::vector<float> const& scores) {
        auto const tokens = static_cast<std::int64_t>(scores.size());
        std::vector<line> rows(static_cast<std::size_t>(tokens) + 1);
        cascade_insert_params<bf16> p;
        p.cache = cache_;
        p.keys = p.values = packed_view(reinterpret_cast<bf16 const*>(rows.data()), {1, tokens, 1, 64});
        p.scores = packed_view(scores.data(), {1, tokens, 1});
        REQUIRE(reference::cascade_insert(p, &losses).ok());
    }
    cascade_counters& counters() { return *cache_.counters(0); }
    float const* scores() const { return cache_.scores(0, 0); }
    std::int32_t const* origins() const { return cache_.origins(0, 0); }
    reference::cascade_losses losses;

private:
    struct alignas(256) line {
        char bytes[256] = {};
    };
    cascade_cache<bf16> cache_;
    std::vector<line> memory_;
};

void require_equal(cascade_layout const& layout, state const& s, oracle& o) {
    REQUIRE((s.counters == o.counters()));
    std::int32_t row = 0;
    for (std::int32_t i = 0; i < layout.levels; ++i)
        for (std::int32_t slot = 0; slot < layout.size[i]; ++slot, ++row) {
            if (slot >= s.counters.count[i]) continue;
            REQUIRE(ordered_key(s.score[static_cast<std::size_t>(row)]) == ordered_key(o.scores()[row]));
            REQUIRE(s.origin[static_cast<std::size_t>(row)] == o.origins()[row]);
        }
}

// Runs `steps` from an empty cache in each of `count` random layouts. Sub-caches have up to `few` slots, in every fourth
// layout up to `most`.
template <class Steps>
void in_random_configurations(testing::random_source& random, int count, std::int32_t most, std::int32_t few,
                              Steps const& steps) {
    for (int i = 0; i < count; ++i) {
        INFO("configuration " << i);
        cascade_layout const layout = testing::random_cascade(random, i % 4 == 0 ? most : few);
        state s(layout);
        oracle o(layout);
        steps(i, layout, s, o);
    }
}

}  // namespace

TEST_CASE("cascade insert: a single token, every sub-cache at once", "[core]") {
    testing::random_source random(5);
    in_random_configurations(random, 200, 20, 5, [&](int i, cascade_layout const& layout, state& s, oracle& o) {
        for (std::int32_t step = 0; step < 3 * layout.rows() + 5; ++step) {
            float score = static_cast<float>(random.below(4));
            if (i % 5 == 0 && random.below(4) == 0) score = __builtin_nanf("");
            insert_single(layout, s, score);
            o.insert({score});
            INFO("step " << step);
            require_equal(layout, s, o);
        }
    });
}

TEST_CASE("cascade insert: level by level is token by token, in random configurations", "[core]") {
    testing::random_source random(3);
    in_random_configurations(random, 600, 30, 7, [&](int i, cascade_layout const& layout, state& s, oracle& o) {
        std::int32_t const most = i % 3 == 0 ? 3 : 60, values = 1 + random.below(20);
        bool const not_numbers = i % 5 == 0;
        for (int step = 0; step < 6; ++step) {
            std::vector<float> scores(static_cast<std::size_t>(random.between(0, most)));
            for (float& x : scores) {
                x = static_cast<float>(random.below(values)) - 3;
                if (not_numbers && random.below(4) == 0) x = __builtin_nanf("");
            }
            auto const moves = insert(layout, s, scores);
            o.insert(scores);
            INFO("step " << step);
            REQUIRE(static_cast<std::int32_t>(moves.size()) <=
                    max_cascade_moves(layout, static_cast<std::int32_t>(scores.size())));
            // Every row is written once at most, and no row onto itself.
            std::vector<int> written(static_cast<std::size_t>(layout.rows()));
            for (auto const& m : moves) {
                REQUIRE(m.target != m.source);
                REQUIRE(++written[static_cast<std::size_t>(m.target)] == 1);
            }
            require_equal(layout, s, o);
        }
    });
}

TEST_CASE("cascade insert: a million tokens, and steps beyond 2^31", "[core]") {
    cascade_layout const layout = even_cascade(4, 64, 4);
    state s(layout);
    oracle o(layout);
    testing::random_source random(5);
    auto const steps = [&](std::int64_t tokens) {
        for (std::int64_t done = 0; done < tokens; done += 4096) {
            std::vector<float> scores(4096);
            for (float& x : scores) x = static_cast<float>(random.uniform());
            insert(layout, s, scores);
            o.insert(scores);
            require_equal(layout, s, o);
        }
    };
    steps(1 << 20);
    CHECK(s.counters.seen == 1 << 20);
    // Every sub-cache reaches as far as it says: the oldest token is younger than the span, and older than half of it.
    std::int32_t oldest = s.origin[0];
    for (std::int32_t const x : s.origin) oldest = smaller(oldest, x);
    CHECK((1 << 20) - oldest <= layout.span());
    CHECK((1 << 20) - oldest > layout.span() / 2);
    for (std::int64_t const seen : {(std::int64_t{1} << 31) - 100, (std::int64_t{1} << 40) + 12345}) {
        s.counters.seen = o.counters().seen = seen;
        steps(3 * 4096);
    }
}

TEST_CASE("cascade insert: about two rows move per token of a chunk", "[core]") {
    // Full, equal periods' sum: 1 + 1/2 + 1/4 + ... of the tokens stay somewhere.
    cascade_layout const layout = even_cascade(0, 4096, 4);
    state s(layout);
    for (int i = 0; i < 40; ++i) insert(layout, s, std::vector<float>(512));
    auto const moves = insert(layout, s, std::vector<float>(512));
    CHECK(moves.size() >= 512 + 256 + 128 + 64);
    CHECK(moves.size() <= 512 + 256 + 128 + 64 + 4);
}

TEST_CASE("cascade insert: comparison", "[core]") {
    float const nan = __builtin_nanf("");
    CHECK(beats(1, 1));
    CHECK(beats(0.0f, -0.0f));
    CHECK(beats(-0.0f, 0.0f));
    CHECK_FALSE(beats(1, 2));
    CHECK(beats(1, nan));
    CHECK_FALSE(beats(nan, -3));
    CHECK(beats(nan, nan));
}
