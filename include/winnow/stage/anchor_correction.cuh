// What a row takes from its anchor as it is finished.
//
//   output = S + delta,  or  (2^l S + 2^m O) / (2^l + 2^m)  with the lse l of the row and m of the keys that the anchor omits.
#pragma once

#include <cstdint>

#include "winnow/core/anchor_rows.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/attend_arguments.cuh"

namespace winnow {

/// What becomes of a row as it is finished: own * channel + other * at[channel].
struct row_correction {
    float const* at;
    float own;
    float other;

    /// Corrects two channels.
    WINNOW_DEVICE void apply(int channel, float& x, float& y) const {
        float2 const v = *reinterpret_cast<float2 const*>(at + channel);
        x = fmaf(other, v.x, x * own);
        y = fmaf(other, v.y, y * own);
    }
};

/// Correction of row `row` of request `batch`, query head `head`, whose channels have to be multiplied by `inverse`. `lse` (base 2) becomes
/// that of the result. Only with correction.output.
template <class T>
WINNOW_DEVICE row_correction correction_of(attend_arguments<T> const& a, request_view const& request,
                                           std::int32_t batch, std::int32_t row, std::int32_t head, float inverse,
                                           float& lse) {
    anchor_results const& from = a.correction;
    std::int32_t const anchor = anchor_rows(request.first_position, from.gap).anchor_of(row);
    std::int64_t const at =
        ((static_cast<std::int64_t>(batch) * from.anchors + anchor) * a.shape.heads + head) * from.splits;
    row_correction r{from.output + at * a.shape.head_dim, inverse, 1.0f};
    if (from.lse != nullptr) {
        float const other = from.lse[at], most = fmaxf(lse, other);
        bool const nothing = most == minus_infinity;
        float const mine = nothing ? 0.0f : ptx::exp2_fast(lse - most);
        float const theirs = nothing ? 0.0f : ptx::exp2_fast(other - most);
        float const total = mine + theirs, share = nothing ? 0.0f : 1.0f / total;
        lse = nothing ? minus_infinity : most + ptx::log2_fast(total);
        r.own = inverse * mine * share;
        r.other = theirs * share;
    }
    return r;
}

}  // namespace winnow
