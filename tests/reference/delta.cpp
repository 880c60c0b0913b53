// The oracle of delta correction: the exact worked example, the example that bf16 steps get wrong, and its properties.
#include "winnow/reference/delta.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/delta_input.hpp"
#include "support/random_input.hpp"

using namespace winnow;
using Catch::Approx;
using testing::attend_input;

namespace {

template <class T>
delta_params<T> delta_of(attend_params<T> const& a, std::int32_t gamma, std::int32_t tail,
                         delta_form form = delta_form::complement) {
    return {.base = a, .options = {.gamma = gamma, .dense_tail = tail, .form = form}};
}

reference::attend_result run(delta_params<bf16> const& p) {
    reference::attend_result exact;
    status const s = reference::delta(p, &exact);
    INFO(s.field << " " << s.rule << " " << s.value);
    REQUIRE(s.ok());
    return exact;
}

reference::attend_result dense(attend_params<bf16> p) {
    reference::attend_result exact;
    p.window = {}, p.selection = {};
    REQUIRE(reference::attend(p, &exact).ok());
    return exact;
}

void check_near(std::vector<double> const& found, std::vector<double> const& expected, double allowed) {
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        INFO("at " << i << ": " << found[i] << ", expected " << expected[i]);
        CHECK((found[i] == expected[i] || std::fabs(found[i] - expected[i]) <= allowed));
    }
}

constexpr delta_form every_form[] = {delta_form::complement, delta_form::difference, delta_form::mass_preserving,
                                     delta_form::recompute};

}  // namespace

TEST_CASE("delta oracle: the worked example, every form") {
    auto in =
        testing::weighted_input<bf16>({2, 0, 1, 0, 0, 1, 0, 2, 0, 0, 1, 0}, {0, 12, -6, 3, 9, -3, 6, -9, 3, 0, 6, -12});
    auto p = in.params();
    p.scale = testing::ln_two, p.window = {.sinks = 1, .recent = 2};
    std::vector<double> const tail = {-21.0 / 17, -7.0 / 6, -9.0 / 20, -1};
    auto const check = [&](delta_form form, std::vector<double> expected) {
        expected.insert(expected.end(), tail.begin(), tail.end());
        auto const found = run(delta_of(p, 4, 4, form));
        std::vector<double> channel;
        for (std::size_t i = 0; i < 12; ++i) channel.push_back(found.output[i * 64]);
        INFO("form " << static_cast<int>(form));
        check_near(channel, expected, 1e-6);
    };
    check(delta_form::complement, {0, 12.0 / 5, 0, -9.0 / 7, 4.0 / 3, -5.0 / 21, -2.0 / 3, -4});
    check(delta_form::difference, {0, 12.0 / 5, 0, -9.0 / 7, 4.0 / 3, -5.0 / 21, -2.0 / 3, -4});
    check(delta_form::recompute, {0, 12.0 / 5, 0, -9.0 / 7, 4.0 / 3, 3.0 / 7, 0, -10.0 / 3});
    check(delta_form::mass_preserving, {0, 12.0 / 5, 0, -9.0 / 7, 4.0 / 3, 3.0 / 10, 0, -5.0 / 2});
    // lse: dense at anchors and in the tail, the sparse row's own elsewhere, or that of the masses together.
    auto const added = run(delta_of(p, 4, 4)), mass = run(delta_of(p, 4, 4, delta_form::mass_preserving));
    CHECK(added.lse[4] == Approx(std::log(9.0)));  // keys 0 .. 4
    CHECK(added.lse[5] == Approx(std::log(7.0)));  // keys 0, 4, 5
    CHECK(mass.lse[5] == Approx(std::log(10.0)));  // and the 3 of keys 1 and 2, as at row 4
    CHECK(added.lse[8] == Approx(std::log(17.0)));
}

