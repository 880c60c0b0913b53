// Inputs of delta correction whose results can be worked out by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/random_input.hpp"
#include "winnow/core/delta_params.hpp"

namespace winnow::testing {

/// Weights of the keys, the same for every query, as powers of 2, and channel 0 of the values: scores are ln 2 times the
/// exponents. Other channels of the values are `other`.
template <class T>
attend_input<T> weighted_input(std::vector<std::int32_t> const& exponents, std::vector<float> const& values,
                               float other = 0) {
    auto const n = static_cast<std::int32_t>(exponents.size());
    attend_input<T> in({.queries = {n}, .keys = {n}});
    for (std::int32_t i = 0; i < n; ++i)
        for (std::int32_t c = 0; c < 64; ++c) {
            auto const at = static_cast<std::size_t>(i);
            in.query(0, i, 0, c) = from_float<T>(c == 0 ? 1.0f : 0.0f);
            in.key(0, i, 0, c) = from_float<T>(c == 0 ? static_cast<float>(exponents[at]) : 0.0f);
            in.value(0, i, 0, c) = from_float<T>(c == 0 ? values[at] : other);
        }
    return in;
}

inline constexpr float ln_two = 0.693147180559945f;  ///< the scale of those inputs

/// A row whose neighbour's correction is nearly as large as its own value: S 1.2552, X of the anchor 0.0356, S of the anchor
/// 1.2743. Rounded to bf16 at each step, the result is 42 % off.
template <class T>
attend_input<T> cancelling_input() {
    return weighted_input<T>({2, 2, 0, 3, 0, 1},
                             {-1.203125f, -1.203125f, -1.203125f, 1.2734375f, 1.28125f, 1.2421875f});
}
/// Exact result of its row 5 with gamma 4, a window of 2 and no tail.
inline double cancelling_result() {
    double const anchor = (8 * 1.2734375 + 1.28125) / 9, dense = (9 * -1.203125 + 8 * 1.2734375 + 1.28125) / 18;
    return (1.28125 + 2 * 1.2421875) / 3 + (dense - anchor);
}

}  // namespace winnow::testing
