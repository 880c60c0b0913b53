// What merging is asked to do: parts, their log-sum-exps, and where the result goes.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/partial.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// Parts are combined in ascending order in fp32, so the result is deterministic. T is float, bf16 or fp16.
/// A part with lse -inf contributes nothing, whatever its output holds. `output` may alias no input.
template <class T>
struct merge_params {
    tensor_view<T const, 4> outputs = {};   ///< [part, row, head, channel]; last stride 1; heads <= 65535
    tensor_view<float const, 3> lses = {};  ///< [part, row, head]; any strides
    lse_base base = lse_base::natural;      ///< of `lses` and `lse` alike
    tensor_view<T, 3> output = {};          ///< [row, head, channel]; last stride 1
    tensor_view<float, 2> lse = {};         ///< [row, head]; optional
};

}  // namespace winnow