TEST_CASE("delta oracle: a correction that bf16 steps get wrong") {
    auto in = testing::cancelling_input<bf16>();
    auto p = in.params();
    p.scale = testing::ln_two, p.window = {.sinks = 0, .recent = 2};
    double const exact = testing::cancelling_result();
    auto const found = run(delta_of(p, 4, 0));  // rows 4 and 5 are the tail
    CHECK(found.output[5 * 64] != Approx(exact));
    auto chunk = delta_of(p, 4, 0);
    chunk.options.last_chunk = false;
    CHECK(run(chunk).output[5 * 64] == Approx(exact).epsilon(1e-5));
    auto const bits = [](double x) { return static_cast<double>(to_float(from_float<bf16>(static_cast<float>(x)))); };
    CHECK(in.output()[5 * 64] == bits(exact));
    // The same by steps: what a kernel must not do.
    double const dense_anchor = bits((9 * -1.203125 + 8 * 1.2734375 + 1.28125) / 18);
    double const sparse_anchor = bits((8 * 1.2734375 + 1.28125) / 9), sparse = bits((1.28125 + 2 * 1.2421875) / 3);
    double const steps = bits(sparse + bits(dense_anchor - sparse_anchor));
    CHECK(std::fabs(steps - exact) > 0.4 * exact);
    reference::attend_result rounded;
    REQUIRE(reference::delta_rounded(chunk, rounded).ok());
    CHECK(std::fabs(rounded.output[5 * 64] - exact) < 0.05 * exact);
}

TEST_CASE("delta oracle: where it is dense attention") {
    attend_input<bf16> in({.queries = {90, 90}, .keys = {90, 130}, .heads = 4, .kv_heads = 2});
    auto p = in.params();
    auto const expected = dense(p);
    for (auto const form : every_form) {
        INFO("form " << static_cast<int>(form));
        p.window = {.sinks = 30, .recent = 110};  // everything is seen
        auto found = run(delta_of(p, 16, 20, form));
        check_near(found.output, expected.output, 1e-12);
        check_near(found.lse, expected.lse, 1e-12);
        p.window = {.sinks = 3, .recent = 10};
        found = run(delta_of(p, 1, 20, form));  // every row is an anchor
        CHECK((found.output == expected.output));
        found = run(delta_of(p, 16, 90, form));  // every row is in the tail
        CHECK((found.output == expected.output));
        found = run(delta_of(p, 64, 1 << 30, form));
        CHECK((found.lse == expected.lse));
    }
}

TEST_CASE("delta oracle: constant values come out as they are; anchors and tail do not depend on the form") {
    attend_input<bf16> in({.queries = {70}, .keys = {100}, .heads = 2, .kv_heads = 1});
    auto p = in.params();
    p.window = {.sinks = 4, .recent = 9};
    auto const added = run(delta_of(p, 16, 10)), mass = run(delta_of(p, 16, 10, delta_form::mass_preserving)),
               again = run(delta_of(p, 16, 10, delta_form::recompute));
    std::size_t equal = 0;
    for (std::int32_t row = 0; row < 70; ++row) {  // positions 30 ..; the tail begins at position 80
        bool const exact = row == 0 || (30 + row) % 16 == 0 || row >= 50;
        for (std::size_t i = static_cast<std::size_t>(row) * 128; i < static_cast<std::size_t>(row + 1) * 128; ++i) {
            if (exact) CHECK((added.output[i] == again.output[i] && mass.output[i] == again.output[i]));
            equal += !exact && added.output[i] == again.output[i];
        }
    }
    CHECK(equal < 20);
    for (std::int32_t j = 0; j < 100; ++j)
        for (std::int32_t c = 0; c < 64; ++c) in.value(0, j, 0, c) = from_float<bf16>(2.5f);
    for (auto const form : every_form)
        check_near(run(delta_of(p, 16, 10, form)).output, std::vector<double>(70 * 128, 2.5), 1e-12);
}

TEST_CASE("delta oracle: a key changes no row before it") {
    attend_input<bf16> in({.queries = {80}, .keys = {80}, .heads = 2, .kv_heads = 2});
    auto p = in.params();
    p.window = {.sinks = 2, .recent = 6};
    for (auto const form : every_form) {
        auto const before = run(delta_of(p, 12, 13, form));
        std::int32_t const changed = 41;
        auto const key = in.key(0, changed, 1, 0);
        in.key(0, changed, 1, 0) = from_float<bf16>(50.0f);
        auto const after = run(delta_of(p, 12, 13, form));
        in.key(0, changed, 1, 0) = key;
        CHECK(std::equal(before.output.begin(), before.output.begin() + changed * 128, after.output.begin()));
        CHECK(before.output != after.output);
    }
}

