// The append oracle: rows by hand, rotations by their properties, slots that lead nowhere.
#include "winnow/reference/append.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/append_input.hpp"
#include "support/catch.hpp"

using namespace winnow;
using testing::append_input;

namespace {

double dot(std::vector<double> const& a, std::vector<double> const& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

std::vector<double> rotated(rope const& r, std::int32_t position, std::vector<double> x) {
    reference::rotate(r, position, x);
    return x;
}

std::vector<double> random_head(std::size_t channels, std::uint64_t seed) {
    testing::random_source random(seed);
    std::vector<double> x(channels);
    for (double& v : x) v = random.normal();
    return x;
}

}  // namespace

TEST_CASE("reference append: rows go to their slots, and nothing else is written", "[reference]") {
    // Two rows of one head of 8 channels into pages of 3 tokens; the third row is padding, the fourth beyond the end.
    std::vector<bf16> keys, values, key_cache(2 * 3 * 8, bf16{7}), value_cache(2 * 3 * 8, bf16{9});
    for (std::uint16_t i = 0; i < 4 * 8; ++i)
        keys.push_back(bf16{static_cast<std::uint16_t>(0x7f00 + i)}),  // NaN among them: bits are bits
            values.push_back(bf16{static_cast<std::uint16_t>(100 + i)});
    std::vector<std::int64_t> const slot{4, 0, -1, 6};
    append_params<bf16> p{.keys = packed_view<bf16 const>(keys.data(), {4, 1, 8}),
                          .values = packed_view<bf16 const>(values.data(), {4, 1, 8}),
                          .key_cache = packed_view(key_cache.data(), {2, 3, 1, 8}),
                          .value_cache = packed_view(value_cache.data(), {2, 3, 1, 8}),
                          .slot = slot.data()};
    reference::append_result exact;
    REQUIRE(reference::append(p, &exact).ok());
    for (std::size_t token = 0; token < 6; ++token)
        for (std::size_t c = 0; c < 8; ++c) {
            std::size_t const row = token == 4 ? 0 : 1;
            bool const written = token == 4 || token == 0;
            CHECK(key_cache[token * 8 + c].bits == (written ? keys[row * 8 + c].bits : 7));
            CHECK(value_cache[token * 8 + c].bits == (written ? values[row * 8 + c].bits : 9));
        }
    CHECK(exact.keys.size() == 4 * 8);
    CHECK(exact.queries.empty());
    // Keys only.
    p.values = {}, p.value_cache = {};
    std::vector<bf16> const before = value_cache;
    key_cache.assign(key_cache.size(), bf16{7});
    REQUIRE(reference::append(p).ok());
    CHECK(key_cache[4 * 8].bits == keys[0].bits);
    CHECK(value_cache[0].bits == before[0].bits);
}

TEST_CASE("reference append: places of slots", "[reference]") {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max(), large = std::int64_t{1} << 31;
    CHECK(place_of(0, 1, 1) == cache_place{0, 0});
    CHECK(place_of(35, 3, 16) == cache_place{2, 3});
    CHECK(place_of(47, 3, 16) == cache_place{2, 15});
    for (std::int64_t const slot : {std::int64_t{48}, std::int64_t{-1}, most, -most - 1})
        CHECK(place_of(slot, 3, 16).page == -1);
    CHECK(place_of(0, 0, 16).page == -1);
    CHECK(place_of(large * 3 + 5, large, 4) == cache_place{(large * 3 + 5) / 4, 1});
    CHECK(place_of(max_tokens * max_tokens - 1, max_tokens, max_tokens) == cache_place{max_tokens - 1, max_tokens - 1});
}

TEST_CASE("reference append: a rotation turns pairs by position times frequency", "[reference]") {
    rope r{.theta = 1e4f};
    std::vector<double> x(16, 0.0);
    x[0] = 1, x[3] = 1;
    auto y = rotated(r, 5, x);
    CHECK(y[0] == Catch::Approx(std::cos(5.0)));
    CHECK(y[8] == Catch::Approx(std::sin(5.0)));
    double const angle = 5 * std::pow(1e4, -6.0 / 16);
    CHECK(y[3] == Catch::Approx(std::cos(angle)));
    CHECK(y[11] == Catch::Approx(std::sin(angle)));
    r.pairing = rope_pairing::adjacent;
    y = rotated(r, 5, x);
    CHECK(y[0] == Catch::Approx(std::cos(5.0)));
    CHECK(y[1] == Catch::Approx(std::sin(5.0)));
    double const second = 5 * std::pow(1e4, -2.0 / 16);
    CHECK(y[3] == Catch::Approx(std::cos(second)));
    CHECK(y[2] == Catch::Approx(-std::sin(second)));
    // A table stands for theta.
    std::vector<float> const table(8, 0.25f);
    r.inverse_frequency = table.data();
    y = rotated(r, 4, x);
    CHECK(y[1] == Catch::Approx(std::sin(1.0)));
    CHECK(y[3] == Catch::Approx(std::cos(1.0)));
}

TEST_CASE("reference append: rotation keeps lengths, and products depend on distance alone", "[reference]") {
    for (rope_pairing const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int32_t const rotary : {0, 32}) {
            rope const r{.theta = 5e5f, .rotary_dim = rotary, .pairing = pairing};
            auto const q = random_head(64, 1), k = random_head(64, 2);
            CHECK(rotated(r, 0, q) == q);
            double const near = dot(rotated(r, 40, q), rotated(r, 7, k));
            for (std::int32_t const shift : {1, 1000, 3000000}) {
                auto const a = rotated(r, 40 + shift, q), b = rotated(r, 7 + shift, k);
                CHECK(dot(a, a) == Catch::Approx(dot(q, q)).epsilon(1e-12));
                CHECK(std::fabs(dot(a, b) - near) < 1e-7);
                for (std::size_t c = 32; rotary > 0 && c < 64; ++c) CHECK(a[c] == q[c]);
            }
        }
}

TEST_CASE("reference append: queries are rotated in place, whatever their slot", "[reference]") {
    append_input<fp16> in({.rows = 6,
                           .kv_heads = 2,
                           .heads = 4,
                           .fused = true,
                           .astray = true,
                           .rotation = {.theta = 1e4f, .rotary_dim = 32},
                           .positions = {0, 1, 77}});
    auto memory = in.memory();
    auto const p = in.params(memory.base()), before = in.params();
    reference::append_result exact;
    REQUIRE(reference::append(p, &exact).ok());
    CHECK(in.mismatch(memory.base()) == "");
    for (std::int64_t row = 0; row < 6; ++row)
        for (std::int64_t h = 0; h < 4; ++h)
            for (std::int64_t c = 0; c < 64; ++c) {
                double const value = exact.queries[static_cast<std::size_t>((row * 4 + h) * 64 + c)];
                CHECK(p.queries(row, h, c).bits == from_float<fp16>(static_cast<float>(value)).bits);
                if (c >= 32 || row % 3 == 0) CHECK(p.queries(row, h, c).bits == before.queries(row, h, c).bits);
            }
}

TEST_CASE("reference append: the comparison of memory finds what is wrong", "[reference]") {
    append_input<bf16> in(
        {.rows = 5, .kv_heads = 2, .heads = 2, .rotation = {.theta = 1e4f}, .positions = {9, 3000000}});
    auto good = in.memory();
    REQUIRE(reference::append(in.params(good.base())).ok());
    CHECK(in.mismatch(good.base()) == "");
    CHECK(in.mismatch(in.memory().base()) != "");  // nothing appended
    auto const spoilt = [&](auto const& spoil) {
        auto memory = good;
        spoil(in.params(memory.base()));
        return in.mismatch(memory.base()) != "";
    };
    CHECK(spoilt([](auto const& p) { p.queries(4, 1, 3).bits ^= 2; }));
    CHECK(spoilt([](auto const& p) { p.value_cache(0, 0, 0, 0).bits ^= 1; }));
    CHECK(spoilt([](auto const& p) { p.key_cache(1, 15, 1, 63).bits ^= 2; }));
    CHECK(spoilt([](auto const& p) { p.key_cache.data[p.key_cache.offset(0, 15, 1, 63) + 1].bits ^= 1; }));  // the gap
}
