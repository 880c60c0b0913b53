// Rotary embedding: pairs of channels, and angles that stay exact at every position.
#include "winnow/core/rope.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"

using namespace winnow;

namespace {

constexpr std::int32_t last = std::numeric_limits<std::int32_t>::max();
constexpr std::int32_t positions[] = {0,       1,  2,       63,      4096, 131071,   1000003,
                                      3000000, -1, -131071, 1 << 27, last, -last - 1};

// Distance on the unit circle between the angle of the library and position * frequency, in more than double.
double off(float half, std::int32_t position, long double frequency) {
    long double const angle = static_cast<long double>(position) * frequency, pi = std::acos(-1.0L);
    long double const found = pi * static_cast<long double>(half);
    return static_cast<double>(std::hypot(std::cos(angle) - std::cos(found), std::sin(angle) - std::sin(found)));
}

constexpr double rounding = 3.1416 * 0x1p-25;  // half an ulp of half turns in [0.5, 1], in radians

}  // namespace

TEST_CASE("rope: an angle is off by its one rounding at every position, with frequencies from a table", "[core]") {
    for (float const frequency : {1.0f, 0.8659643f, 0.1f, 1.3e-3f, 1e-6f, 2.5f, 100.25f, -0.7f, 0.0f})
        for (std::int32_t const p : positions) {
            // A product of 24 and 32 bits is exact in a long double of 64 and rounded where it has 53.
            double const comparison = std::numeric_limits<long double>::digits > 60
                                          ? 1e-9
                                          : std::fabs(double{frequency} * p) * 0x1p-53 + 1e-9;
            INFO("frequency " << frequency << ", position " << p);
            CHECK(off(half_turns(turns_of(frequency), p), p, frequency) <= rounding + comparison);
        }
}

TEST_CASE("rope: angles from theta are as exact up to position 2^27, and within 2^-20 beyond", "[core]") {
    for (float const theta : {1.0f, 100.0f, 1e4f, 5e5f, 1e6f, 3e8f})
        for (std::int32_t const pairs : {8, 40, 48, 64, 128, 512}) {
            rope const r{.theta = theta, .rotary_dim = 2 * pairs};
            for (std::int32_t i = 0; i < pairs; i += pairs / 8)
                for (std::int32_t const p : positions) {
                    double const f = frequency_of(r, std::log2(static_cast<double>(theta)), pairs, i);
                    long double const exact =
                        std::pow(static_cast<long double>(theta), -static_cast<long double>(i) / pairs);
                    INFO("theta " << theta << ", pair " << i << " of " << pairs << ", position " << p);
                    CHECK(off(half_turns(turns_of(f), p), p, exact) <=
                          rounding + std::fabs(static_cast<double>(p)) * 0x1p-51);
                }
        }
}

TEST_CASE("rope: half turns at places known by hand", "[core]") {
    constexpr std::uint64_t quarter = std::uint64_t{1} << 62;
    CHECK(half_turns(quarter, 0) == 0);
    CHECK(half_turns(quarter, 1) == 0.5f);
    CHECK(std::fabs(half_turns(quarter, 2)) == 1);
    CHECK(half_turns(quarter, 3) == -0.5f);
    CHECK(half_turns(quarter, 4) == 0);
    CHECK(half_turns(quarter, -1) == -0.5f);
    CHECK(half_turns(quarter, last) == -0.5f);  // 2^31 - 1 is 3 modulo 4
    double const pi = std::acos(-1.0);
    CHECK(turns_of(2 * pi) + 4096 < 8192);  // a whole turn, as far as double holds 2 pi
    CHECK(half_turns(turns_of(pi / 2), 1) == 0.5f);
    static_assert(half_turns(quarter, 5) == 0.5f);
}

TEST_CASE("rope: frequencies that are no numbers or absurd count as 0", "[core]") {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    for (double const f : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity, 1e30, -0x1.8p32})
        CHECK(turns_of(f) == 0);
    CHECK(turns_of(0x1p32) != 0);
    // The smallest steps, on both sides of 0.
    for (double const f : {1e-300, -1e-300, 1e-20, -1e-20}) CHECK(turns_of(f) + 1 <= 2);
    CHECK(turns_of(-0.25) == 0 - turns_of(0.25));
}

TEST_CASE("rope: every channel that turns is in one pair", "[core]") {
    for (rope_pairing const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int32_t const pairs : {8, 24, 64}) {
            std::vector<int> seen(static_cast<std::size_t>(2 * pairs), 0);
            for (std::int32_t i = 0; i < pairs; ++i) {
                channel_pair const c = channels_of(pairing, pairs, i);
                ++seen[static_cast<std::size_t>(c.first)], ++seen[static_cast<std::size_t>(c.second)];
            }
            CHECK(seen == std::vector<int>(static_cast<std::size_t>(2 * pairs), 1));
        }
    CHECK(channels_of(rope_pairing::halves, 8, 3) == channel_pair{3, 11});
    CHECK(channels_of(rope_pairing::adjacent, 8, 3) == channel_pair{6, 7});
}

TEST_CASE("rope: what a rotation covers", "[core]") {
    float const table[] = {1};
    CHECK(rope{}.empty());
    CHECK(rope{}.pairs(128) == 0);
    CHECK((rope{.theta = 1e4f}.pairs(128) == 64));
    CHECK((rope{.theta = 1e4f, .rotary_dim = 32}.pairs(128) == 16));
    CHECK((rope{.rotary_dim = 32, .inverse_frequency = table}.pairs(128) == 16));
    CHECK((rope{.rotary_dim = 32}.pairs(128) == 0));
}
