// The oracle of the cascade operators: worked examples of insertion and scoring, and dense attention while all fits.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/cascade_input.hpp"
#include "support/catch.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/cascade.hpp"

using namespace winnow;
using testing::cascade_input;
using testing::cascade_shape;
using ids = std::vector<std::int32_t>;

namespace {

// Tokens one at a time into a cache of one head; tokens are known by their index.
class stepper {
public:
    explicit stepper(cascade_layout const& layout) : in_({.layout = layout, .heads = 1, .max_tokens = 1}) {}
    void insert(float score) {
        in_.draw_step({1});
        auto const p = in_.attend(in_.memory().base());
        p.scores(0, 0, 0) = score;
        REQUIRE(reference::cascade_insert(in_.insert(in_.memory().base()), &losses).ok());
    }
    void insert_until(std::int64_t tokens, float (*score)(std::int64_t)) {
        while (counters().seen < tokens) insert(score(counters().seen));
    }
    ids slots(std::int32_t level) const {  // physical
        auto const c = cache();
        std::int32_t const first = c.layout.slots_before(level);
        return {c.origins(0, 0) + first, c.origins(0, 0) + first + counters().count[level]};
    }
    ids aged(std::int32_t level) const {  // from old to new
        ids const physical = slots(level);
        ids result;
        for (std::size_t i = 0; i < physical.size(); ++i)
            result.push_back(physical[(i + static_cast<std::size_t>(head(level))) % physical.size()]);
        return result;
    }
    std::int32_t head(std::int32_t level) const { return counters().head[level]; }
    ids positions(std::int32_t level) const {
        auto const c = cache();
        std::int32_t first = filled_sinks(c.layout, counters());
        for (std::int32_t i = 0; i < level; ++i) first += counters().count[i];
        ids result;
        for (std::int32_t i = 0; i < counters().count[level]; ++i)
            result.push_back(entry_at(c.layout, counters(), first + i).position);
        return result;
    }
    cascade_counters const& counters() const { return *cache().counters(0); }
    reference::cascade_losses losses;

private:
    cascade_cache<bf16> cache() const { return in_.cache(const_cast<testing::arena&>(in_.memory()).base()); }
    mutable cascade_input<bf16> in_;
};

float none(std::int64_t) { return 0; }

cascade_layout small(std::int32_t levels, std::int32_t size, std::int32_t sinks, bool eager = true) {
    auto layout = even_cascade(sinks, levels * size, levels);
    layout.eager_fill = eager;
    return layout;
}

}  // namespace

TEST_CASE("reference cascade, E1: equal scores, the newcomer wins", "[reference]") {
    stepper s(small(3, 2, 2));
    s.insert_until(8, none);
    CHECK(s.slots(0) == ids{6, 7});
    CHECK(s.slots(1) == ids{4, 5});
    CHECK(s.slots(2) == ids{2, 3});
    CHECK(s.positions(0) == ids{6, 7});
    CHECK(s.positions(1) == ids{4, 5});
    CHECK(s.positions(2) == ids{2, 3});
    s.insert_until(9, none);
    CHECK(s.slots(0) == ids{8, 7});
    CHECK(s.slots(1) == ids{6, 5});
    CHECK(s.slots(2) == ids{4, 3});
    for (std::int32_t i = 0; i < 3; ++i) CHECK(s.head(i) == 1);
    CHECK(s.losses.dropped == ids{2});
    CHECK(s.positions(0) == ids{7, 6});
    CHECK(s.positions(1) == ids{5, 4});
    CHECK(s.positions(2) == ids{3, 2});
    s.insert_until(10, none);
    CHECK(s.slots(0) == ids{8, 9});
    CHECK(s.slots(1) == ids{7, 5});
    CHECK(s.slots(2) == ids{4, 3});
    CHECK(s.losses.defeated == ids{6});
    s.insert_until(12, none);
    CHECK(s.slots(0) == ids{10, 11});
    CHECK(s.slots(1) == ids{7, 9});
    CHECK(s.slots(2) == ids{4, 5});
    CHECK(s.losses.dropped == ids{2, 3});
    s.insert_until(16, none);
    CHECK(s.slots(0) == ids{14, 15});
    CHECK(s.slots(1) == ids{11, 13});
    CHECK(s.slots(2) == ids{9, 7});
    CHECK(s.aged(2) == ids{7, 9});
    s.insert_until(24, none);
    CHECK(s.slots(0) == ids{22, 23});
    CHECK(s.slots(1) == ids{19, 21});
    CHECK(s.slots(2) == ids{17, 15});
    CHECK(s.head(2) == 1);
    CHECK(s.losses.dropped == ids{2, 3, 4, 7, 11});
}

