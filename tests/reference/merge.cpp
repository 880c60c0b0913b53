// The merging oracle: identity, associativity, and parts of an attention call that merge to the whole.
#include "winnow/reference/merge.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/reference/attend.hpp"

using namespace winnow;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

struct part {
    std::vector<float> output;  // [row, channel]
    std::vector<float> lse;
};

part merged(std::vector<part> const& parts, std::int64_t channels, lse_base base = lse_base::natural) {
    auto const rows = static_cast<std::int64_t>(parts[0].lse.size());
    std::vector<float> outputs, lses;
    for (part const& p : parts) {
        outputs.insert(outputs.end(), p.output.begin(), p.output.end());
        lses.insert(lses.end(), p.lse.begin(), p.lse.end());
    }
    part result{std::vector<float>(static_cast<std::size_t>(rows * channels), -9.0f),
                std::vector<float>(static_cast<std::size_t>(rows), -9.0f)};
    auto const count = static_cast<std::int64_t>(parts.size());
    merge_params<float> m;
    m.outputs = packed_view<float const>(outputs.data(), {count, rows, 1, channels});
    m.lses = packed_view<float const>(lses.data(), {count, rows, 1});
    m.base = base;
    m.output = packed_view(result.output.data(), {rows, 1, channels});
    m.lse = packed_view(result.lse.data(), {rows, 1});
    REQUIRE(reference::merge(m).ok());
    return result;
}

part random_part(testing::random_source& random, std::size_t rows, std::size_t channels) {
    part p;
    for (std::size_t i = 0; i < rows * channels; ++i) p.output.push_back(static_cast<float>(random.normal()));
    for (std::size_t i = 0; i < rows; ++i) p.lse.push_back(static_cast<float>(10 * random.normal()));
    return p;
}

double difference(part const& a, part const& b) {
    double most = 0;
    for (std::size_t i = 0; i < a.output.size(); ++i) most = std::fmax(most, std::fabs(a.output[i] - b.output[i]));
    for (std::size_t i = 0; i < a.lse.size(); ++i) most = std::fmax(most, std::fabs(a.lse[i] - b.lse[i]));
    return most;
}

}  // namespace

TEST_CASE("reference merge: two parts by hand", "[reference]") {
    part const r = merged({{{1, 2}, {std::log(1.0f)}}, {{5, -2}, {std::log(3.0f)}}}, 2);
    CHECK(r.output[0] == Catch::Approx(0.25 * 1 + 0.75 * 5));
    CHECK(r.output[1] == Catch::Approx(0.25 * 2 - 0.75 * 2));
    CHECK(r.lse[0] == Catch::Approx(std::log(4.0)));
    part const two = merged({{{1, 2}, {0}}, {{5, -2}, {1}}}, 2, lse_base::two);
    CHECK(two.output[0] == Catch::Approx((1 * 1 + 2 * 5) / 3.0));
    CHECK(two.lse[0] == Catch::Approx(std::log2(3.0)));
}

TEST_CASE("reference merge: (0, -inf) is the identity, whatever its output holds", "[reference]") {
    testing::random_source random(3);
    part const a = random_part(random, 5, 4);
    part none{std::vector<float>(20, std::numeric_limits<float>::quiet_NaN()), std::vector<float>(5, -infinity)};
    CHECK(merged({a}, 4).output == a.output);
    CHECK(merged({a, none}, 4).output == a.output);
    CHECK(merged({none, a, none}, 4).output == a.output);
    CHECK(merged({none, a}, 4).lse == a.lse);
    part const empty = merged({none, none}, 4);
    CHECK(empty.output == std::vector<float>(20, 0.0f));
    CHECK(empty.lse == none.lse);
}

TEST_CASE("reference merge: associative and commutative up to rounding", "[reference]") {
    testing::random_source random(4);
    for (int i = 0; i < 20; ++i) {
        part const a = random_part(random, 6, 8), b = random_part(random, 6, 8), c = random_part(random, 6, 8);
        part const all = merged({a, b, c}, 8);
        CHECK(difference(merged({merged({a, b}, 8), c}, 8), all) < 4e-6);
        CHECK(difference(merged({a, merged({b, c}, 8)}, 8), all) < 4e-6);
        CHECK(difference(merged({c, a, b}, 8), all) < 4e-6);
    }
}

TEST_CASE("reference merge: large lse values neither overflow nor lose the sum", "[reference]") {
    part const r = merged({{{1}, {3e4f}}, {{3}, {3e4f}}, {{7}, {-3e4f}}}, 1);
    CHECK(r.output[0] == 2);
    CHECK(r.lse[0] == Catch::Approx(3e4 + std::log(2.0)));
}

TEST_CASE("reference merge: disjoint keys of one call merge to the whole", "[reference]") {
    testing::attend_input<fp16> in({.queries = {6}, .keys = {100}, .heads = 3});
    for (lse_base const base : {lse_base::natural, lse_base::two}) {
        auto p = in.params();
        p.lse.base = base;
        p.mask = full{};
        reference::attend_result whole, left, right;
        REQUIRE(reference::attend(p, &whole).ok());
        auto piece = p;
        piece.keys.extent[1] = piece.values.extent[1] = 37;
        piece.kv = {};
        REQUIRE(reference::attend(piece, &left).ok());
        piece.keys.extent[1] = piece.values.extent[1] = 63;
        piece.keys.data += p.keys.offset(0, 37), piece.values.data += p.values.offset(0, 37);
        REQUIRE(reference::attend(piece, &right).ok());
        auto const floats = [](std::vector<double> const& x) { return std::vector<float>(x.begin(), x.end()); };
        part const m =
            merged({{floats(left.output), floats(left.lse)}, {floats(right.output), floats(right.lse)}}, 64, base);
        CHECK(difference(m, {floats(whole.output), floats(whole.lse)}) < 3e-6);
    }
}

TEST_CASE("reference merge: strided views, half-precision outputs, unrounded results", "[reference]") {
    // Two parts, two rows, one head, four channels, with gaps between rows.
    std::vector<fp16> outputs(2 * 2 * 8, from_float<fp16>(99.0f)), output(2 * 8, from_float<fp16>(-1.0f));
    std::vector<float> const lses = {0, 0, 0, 0};
    merge_params<fp16> p;
    p.outputs = packed_view<fp16 const>(outputs.data(), {2, 2, 1, 8});
    p.outputs.extent[3] = 4;
    for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t c = 0; c < 4; ++c) outputs[i * 8 + c] = from_float<fp16>(static_cast<float>(i));
    p.lses = packed_view<float const>(lses.data(), {2, 2, 1});
    p.output = packed_view(output.data(), {2, 1, 8});
    p.output.extent[2] = 4;
    reference::merge_result exact;
    REQUIRE(reference::merge(p, &exact).ok());
    CHECK(to_float(output[0]) == 1);
    CHECK(to_float(output[8]) == 2);
    CHECK(to_float(output[4]) == -1);  // the gap
    CHECK(exact.output.size() == 8);
    CHECK(exact.lse[1] == Catch::Approx(std::log(2.0)));
}