TEST_CASE("delta oracle: chunks that begin at anchors give the rows of the whole prompt") {
    std::int32_t const keys = 200;
    attend_input<bf16> whole({.queries = {keys}, .keys = {keys}, .heads = 2, .kv_heads = 1});
    auto p = whole.params();
    p.window = {.sinks = 8, .recent = 20};
    for (auto const form : every_form) {
        auto const all = run(delta_of(p, 16, 30, form));
        for (std::int32_t const at : {96, 100}) {
            auto first = delta_of(p, 16, 30, form), second = first;
            first.base.queries.extent[1] = first.base.output.extent[1] = first.base.lse.values.extent[1] = at;
            first.base.mask = causal{0};
            first.options.last_chunk = false;
            for (auto* const view : {&second.base.output}) view->data += at * view->stride[1], view->extent[1] -= at;
            second.base.queries.data += at * second.base.queries.stride[1], second.base.queries.extent[1] -= at;
            second.base.lse.values.data += at * 2, second.base.lse.values.extent[1] -= at;
            auto const a = run(first), b = run(second);
            std::size_t const width = 128, cut = static_cast<std::size_t>(at) * width;
            CHECK(std::equal(a.output.begin(), a.output.end(), all.output.begin()));
            // A chunk that begins between two anchors has its own until the next.
            std::size_t const same = static_cast<std::size_t>(at == 96 ? 0 : 12) * width;
            CHECK(std::equal(b.output.begin() + static_cast<std::ptrdiff_t>(same), b.output.end(),
                             all.output.begin() + static_cast<std::ptrdiff_t>(cut + same)));
            CHECK((same == 0 || form == delta_form::recompute ||
                   !std::equal(b.output.begin(), b.output.begin() + static_cast<std::ptrdiff_t>(same),
                               all.output.begin() + static_cast<std::ptrdiff_t>(cut))));
        }
    }
}

TEST_CASE("delta oracle: requests of a ragged batch have their own tails and anchors") {
    attend_input<bf16> together(
        {.queries = {5, 0, 70, 33}, .keys = {5, 9, 150, 33}, .heads = 2, .kv_heads = 2, .ragged_queries = true});
    auto p = together.params();
    p.window = {.sinks = 2, .recent = 7};
    auto const all = run(delta_of(p, 10, 8));
    std::int32_t first = 2;
    for (std::size_t b = 0; b < 4; ++b) {
        std::int32_t const rows = together.shape().queries[b];
        auto one = delta_of(p, 10, 8);
        one.base.rows.start += b, one.base.rows.batch = 1;
        one.base.kv.length += b;
        for (auto* const view : {&one.base.keys, &one.base.values})
            view->data += static_cast<std::int64_t>(b) * view->stride[0], view->extent[0] = 1;
        auto const alone = run(one);
        auto const from = static_cast<std::ptrdiff_t>(first) * 128, to = from + static_cast<std::ptrdiff_t>(rows) * 128;
        CHECK(std::equal(alone.output.begin() + from, alone.output.begin() + to, all.output.begin() + from));
        first += rows;
    }
    CHECK(std::isnan(all.output[0]));  // rows of no request
}

TEST_CASE("delta oracle: rows before position 0, and requests without keys") {
    attend_input<bf16> in({.queries = {30, 30}, .keys = {12, 0}, .heads = 1});
    auto p = in.params();
    p.window = {.sinks = 1, .recent = 3};
    for (auto const form : every_form) {
        auto const found = run(delta_of(p, 8, 2, form));
        for (std::size_t row = 0; row < 60; ++row) {
            bool const empty = row < 18 || row >= 30;
            CHECK((found.output[row * 64] == 0) == empty);
            CHECK(std::isinf(found.lse[row]) == empty);
        }
    }
}