TEST_CASE("reference cascade, E2: fights by score", "[reference]") {
    stepper s(small(2, 2, 1));
    auto const to = [&](std::int64_t tokens) {
        s.insert_until(tokens + 1, [](std::int64_t t) {
            constexpr float scores[] = {0, .1f, .5f, .2f, .4f, .9f, .3f, .35f, .05f, .6f, .7f, .15f, .25f};
            return scores[t];
        });
    };
    auto const both = [&] {
        ids all = s.slots(0);
        for (auto const id : s.slots(1)) all.push_back(id);
        return all;
    };
    to(4);
    CHECK(both() == ids{3, 4, 1, 2});
    to(5);
    CHECK(both() == ids{5, 4, 3, 2});
    CHECK((s.head(0) == 1 && s.head(1) == 1));
    to(6);
    CHECK(both() == ids{5, 6, 4, 2});
    CHECK((s.head(0) == 0 && s.head(1) == 1));
    to(7);
    CHECK(both() == ids{7, 6, 4, 5});
    CHECK((s.head(0) == 1 && s.head(1) == 0));
    to(8);
    CHECK(both() == ids{7, 8, 4, 5});
    to(9);
    CHECK(both() == ids{9, 8, 7, 5});
    CHECK(s.head(1) == 1);
    to(10);
    CHECK(both() == ids{9, 10, 7, 5});
    to(11);
    CHECK(both() == ids{11, 10, 7, 9});
    CHECK((s.head(0) == 1 && s.head(1) == 0));
    to(12);
    CHECK(both() == ids{11, 12, 7, 10});
    CHECK(s.losses.dropped == ids{1, 2, 4, 5});
    CHECK(s.losses.defeated == ids{3, 6, 8, 9});
}

TEST_CASE("reference cascade, E3: without eager filling", "[reference]") {
    stepper s(small(3, 2, 1, false));
    s.insert_until(4, none);
    CHECK(s.slots(0) == ids{3, 2});
    CHECK(s.head(0) == 1);
    CHECK(s.slots(1) == ids{1});
    s.insert_until(5, none);
    CHECK(s.slots(0) == ids{3, 4});
    CHECK(s.head(0) == 0);
    CHECK(s.slots(1) == ids{2});
    s.insert_until(6, none);
    CHECK(s.slots(0) == ids{5, 4});
    CHECK(s.slots(1) == ids{2, 3});
    s.insert_until(9, none);
    CHECK(s.slots(0) == ids{7, 8});
    CHECK(s.slots(1) == ids{6, 4});
    CHECK(s.head(1) == 1);
    CHECK(s.slots(2) == ids{2});
    s.insert_until(12, none);
    CHECK(s.slots(0) == ids{11, 10});
    CHECK(s.head(0) == 1);
    CHECK(s.slots(1) == ids{9, 8});
    CHECK(s.head(1) == 1);
    CHECK(s.slots(2) == ids{2, 6});
}

TEST_CASE("reference cascade, E4: a hundred tokens", "[reference]") {
    stepper s(small(3, 4, 2));
    auto const score = [](std::int64_t t) { return static_cast<float>((37 * t) % 101) / 101; };
    s.insert_until(32, score);
    CHECK(s.aged(0) == ids{28, 29, 30, 31});
    CHECK(s.aged(1) == ids{21, 23, 24, 27});
    CHECK(s.aged(2) == ids{8, 13, 16, 19});
    s.insert_until(100, score);
    CHECK(s.aged(0) == ids{96, 97, 98, 99});
    CHECK(s.aged(1) == ids{89, 90, 92, 95});
    CHECK(s.aged(2) == ids{76, 79, 84, 87});
    CHECK((s.head(0) == 2 && s.head(1) == 3 && s.head(2) == 2));
    CHECK(s.losses.dropped.size() == 22);
    CHECK(s.losses.defeated.size() == 64);
    CHECK(s.positions(0) == ids{12, 13, 10, 11});
    CHECK(s.positions(1) == ids{7, 8, 9, 6});
    CHECK(s.positions(2) == ids{4, 5, 2, 3});
}

