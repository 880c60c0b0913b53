// Partial attention results and how they combine: (output, lse) pairs with identity (0, -inf).
//
//   lse = ln sum_i exp(lse_i),   output = sum_i exp(lse_i - lse) output_i.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// The partial result of no keys: merging it changes nothing.
struct empty_partial {
    static constexpr float output = 0.0f;         ///< of every channel
    static constexpr float lse = minus_infinity;  ///< in either base
};

/// Base of the logarithm in a log-sum-exp tensor.
enum class lse_base : std::int32_t { natural, two };

/// Natural-log LSE [batch, token, head], fp32, any strides (so [head, token] layouts too). As vLLM and FlashAttention.
struct natural_lse {
    tensor_view<float, 3> values;  ///< where they are written
};

/// Base-2 LSE [batch, token, head], fp32, any strides. As FlashInfer.
struct base2_lse {
    tensor_view<float, 3> values;  ///< where they are written
};

/// Either of the two, as a value; empty (data null) means that no LSE is wanted. A row without a visible key has -inf.
struct lse_view {
    tensor_view<float, 3> values;       ///< [batch, token, head]; data null: not wanted
    lse_base base = lse_base::natural;  ///< base of the logarithm

    constexpr lse_view() = default;
    /// From natural_lse, implicitly.
    WINNOW_HOST_DEVICE constexpr lse_view(natural_lse v) : values(v.values), base(lse_base::natural) {}
    /// From base2_lse, implicitly.
    WINNOW_HOST_DEVICE constexpr lse_view(base2_lse v) : values(v.values), base(lse_base::two) {}
    /// True if no LSE is wanted.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool empty() const { return values.data == nullptr; }
};

}  // namespace winnow
