// Integer arithmetic shared by schedules, plans and kernels, and the float <-> ordered-integer map that selection uses.
#pragma once

#include <cstdint>
#include <limits>

#include "winnow/core/config.hpp"

namespace winnow {

/// Score of a key that may not be seen, maximum of nothing, log of zero.
inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// Quotient rounded up, for a >= 0 and b > 0.
template <class I>
WINNOW_HOST_DEVICE constexpr I ceil_div(I a, I b) {
    return (a + b - 1) / b;
}

/// Smallest multiple of b that is >= a, for a >= 0 and b > 0.
template <class I>
WINNOW_HOST_DEVICE constexpr I round_up(I a, I b) {
    return ceil_div(a, b) * b;
}

/// Largest multiple of b that is <= a, for a >= 0 and b > 0.
template <class I>
WINNOW_HOST_DEVICE constexpr I round_down(I a, I b) {
    return a / b * b;
}

// std::min and std::max are host functions to nvcc unless a flag relaxes that; a library cannot ask for flags.
/// Minimum; `a` where they are equal.
template <class I>
WINNOW_HOST_DEVICE constexpr I smaller(I a, I b) {
    return b < a ? b : a;
}

/// Maximum; `a` where they are equal.
template <class I>
WINNOW_HOST_DEVICE constexpr I larger(I a, I b) {
    return a < b ? b : a;
}

/// True for 1, 2, 4, 8, ....
WINNOW_HOST_DEVICE constexpr bool is_power_of_two(std::int64_t x) { return x > 0 && (x & (x - 1)) == 0; }

/// Smallest n with 2^n >= x, for x >= 1.
WINNOW_HOST_DEVICE constexpr int ceil_log2(std::int64_t x) {
    int n = 0;
    while ((std::int64_t{1} << n) < x) ++n;
    return n;
}

/// Division of non-negative int32 by a run-time constant as one multiply and a shift (Granlund & Montgomery 1994).
struct fast_divider {
    std::int32_t divisor = 1;             ///< what is divided by, > 0
    std::uint32_t multiplier = 1u << 31;  ///< ceil(2^(31 + shift) / divisor)
    std::int32_t shift = 0;               ///< ceil(log2(divisor))

    constexpr fast_divider() = default;
    /// Prepares division by d > 0.
    WINNOW_HOST_DEVICE constexpr explicit fast_divider(std::int32_t d) : divisor(d) {
        // For n < 2^31 and m = ceil(2^(31 + s) / d), s = ceil(log2 d): n * m >> (31 + s) is exact.
        shift = ceil_log2(d);
        multiplier =
            static_cast<std::uint32_t>(((std::uint64_t{1} << (31 + shift)) + d - 1) / static_cast<unsigned>(d));
    }

    WINNOW_HOST_DEVICE constexpr std::int32_t quotient(std::int32_t n) const {  ///< n / divisor, for n >= 0
        return static_cast<std::int32_t>((static_cast<std::uint64_t>(static_cast<std::uint32_t>(n)) * multiplier) >>
                                         (31 + shift));
    }
};

/// Unsigned integers that compare as the floats do; NaN maps to 1, below every number, so it is never preferred.
/// 0 is left free for "no score"; -inf is 0x7fffff.
WINNOW_HOST_DEVICE constexpr std::uint32_t ordered_key(float x) {
    if (!(x == x)) return 1;
    auto const bits = __builtin_bit_cast(std::uint32_t, x == 0.0f ? 0.0f : x);  // -0 and +0 tie
    return (bits & 0x80000000u) ? ~bits : (bits | 0x80000000u);
}

}  // namespace winnow