namespace {

// Token j has 1 in channels 3 j .. 3 j + 2, and a query's channels there add up to the logit that it gives token j.
void place_logit(bf16* query, int token, double logit) {
    for (int part = 0; part < 3; ++part) {
        query[3 * token + part] = from_float<bf16>(static_cast<float>(logit));
        logit -= static_cast<double>(to_float(query[3 * token + part]));
    }
}

}  // namespace

TEST_CASE("reference cascade, E5: scores fade and add up, sinks apart", "[reference]") {
    // One sink, three slots with scores .4 .1 .3, then two tokens; beta 1/2. No factor 1 - beta.
    cascade_input<bf16> in({.layout = sliding_window(1, 3), .heads = 1, .max_tokens = 4});
    char* const base = in.memory().base();
    auto const set_keys = [&](int first, int count) {
        auto const p = in.attend(base);
        for (int t = 0; t < count; ++t)
            for (int c = 0; c < 64; ++c)
                const_cast<bf16&>(p.keys(0, t, 0, c)) = from_float<bf16>(c / 3 == first + t ? 1.0f : 0.0f);
    };
    set_keys(0, 4);
    float const old[] = {0, .4f, .1f, .3f};
    for (int t = 0; t < 4; ++t) in.attend(base).scores(0, t, 0) = old[t];
    REQUIRE(reference::cascade_insert(in.insert(base)).ok());
    in.draw_step({2});
    set_keys(4, 2);
    auto p = in.attend(base);
    p.scale = 1, p.scorer = {all_queries{}, 0.5};
    double const rows[2][6] = {{.125, .5, .25, 0, .125, 0}, {.1, .2, .2, .1, .3, .1}};
    for (int m = 0; m < 2; ++m)
        for (int c = 0; c < 64; ++c) const_cast<bf16&>(p.queries(0, m, 0, c)) = bf16{0};
    for (int m = 0; m < 2; ++m)
        for (int j = 0; j < 6; ++j)
            place_logit(const_cast<bf16*>(&p.queries(0, m, 0, 0)), j, rows[m][j] > 0 ? std::log(rows[m][j]) : -1000);
    reference::cascade_result exact;
    REQUIRE(reference::cascade_attend(p, &exact).ok());
    double const slots[] = {.25 * .4 + .45, .25 * .1 + .325, .25 * .3 + .1}, tokens[] = {.3625, .1};
    for (std::size_t i = 0; i < 3; ++i) CHECK(exact.slots[i] == Catch::Approx(slots[i]).epsilon(1e-5));
    for (std::size_t i = 0; i < 2; ++i) CHECK(exact.scores[i] == Catch::Approx(tokens[i]).epsilon(1e-5));
    CHECK(p.cache.scores(0, 0)[1] == Catch::Approx(slots[1]).epsilon(1e-5));
    CHECK(p.scores(0, 1, 0) == Catch::Approx(.1).epsilon(1e-5));
    // With the factor of the paper, 1 - beta = 1/2, everything is half of this: comparisons are the same.
    CHECK(exact.scores[0] / 2 == Catch::Approx(.18125).epsilon(1e-5));

    // A second head with (.1, .2) for the new tokens.
    double const heads[2][2] = {{.18125, .1}, {.05, .2}};
    double const most[] = {.18125, .2}, mean[] = {.140625, .125};
    for (int t = 0; t < 2; ++t) {
        auto const of = [&](std::int32_t h) { return heads[t][h]; };
        CHECK(reduce_heads(cascade_reduction::max, 2, of) == most[t]);
        CHECK(reduce_heads(cascade_reduction::mean, 2, of) == Catch::Approx(mean[t]));
    }

    // Only the last row counts: its probabilities, unfaded.
    p.scorer = {last_queries<1>{}, 0.5};
    std::vector<float> before(p.cache.scores(0, 0), p.cache.scores(0, 0) + 3);
    REQUIRE(reference::cascade_attend(p, &exact).ok());
    CHECK(exact.slots[0] == Catch::Approx(.25 * static_cast<double>(before[0]) + .2).epsilon(1e-5));
    CHECK(exact.scores[0] == Catch::Approx(.3).epsilon(1e-5));
    CHECK(exact.scores[1] == Catch::Approx(.1).epsilon(1e-5));
}

