// Streaming positions by the plain definition: how far each visible key is from its row, and products at that distance.
//
//   product = sum over pairs of (q turned by distance) . k;  q and k as they were cached, without rotary embedding.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "winnow/core/dtype.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/core/streaming.hpp"

namespace winnow::reference {

/// Frequencies of all pairs, radians per position.
inline std::vector<double> frequencies_of(rope const& r, std::int32_t head_dim) {
    std::int32_t const pairs = r.pairs(head_dim);
    double const log2_theta = r.theta > 0 ? std::log2(static_cast<double>(r.theta)) : 0;
    std::vector<double> f;
    for (std::int32_t i = 0; i < pairs; ++i) f.push_back(frequency_of(r, log2_theta, pairs, i));
    return f;
}

/// `channels` turned to a position, in double.
template <class X>
std::vector<double> turned_to(X const* channels, std::int32_t head_dim, rope const& r,
                              std::vector<double> const& frequency, double position) {
    std::vector<double> out(channels, channels + head_dim);
    auto const pairs = static_cast<std::int32_t>(frequency.size());
    for (std::int32_t i = 0; i < pairs; ++i) {
        channel_pair const c = channels_of(r.pairing, pairs, i);
        double const angle = position * frequency[static_cast<std::size_t>(i)];
        double const x = channels[c.first], y = channels[c.second];
        out[static_cast<std::size_t>(c.first)] = x * std::cos(angle) - y * std::sin(angle);
        out[static_cast<std::size_t>(c.second)] = x * std::sin(angle) + y * std::cos(angle);
    }
    return out;
}

/// The same rounded to T, as floats: what kernels multiply.
template <class T>
std::vector<float> turned_and_rounded(float const* channels, std::int32_t head_dim, rope const& r,
                                      std::vector<double> const& frequency, double position) {
    std::vector<float> out;
    for (double const x : turned_to(channels, head_dim, r, frequency, position))
        out.push_back(to_float(from_float<T>(static_cast<float>(x))));
    return out;
}

/// How many of a row's visible keys (ascending) stand before its window.
inline std::int32_t keys_before(std::vector<std::int32_t> const& visible, std::int32_t looking,
                                attention_window window) {
    std::int32_t n = 0;
    for (std::int32_t const j : visible)
        if (j <= std::int64_t{looking} - window.recent) ++n;
    return n;
}

/// Distance from the row at `looking` to its n-th visible key, of which the first `before` stand before its window.
inline std::int32_t streaming_distance(std::vector<std::int32_t> const& visible, std::size_t n, std::int32_t before,
                                       std::int32_t looking, attention_window window) {
    auto const rank = static_cast<std::int32_t>(n);
    return rank < before ? streaming_row_position(window.recent, before) - rank : looking - visible[n];
}

}  // namespace winnow::reference
