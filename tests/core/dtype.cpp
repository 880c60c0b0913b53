// Element types: every pattern of every format against its definition, and every rounding boundary between neighbours.
#include "winnow/core/dtype.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "support/catch.hpp"

using namespace winnow;

namespace {

// What a sign | exponent | mantissa pattern means, by the definition of the formats.
struct format {
    int exponent_bits, mantissa_bits;
    bool has_infinity;  // fp8 e4m3 has none: its highest exponent is an ordinary one, but for all-ones
    int bits() const { return 1 + exponent_bits + mantissa_bits; }
};
constexpr format bf16_format{8, 7, true}, fp16_format{5, 10, true}, fp8_format{4, 3, false};

double meaning(format f, std::uint32_t pattern) {
    std::uint32_t const mantissa = pattern & ((1u << f.mantissa_bits) - 1);
    std::uint32_t const exponent = (pattern >> f.mantissa_bits) & ((1u << f.exponent_bits) - 1);
    double const sign = (pattern >> (f.bits() - 1)) & 1u ? -1.0 : 1.0;
    std::uint32_t const highest = (1u << f.exponent_bits) - 1;
    int const bias = (1 << (f.exponent_bits - 1)) - 1;
    if (exponent == highest && f.has_infinity)
        return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
    if (exponent == highest && mantissa == (1u << f.mantissa_bits) - 1) return std::numeric_limits<double>::quiet_NaN();
    if (exponent == 0) return sign * std::ldexp(static_cast<double>(mantissa), 1 - bias - f.mantissa_bits);
    return sign * std::ldexp(1.0 + std::ldexp(static_cast<double>(mantissa), -f.mantissa_bits),
                             static_cast<int>(exponent) - bias);
}

template <class T>
T from_bits(std::uint32_t pattern) {
    T x{};
    x.bits = static_cast<decltype(x.bits)>(pattern);
    return x;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

template <class T>
int wrong_values(format f) {
    int wrong = 0;
    for (std::uint32_t pattern = 0; pattern < (1u << f.bits()); ++pattern) {
        double const expected = meaning(f, pattern);
        float const found = to_float(from_bits<T>(pattern));
        wrong += std::isnan(expected) ? !std::isnan(found) : !same_bits(found, static_cast<float>(expected));
    }
    return wrong;
}

template <class T>
int wrong_round_trips(format f) {
    int wrong = 0;
    for (std::uint32_t pattern = 0; pattern < (1u << f.bits()); ++pattern) {
        T const back = from_float<T>(to_float(from_bits<T>(pattern)));
        if (std::isnan(meaning(f, pattern)))
            wrong += !std::isnan(meaning(f, back.bits));
        else
            wrong += back.bits != pattern;
    }
    return wrong;
}

// Between each finite value and the next one: the midpoint goes to the even pattern, anything beside it to the nearer.
template <class T>
int wrong_roundings(format f, std::uint32_t last_finite) {
    int wrong = 0;
    float const infinity = std::numeric_limits<float>::infinity();
    std::uint32_t const sign = 1u << (f.bits() - 1);
    for (std::uint32_t low = 0; low < last_finite; ++low) {
        double const middle = (meaning(f, low) + meaning(f, low + 1)) / 2;
        auto const at = static_cast<float>(middle);
        if (static_cast<double>(at) != middle) return -1;  // a float holds every midpoint of the smaller formats
        std::uint32_t const even = low % 2 == 0 ? low : low + 1;
        wrong += from_float<T>(at).bits != even;
        wrong += from_float<T>(std::nextafter(at, 0.0f)).bits != low;
        wrong += from_float<T>(std::nextafter(at, infinity)).bits != low + 1;
        wrong += from_float<T>(-at).bits != (even | sign);
        wrong += from_float<T>(-std::nextafter(at, 0.0f)).bits != (low | sign);
    }
    return wrong;
}

}  // namespace

TEST_CASE("dtype: every pattern means what its format says", "[core]") {
    CHECK(wrong_values<bf16>(bf16_format) == 0);
    CHECK(wrong_values<fp16>(fp16_format) == 0);
    CHECK(wrong_values<fp8_e4m3>(fp8_format) == 0);
}

TEST_CASE("dtype: every pattern survives a round trip through float", "[core]") {
    CHECK(wrong_round_trips<bf16>(bf16_format) == 0);
    CHECK(wrong_round_trips<fp16>(fp16_format) == 0);
    CHECK(wrong_round_trips<fp8_e4m3>(fp8_format) == 0);
}

TEST_CASE("dtype: rounds to nearest even at every boundary", "[core]") {
    CHECK(wrong_roundings<bf16>(bf16_format, 0x7f7f) == 0);
    CHECK(wrong_roundings<fp16>(fp16_format, 0x7bff) == 0);
    CHECK(wrong_roundings<fp8_e4m3>(fp8_format, 0x7e) == 0);
}

TEST_CASE("dtype: overflow", "[core]") {
    float const infinity = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
    CHECK(from_float<fp16>(65504.0f).bits == 0x7bff);
    CHECK(from_float<fp16>(std::nextafter(65520.0f, 0.0f)).bits == 0x7bff);
    CHECK(from_float<fp16>(65520.0f).bits == 0x7c00);
    CHECK(from_float<fp16>(most).bits == 0x7c00);
    CHECK(from_float<fp16>(-infinity).bits == 0xfc00);
    CHECK(from_float<bf16>(most).bits == 0x7f80);
    CHECK(from_float<bf16>(-infinity).bits == 0xff80);
    for (float const x : {448.0f, 449.0f, 464.0f, 1e9f, most, infinity}) {
        CHECK(from_float<fp8_e4m3>(x).bits == 0x7e);
        CHECK(from_float<fp8_e4m3>(-x).bits == 0xfe);
    }
}

TEST_CASE("dtype: NaN stays NaN with its sign, whatever its payload", "[core]") {
    for (std::uint32_t const payload : {0x7fc00000u, 0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffc12345u}) {
        float x;
        std::memcpy(&x, &payload, sizeof x);
        std::uint32_t const sign = payload >> 31;
        CHECK(std::isnan(to_float(from_float<bf16>(x))));
        CHECK(std::isnan(to_float(from_float<fp16>(x))));
        CHECK(std::isnan(to_float(from_float<fp8_e4m3>(x))));
        CHECK(from_float<bf16>(x).bits >> 15 == static_cast<int>(sign));
        CHECK(from_float<fp16>(x).bits >> 15 == static_cast<int>(sign));
        CHECK(from_float<fp8_e4m3>(x).bits >> 7 == static_cast<int>(sign));
    }
}

TEST_CASE("dtype: signed zeros, and what is smaller than half the smallest value", "[core]") {
    CHECK(from_float<fp16>(-0.0f).bits == 0x8000);
    CHECK(from_float<bf16>(-0.0f).bits == 0x8000);
    CHECK(from_float<fp8_e4m3>(-0.0f).bits == 0x80);
    CHECK(from_float<fp16>(std::numeric_limits<float>::denorm_min()).bits == 0);
    CHECK(from_float<fp16>(0x1p-25f).bits == 0);  // half of 2^-24 ties to even
    CHECK(from_float<fp16>(std::nextafter(0x1p-25f, 1.0f)).bits == 1);
    CHECK(from_float<fp8_e4m3>(0x1p-10f).bits == 0);
    CHECK(from_float<fp8_e4m3>(std::nextafter(0x1p-10f, 1.0f)).bits == 1);
}

TEST_CASE("dtype: fp8 e4m3 against a few entries of its table", "[core]") {
    CHECK(to_float(fp8_e4m3{0x01}) == 0x1p-9f);
    CHECK(to_float(fp8_e4m3{0x07}) == 7 * 0x1p-9f);
    CHECK(to_float(fp8_e4m3{0x08}) == 0x1p-6f);
    CHECK(to_float(fp8_e4m3{0x38}) == 1.0f);
    CHECK(to_float(fp8_e4m3{0x39}) == 1.125f);
    CHECK(to_float(fp8_e4m3{0x7e}) == 448.0f);
    CHECK(to_float(fp8_e4m3{0xc0}) == -2.0f);
}

TEST_CASE("dtype: names", "[core]") {
    STATIC_REQUIRE(dtype_of<bf16> == dtype::bf16);
    STATIC_REQUIRE(dtype_of<fp16> == dtype::fp16);
    STATIC_REQUIRE(dtype_of<fp8_e4m3> == dtype::fp8_e4m3);
    STATIC_REQUIRE(dtype_of<float> == dtype::fp32);
    STATIC_REQUIRE(from_float<float>(1.5f) == 1.5f);
    STATIC_REQUIRE(to_float(from_float<bf16>(1.5f)) == 1.5f);
}
