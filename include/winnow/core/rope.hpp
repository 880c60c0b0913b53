// Rotary position embedding: which channels turn together, by which frequency, and by what angle at a position.
//
//   (x, y) -> (x cos a - y sin a, x sin a + y cos a),   a = position * frequency_i,
//   frequency_i = theta^(-2 i / rotary_dim)
#pragma once

#include <cmath>
#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow {

/// The two channels that turn together as pair i.
enum class rope_pairing : std::int32_t {
    halves,   ///< i and i + rotary_dim / 2 (GPT-NeoX, Llama as most engines store it)
    adjacent  ///< 2 i and 2 i + 1 (RoFormer, GPT-J)
};

/// A rotation of keys and queries (RoFormer, arXiv:2104.09864). The default rotates nothing.
///
/// Models compute their frequencies in fp32, a rounding that at position p shifts angles by the order of p * 2^-25.
/// Give `inverse_frequency` to follow a model at long positions, or where it scales frequencies (YaRN, Llama 3).
struct rope {
    float theta = 0;                              ///< base of the frequencies, >= 1; 0 without a table: no rotation
    std::int32_t rotary_dim = 0;                  ///< leading channels that turn, a multiple of 16; 0: all of them
    rope_pairing pairing = rope_pairing::halves;  ///< which channels turn together
    float const* inverse_frequency = nullptr;     ///< [rotary_dim / 2] radians per position; null: from theta

    /// True if nothing turns.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool empty() const { return theta == 0 && inverse_frequency == nullptr; }

    /// Pairs of channels that turn.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t pairs(std::int32_t head_dim) const {
        return empty() ? 0 : (rotary_dim == 0 ? head_dim : rotary_dim) / 2;
    }
};

/// Channels of a pair.
struct channel_pair {
    std::int32_t first;   ///< x of the formula above
    std::int32_t second;  ///< y
    /// Equal in both.
    friend constexpr bool operator==(channel_pair const&, channel_pair const&) = default;
};

/// The two channels of pair `pair` of `pairs`.
WINNOW_HOST_DEVICE constexpr channel_pair channels_of(rope_pairing pairing, std::int32_t pairs, std::int32_t pair) {
    return pairing == rope_pairing::halves ? channel_pair{pair, pair + pairs} : channel_pair{2 * pair, 2 * pair + 1};
}

/// Frequency of a pair in radians per position. `log2_theta` is log2 of theta in double, which callers keep, since it
/// costs as much as the rest. Relative to the largest frequency, 1, the result is off by at most 2^-51.
WINNOW_HOST_DEVICE inline double frequency_of(rope const& r, double log2_theta, std::int32_t pairs, std::int32_t pair) {
    if (r.inverse_frequency != nullptr) return static_cast<double>(r.inverse_frequency[pair]);
    return std::exp2(-log2_theta * pair / pairs);
}

/// A frequency as turns per position in units of 2^-64, whole turns dropped. A multiple of it is an integer product
/// that wraps: the reduction modulo 2 pi is exact and free, for every position. fp32 frequencies come out within 2^-62
/// of a turn. A frequency that is NaN or not within +-2^32 counts as 0.
WINNOW_HOST_DEVICE inline std::uint64_t turns_of(double frequency) {
    constexpr double high = 0x1.45f306dc9c883p-3, low = -0x1.6b01ec5417056p-57;  // 1 / (2 pi) in two doubles
    double const size = std::fabs(frequency);
    if (!(size <= 0x1p32)) return 0;
    // size * high = whole + part + rest, exactly. No product meets a sum outside fma: a compiler that contracts the two
    // changes nothing.
    double const whole = std::floor(size * high);
    double const part = std::fma(size, high, -whole), sum = whole + part;
    double const rest = std::fma(size, high, -sum) - (part - (sum - whole)) + size * low;
    auto const angle = 2 * static_cast<std::uint64_t>(static_cast<std::int64_t>(part * 0x1p63)) +
                       static_cast<std::uint64_t>(static_cast<std::int64_t>(rest * 0x1p64));
    return frequency < 0 ? 0 - angle : angle;
}

/// Angle at a position (any int32) in half turns, in [-1, 1]: the angle in radians over pi, rounded once to fp32.
/// With `turns` from an fp32 table the rounding is all there is; from theta, the angle is off by up to
/// |position| * 2^-51 radians more: less than the rounding up to position 2^27, 2^-20 at 2^31.
WINNOW_HOST_DEVICE constexpr float half_turns(std::uint64_t turns, std::int32_t position) {
    std::uint64_t const angle = turns * static_cast<std::uint64_t>(std::int64_t{position});
    return static_cast<float>(static_cast<std::int64_t>(angle)) * 0x1p-63f;
}

}  // namespace winnow
