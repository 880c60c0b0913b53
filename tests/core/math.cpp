// Integer arithmetic of schedules, exact division, and the order of scores.
#include "winnow/core/math.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"

using namespace winnow;

TEST_CASE("math: rounding up and down", "[core]") {
    STATIC_REQUIRE(ceil_div(0, 8) == 0);
    STATIC_REQUIRE(ceil_div(1, 8) == 1);
    STATIC_REQUIRE(ceil_div(8, 8) == 1);
    STATIC_REQUIRE(ceil_div(9, 8) == 2);
    STATIC_REQUIRE(round_up(9, 8) == 16);
    STATIC_REQUIRE(round_down(15, 8) == 8);
    STATIC_REQUIRE(smaller(3, 4) == 3);
    STATIC_REQUIRE(larger(3, 4) == 4);
    STATIC_REQUIRE(round_up<std::int64_t>((std::int64_t{1} << 40) + 1, 256) == (std::int64_t{1} << 40) + 256);
}

TEST_CASE("math: powers of two", "[core]") {
    STATIC_REQUIRE(!is_power_of_two(0));
    STATIC_REQUIRE(is_power_of_two(1));
    STATIC_REQUIRE(!is_power_of_two(6));
    STATIC_REQUIRE(!is_power_of_two(-8));
    STATIC_REQUIRE(is_power_of_two(std::int64_t{1} << 40));
    STATIC_REQUIRE(ceil_log2(1) == 0);
    STATIC_REQUIRE(ceil_log2(2) == 1);
    STATIC_REQUIRE(ceil_log2(3) == 2);
    STATIC_REQUIRE(ceil_log2(1024) == 10);
    STATIC_REQUIRE(ceil_log2(1025) == 11);
}

TEST_CASE("math: fast_divider divides as the compiler does", "[core]") {
    std::int32_t const most = std::numeric_limits<std::int32_t>::max();
    std::vector<std::int32_t> divisors;
    for (std::int32_t d = 1; d <= 300; ++d) divisors.push_back(d);
    for (int bit = 9; bit < 31; ++bit)
        for (std::int32_t const off : {-1, 0, 1}) divisors.push_back((std::int32_t{1} << bit) + off);
    for (std::int32_t const d : {most, most - 1, most / 2, most / 3, 641, 1'000'003, 715'827'883})
        divisors.push_back(d);
    testing::random_source random(5);
    for (int i = 0; i < 200; ++i) divisors.push_back(random.between(1, most - 1));
    int wrong = 0;
    for (std::int32_t const d : divisors) {
        fast_divider const by(d);
        auto const differs = [&](std::int64_t n) {
            return n >= 0 && n <= most && by.quotient(static_cast<std::int32_t>(n)) != n / d;
        };
        for (std::int32_t n = 0; n < 600; ++n) wrong += differs(n) + differs(std::int64_t{most} - n);
        for (int i = 0; i < 200; ++i) {  // beside multiples, where a wrong multiplier shows
            std::int64_t const multiple = std::int64_t{random.between(0, most / d)} * d;
            wrong += differs(multiple - 1) + differs(multiple) + differs(multiple + 1);
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("math: a default fast_divider divides by 1", "[core]") {
    constexpr fast_divider one;
    STATIC_REQUIRE(one.divisor == 1);
    STATIC_REQUIRE(one.quotient(123456789) == 123456789);
}

TEST_CASE("math: ordered_key orders as floats do", "[core]") {
    float const infinity = std::numeric_limits<float>::infinity();
    std::vector<float> const ascending = {-infinity,
                                          std::numeric_limits<float>::lowest(),
                                          -1e10f,
                                          -1.0f - 0x1p-23f,
                                          -1.0f,
                                          -1e-30f,
                                          -std::numeric_limits<float>::denorm_min(),
                                          0.0f,
                                          std::numeric_limits<float>::denorm_min(),
                                          1e-30f,
                                          1.0f,
                                          1.0f + 0x1p-23f,
                                          1e10f,
                                          std::numeric_limits<float>::max(),
                                          infinity};
    for (std::size_t i = 1; i < ascending.size(); ++i) CHECK(ordered_key(ascending[i - 1]) < ordered_key(ascending[i]));
    testing::random_source random(7);
    int wrong = 0;
    for (int i = 0; i < 20000; ++i) {
        auto const a = static_cast<float>(random.normal()), b = static_cast<float>(random.normal());
        wrong += (ordered_key(a) < ordered_key(b)) != (a < b);
    }
    CHECK(wrong == 0);
}

TEST_CASE("math: ordered_key of zeros and NaN", "[core]") {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    CHECK(ordered_key(-0.0f) == ordered_key(0.0f));
    CHECK(ordered_key(nan) == 1);
    CHECK(ordered_key(-nan) == 1);
    CHECK(ordered_key(nan) < ordered_key(-std::numeric_limits<float>::infinity()));
    CHECK(ordered_key(nan) > 0);  // 0 means that there is no score
}