TEST_CASE("reference cascade: while nothing has been lost it is dense attention", "[reference]") {
    for (cascade_heads const heads : {cascade_heads::per_kv_head, cascade_heads::shared}) {
        cascade_input<fp16> in({.layout = even_cascade(3, 24, 3),
                                .heads = 4,
                                .kv_heads = 2,
                                .token_heads = heads,
                                .batch = 2,
                                .max_tokens = 27});
        auto const p = in.attend(in.memory().base());
        reference::attend_result dense;
        REQUIRE(reference::attend(chunk_part(p), &dense).ok());
        for (std::int32_t const chunk : {27, 10, 1}) {
            for (std::int32_t s = 0; s < 2; ++s) *p.cache.counters(s) = {};
            cascade_prefill_params<fp16> whole;
            whole.queries = p.queries, whole.keys = p.keys, whole.values = p.values, whole.cache = p.cache;
            whole.output = p.output, whole.lse = p.lse, whole.scale = p.scale, whole.chunk = chunk;
            REQUIRE(reference::cascade_prefill(whole).ok());
            auto const found = in.values_of(p.output);
            for (std::size_t i = 0; i < found.size(); ++i)
                REQUIRE(std::fabs(found[i] - dense.output[i]) <= 1e-3 * (1 + std::fabs(dense.output[i])));
            auto const lse = in.values_of(p.lse.values);
            for (std::size_t i = 0; i < lse.size(); ++i) REQUIRE(lse[i] == Catch::Approx(dense.lse[i]).epsilon(1e-5));
        }
    }
}

TEST_CASE("reference cascade: cached and original positions differ once something is lost", "[reference]") {
    cascade_input<bf16> in({.layout = even_cascade(2, 12, 3), .max_tokens = 40, .rotation = {.theta = 1e4f}});
    char* const base = in.memory().base();
    auto p = in.attend(base);
    auto const lse = [&](cascade_positions positions) {
        reference::cascade_result exact;
        p.positions = positions, p.scores = {};
        REQUIRE(reference::cascade_attend(p, &exact).ok());
        return exact.lse;
    };
    CHECK(lse(cascade_positions::cached) == lse(cascade_positions::original));
    auto const first = in.attend(base);
    reference::cascade_result exact;
    REQUIRE(reference::cascade_attend(first, &exact).ok());
    REQUIRE(reference::cascade_insert(in.insert(base)).ok());
    in.draw_step({5});
    p = in.attend(base);
    CHECK_FALSE(lse(cascade_positions::cached) == lse(cascade_positions::original));
    // Sliding window alone, original positions: relative distances are those of the window, so both agree.
    cascade_input<bf16> window({.layout = sliding_window(0, 12), .max_tokens = 40, .rotation = {.theta = 1e4f}});
    REQUIRE(reference::cascade_insert(window.insert(window.memory().base())).ok());
    window.draw_step({5});
    p = window.attend(window.memory().base());
    auto const a = lse(cascade_positions::cached), b = lse(cascade_positions::original);
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Catch::Approx(b[i]).epsilon(1e-6));
}

TEST_CASE("reference cascade: rounding twin is near, and writes nothing", "[reference]") {
    cascade_input<bf16> in({.layout = even_cascade(2, 12, 3),
                            .heads = 4,
                            .kv_heads = 2,
                            .batch = 2,
                            .max_tokens = 20,
                            .ragged = true,
                            .sequence = {1, -1},
                            .sequences = 2,
                            .rotation = {.theta = 1e4f}});
    in.draw_step({20, 3});
    std::vector<char> const before(in.memory().base(), in.memory().base() + in.memory().size());
    auto const p = in.attend(in.memory().base());
    reference::cascade_result exact, rounded;
    REQUIRE(reference::cascade_attend_rounded(p, rounded).ok());
    CHECK(std::vector<char>(in.memory().base(), in.memory().base() + in.memory().size()) == before);
    REQUIRE(reference::cascade_attend(p, &exact, {.threads = 2}).ok());
    std::size_t written = 0;
    for (std::size_t i = 0; i < exact.output.size(); ++i) {
        REQUIRE(std::isnan(exact.output[i]) == std::isnan(rounded.output[i]));
        if (std::isnan(exact.output[i])) continue;
        ++written;
        REQUIRE(std::fabs(exact.output[i] - rounded.output[i]) < 0.05);
    }
    CHECK(written == 23 * 4 * 64);
    // The padded request: output 0, lse -inf.
    CHECK(exact.output[22 * 4 * 64] == 0);
    CHECK(exact.lse[22 * 4] == -std::numeric_limits<double>::infinity());
}
