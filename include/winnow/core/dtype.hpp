// Element types as plain storage with conversions: bf16, fp16, fp8 e4m3 (storage only). Bit-compatible with CUDA's own.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"

namespace winnow {

/// bfloat16: 1 sign, 8 exponent, 7 mantissa bits. Same bits as __nv_bfloat16, so pointers may be reinterpreted.
struct bf16 {
    std::uint16_t bits;  ///< sign, exponent and mantissa
};

/// IEEE binary16. Same bits as __half.
struct fp16 {
    std::uint16_t bits;  ///< sign, exponent and mantissa
};

/// OCP fp8 e4m3 (finite: 0x7f and 0xff are NaN, no infinity). Same bits as __nv_fp8_e4m3.
struct fp8_e4m3 {
    std::uint8_t bits;  ///< sign, exponent and mantissa
};

/// Run-time name of an element type.
enum class dtype : std::int32_t { bf16, fp16, fp8_e4m3, fp32 };

/// Run-time name of T, one of the four.
template <class T>
requires(std::is_same_v<T, bf16> || std::is_same_v<T, fp16> || std::is_same_v<T, fp8_e4m3> ||
         std::is_same_v<T, float>) inline constexpr dtype dtype_of = std::is_same_v<T, bf16>       ? dtype::bf16
                                                                     : std::is_same_v<T, fp16>     ? dtype::fp16
                                                                     : std::is_same_v<T, fp8_e4m3> ? dtype::fp8_e4m3
                                                                                                   : dtype::fp32;

namespace detail {

/// Rounds a float to `mantissa` bits with exponents down to `min_exponent`, to nearest even, as sign | magnitude bits
/// of the small format. Overflow gives `overflow`. NaN is the caller's.
WINNOW_HOST_DEVICE constexpr std::uint32_t round_to_small(float x, int mantissa, int min_exponent,
                                                          std::uint32_t overflow) {
    auto const u = __builtin_bit_cast(std::uint32_t, x);
    std::uint32_t const magnitude = u & 0x7fffffffu;
    int const exponent = static_cast<int>(magnitude >> 23) - 127;
    if (exponent < min_exponent - mantissa - 1) return 0;
    std::uint32_t const significand = (magnitude & 0x7fffffu) | 0x800000u;
    int const subnormal_shift = exponent < min_exponent ? min_exponent - exponent : 0;
    int const shift = 23 - mantissa + subnormal_shift;
    std::uint32_t const half = 1u << (shift - 1);
    std::uint32_t const kept = significand >> shift;
    std::uint32_t const rest = significand & ((1u << shift) - 1);
    std::uint32_t const rounded = kept + ((rest > half || (rest == half && (kept & 1u))) ? 1u : 0u);
    // `rounded` carries the implicit bit, so adding (biased exponent - 1) << mantissa lets a carry bump the exponent.
    int const biased = exponent < min_exponent ? 0 : exponent - min_exponent;
    std::uint32_t const bits = rounded + (static_cast<std::uint32_t>(biased) << mantissa);
    return bits > overflow ? overflow : bits;
}

}  // namespace detail

/// The value itself; exact.
WINNOW_HOST_DEVICE constexpr float to_float(float x) { return x; }

/// The value of a bf16; exact.
WINNOW_HOST_DEVICE constexpr float to_float(bf16 x) {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16);
}

/// The value of an fp16; exact, subnormals and NaN included.
WINNOW_HOST_DEVICE constexpr float to_float(fp16 x) {
    std::uint32_t const sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31u, mantissa = x.bits & 1023u;
    if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7f800000u | (mantissa << 13));
    float const magnitude = exponent == 0 ? static_cast<float>(mantissa) * 5.9604644775390625e-8f  // 2^-24
                                          : __builtin_bit_cast(float, ((exponent + 112) << 23) | (mantissa << 13));
    return sign ? -magnitude : magnitude;
}

/// The value of an fp8 e4m3; exact.
WINNOW_HOST_DEVICE constexpr float to_float(fp8_e4m3 x) {
    std::uint32_t const sign = (x.bits & 0x80u) << 24, exponent = (x.bits >> 3) & 15u, mantissa = x.bits & 7u;
    if (exponent == 15 && mantissa == 7) return __builtin_bit_cast(float, sign | 0x7fc00000u);
    float const magnitude = exponent == 0 ? static_cast<float>(mantissa) * 0.001953125f  // 2^-9
                                          : __builtin_bit_cast(float, ((exponent + 120) << 23) | (mantissa << 20));
    return sign ? -magnitude : magnitude;
}

/// Round to nearest even; fp8 saturates to its largest finite value, 448.
template <class T>
WINNOW_HOST_DEVICE constexpr T from_float(float x);

/// No rounding.
template <>
WINNOW_HOST_DEVICE constexpr float from_float<float>(float x) {
    return x;
}

/// To nearest even; overflow gives infinity.
template <>
WINNOW_HOST_DEVICE constexpr bf16 from_float<bf16>(float x) {
    auto const u = __builtin_bit_cast(std::uint32_t, x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{static_cast<std::uint16_t>((u >> 16) | 0x40u)};
    return bf16{static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

/// To nearest even, subnormals included; overflow gives infinity.
template <>
WINNOW_HOST_DEVICE constexpr fp16 from_float<fp16>(float x) {
    auto const u = __builtin_bit_cast(std::uint32_t, x);
    auto const sign = static_cast<std::uint32_t>((u >> 16) & 0x8000u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return fp16{static_cast<std::uint16_t>(sign | 0x7e00u)};
    return fp16{static_cast<std::uint16_t>(sign | detail::round_to_small(x, 10, -14, 0x7c00u))};
}

/// To nearest even, subnormals included; overflow and infinity give 448.
template <>
WINNOW_HOST_DEVICE constexpr fp8_e4m3 from_float<fp8_e4m3>(float x) {
    auto const u = __builtin_bit_cast(std::uint32_t, x);
    auto const sign = static_cast<std::uint32_t>((u >> 24) & 0x80u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return fp8_e4m3{static_cast<std::uint8_t>(sign | 0x7fu)};
    return fp8_e4m3{static_cast<std::uint8_t>(sign | detail::round_to_small(x, 3, -6, 0x7eu))};
}

}  // namespace winnow
