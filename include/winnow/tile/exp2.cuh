// 2^x by fused multiply-adds, for a share of the exponentials where the special function unit has too many of them.
//
//   2^x = 2^n p(x - n),  n = x rounded,  p a polynomial of degree 5 on [-1/2, 1/2]
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/min_max.cuh"

namespace winnow {

/// 2^x as a product, which the caller's addition takes in.
struct exp2_parts {
    float value;  ///< p(x - n)
    float scale;  ///< 2^n; 0 below 2^-126
};

/// Relative error near 2^-22, as ex2's, for x <= 127; NaN stays NaN, 2^-inf is 0. Eleven instructions with the addition,
/// where ex2 takes three: but none of them in the special function unit, which does a quarter of a warp a clock.
WINNOW_DEVICE exp2_parts exp2_polynomial(float x) {
    constexpr float lowest = -127.0f;           // 2^lowest is 0 here
    constexpr float rounding = 1.5f * 8388608;  // adding 1.5 * 2^23 rounds to an integer, which are the low bits then
    constexpr std::uint32_t one = 0x3f800000, mantissa = 23;
    // The minimax polynomial of relative error, with p(0) = 1.
    constexpr float p[] = {1.0f, 0.693146944f, 0.240221202f, 0.0555071309f, 0.00967554096f, 0.00132764725f};
    x = ptx::maximum_or_nan(x, lowest);
    float const shifted = x + rounding, f = x - (shifted - rounding);
    float value = p[5];
    WINNOW_UNROLL
    for (int k = 4; k >= 0; --k) value = fmaf(value, f, p[k]);
    return {value, __uint_as_float((__float_as_uint(shifted) << mantissa) + one)};
}

}  // namespace winnow
