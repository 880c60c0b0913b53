// The rounded twin and the tolerance derived from it: close to the oracle, and tight enough to notice a dropped key.
#include "winnow/reference/rounded.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "support/tolerance.hpp"

using namespace winnow;
using testing::attend_input;

TEMPLATE_TEST_CASE("rounded twin: within rounding of the oracle, and not exact", "[reference]", bf16, fp16) {
    for (std::int32_t const head_dim : {64, 128, 256})
        for (float const cap : {0.0f, 5.0f}) {
            attend_input<TestType> in({.queries = {20}, .keys = {300}, .heads = 2, .head_dim = head_dim});
            auto p = in.params();
            p.soft_cap = cap;
            p.window = {16, 100};
            reference::attend_result oracle, rounded;
            REQUIRE(reference::attend(p, &oracle).ok());
            REQUIRE(reference::attend_rounded(p, rounded).ok());
            auto const off = testing::distance_of(rounded.output, oracle.output);
            CHECK(off.most > 0);
            CHECK(off.most < 4 * testing::unit_roundoff<TestType>);
            CHECK(testing::distance_of(rounded.lse, oracle.lse).most < 1e-5);
            // The oracle's own output, rounded once, passes.
            auto const verdict = testing::compare<TestType>(in.output(), oracle.output, rounded.output);
            INFO(verdict.message);
            CHECK(verdict.ok);
            CHECK(testing::compare_lse(in.lse(), oracle.lse, rounded.lse).ok);
        }
}

TEST_CASE("rounded twin: leaves params' tensors alone", "[reference]") {
    attend_input<bf16> in({.queries = {5}, .keys = {30}});
    reference::attend_result rounded;
    REQUIRE(reference::attend_rounded(in.params(), rounded).ok());
    for (double const x : in.output()) REQUIRE(std::isnan(x));
    for (double const x : in.lse()) CHECK(std::isnan(x));
}

TEST_CASE("rounded twin: rows without a key, rows out of range, NaN", "[reference]") {
    attend_input<bf16> in({.queries = {6}, .keys = {4}});
    in.key(0, 3, 0, 1) = from_float<bf16>(std::numeric_limits<float>::quiet_NaN());
    auto p = in.params();
    p.range = row_range::without_tail, p.tail = 1;
    reference::attend_result oracle, rounded;
    REQUIRE(reference::attend(p, &oracle).ok());
    REQUIRE(reference::attend_rounded(p, rounded).ok());
    CHECK(testing::misplaced(rounded.output, oracle.output) == oracle.output.size());
    CHECK(testing::misplaced(rounded.lse, oracle.lse) == oracle.lse.size());
    CHECK(rounded.output[0] == 0);
    CHECK(std::isnan(rounded.output[5 * 64]));
}

TEST_CASE("tolerance: notices a dropped key, a wrong scale and a misplaced NaN", "[reference]") {
    attend_input<bf16> in({.queries = {32}, .keys = {1000}, .heads = 2});
    auto p = in.params();
    p.window = {0, 900};
    reference::attend_result oracle, rounded;
    REQUIRE(reference::attend(p, &oracle).ok());
    REQUIRE(reference::attend_rounded(p, rounded).ok());
    CHECK(testing::compare<bf16>(rounded.output, oracle.output, rounded.output).ok);
    auto const fails = [&](attend_params<bf16> const& wrong) {
        attend_input<bf16> other({.queries = {32}, .keys = {1000}, .heads = 2});
        auto q = other.params();
        q.window = wrong.window, q.scale = wrong.scale;
        REQUIRE(reference::attend(q).ok());
        return !testing::compare<bf16>(other.output(), oracle.output, rounded.output).ok;
    };
    auto wrong = p;
    wrong.window.recent = 899;
    CHECK(fails(wrong));
    wrong = p;
    wrong.scale *= 1.01f;
    CHECK(fails(wrong));
    auto values = rounded.output;
    values[17] = std::numeric_limits<double>::quiet_NaN();
    CHECK_FALSE(testing::compare<bf16>(values, oracle.output, rounded.output).ok);
    values.pop_back();
    CHECK_FALSE(testing::compare<bf16>(values, oracle.output, rounded.output).ok);
    auto lse = rounded.lse;
    lse[3] += 1e-3;
    CHECK_FALSE(testing::compare_lse(lse, oracle.lse, rounded.lse).ok);
}
