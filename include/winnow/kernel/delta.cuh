// The anchors of delta correction: what their groups take from them, and their own rows.
//
//   delta = Z / (Z + T) (O - S),  X = S + delta;  or  delta = X - S;  or  (O, lse of Z) as they are.
#pragma once

#include <cstdint>

#include "winnow/core/anchor_rows.hpp"
#include "winnow/core/attend_params.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/delta_params.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/attend_arguments.cuh"

namespace winnow {

/// Partial results of all anchors: fp32 [batch, anchor, head, split, channel], and their lse in base 2.
struct anchor_parts {
    float* output;
    float* lse;
    std::int32_t splits;
};

/// Arguments of both kernels. Results take the place of the first split of what they are made from.
template <class T>
struct delta_arguments {
    attend_params<T> params;  ///< base, whose range is `anchors`
    batch_shape shape;
    std::int32_t page_size;
    std::int32_t gap;      ///< gamma
    std::int32_t anchors;  ///< of one request, at most
    delta_form form;
    attended_keys others;  ///< what `other` attended to: omitted keys, or all of them
    anchor_parts other;    ///< becomes what groups take; of recompute, X
    anchor_parts seen;     ///< sparse attention, becomes X; not of recompute
};

/// Warps of a block; each has one anchor and head.
inline constexpr int delta_warps = 8;

/// Which anchor and head a warp has.
struct anchor_place {
    request_view request;
    std::int32_t row;    ///< of the request, below 0: there is no such anchor
    std::int64_t index;  ///< in [batch, anchor, head]
};

template <class T>
WINNOW_DEVICE anchor_place place_of_warp(delta_arguments<T> const& a) {
    attend_params<T> const& p = a.params;
    std::int32_t const anchor = static_cast<std::int32_t>(blockIdx.x) * delta_warps + threadIdx.x / 32;
    std::int32_t const head = blockIdx.y, batch = blockIdx.z;
    anchor_place at{request_of(a.shape, p.rows, p.kv, a.page_size, p.mask, batch), -1,
                    (static_cast<std::int64_t>(batch) * a.anchors + anchor) * a.shape.heads + head};
    anchor_rows const anchors(at.request.first_position, a.gap);
    std::int32_t const end = rows_of_range(at.request, row_range::anchors, p.tail, p.tail_step).end;
    if (anchor < anchors.before(end)) at.row = anchors.row(anchor);
    return at;
}

/// A warp's channels of one anchor and head: lane l has 2 l, 2 l + 1, 64 further on the next two, ....
template <int HeadDim>
struct anchor_row {
    float2 channel[HeadDim / 64];
    float lse;  ///< base 2
};

/// Merges the splits of an anchor in their order. A split with lse -inf is not read.
template <int HeadDim>
WINNOW_DEVICE anchor_row<HeadDim> merged(anchor_parts const& parts, std::int64_t index) {
    int const lane = threadIdx.x % 32;
    std::int64_t const first = index * parts.splits;
    float most = minus_infinity, total = 0.0f;
    for (int i = 0; i < parts.splits; ++i) most = fmaxf(most, parts.lse[first + i]);
    anchor_row<HeadDim> r{};
    float const base = most == minus_infinity ? 0.0f : most;
    for (int i = 0; i < parts.splits; ++i) {
        float const lse = parts.lse[first + i];
        if (lse == minus_infinity) continue;
        float const weight = ptx::exp2_fast(lse - base);  // NaN stays NaN
        total += weight;
        float const* const from = parts.output + (first + i) * HeadDim + 2 * lane;
        WINNOW_UNROLL
        for (int k = 0; k < HeadDim / 64; ++k) {
            float2 const v = *reinterpret_cast<float2 const*>(from + 64 * k);
            r.channel[k].x = fmaf(weight, v.x, r.channel[k].x);
            r.channel[k].y = fmaf(weight, v.y, r.channel[k].y);
        }
    }
    float const inverse = total == 0.0f ? 0.0f : 1.0f / total;
    WINNOW_UNROLL
    for (int k = 0; k < HeadDim / 64; ++k) r.channel[k].x *= inverse, r.channel[k].y *= inverse;
    r.lse = total == 0.0f ? minus_infinity : base + ptx::log2_fast(total);
    __syncwarp();  // all lanes have read what the results replace
    return r;
}

template <int HeadDim>
WINNOW_DEVICE void store(anchor_parts const& parts, std::int64_t index, anchor_row<HeadDim> const& r) {
    int const lane = threadIdx.x % 32;
    float* const to = parts.output + index * parts.splits * HeadDim + 2 * lane;
    WINNOW_UNROLL
    for (int k = 0; k < HeadDim / 64; ++k) *reinterpret_cast<float2*>(to + 64 * k) = r.channel[k];
    if (lane == 0) parts.lse[index * parts.splits] = r.lse;
}

/// Every channel of a warp's row.
template <int HeadDim, class F>
WINNOW_DEVICE void for_channels(anchor_row<HeadDim>& to, anchor_row<HeadDim> const& other,
                                anchor_row<HeadDim> const& seen, F f) {
    WINNOW_UNROLL
    for (int k = 0; k < HeadDim / 64; ++k)
        to.channel[k] = make_float2(f(other.channel[k].x, seen.channel[k].x), f(other.channel[k].y, seen.channel[k].y));
}

/// One warp per anchor and head: puts splits together, and from sparse attention and the other one X and what groups take.
template <class T, int HeadDim>
__global__ void __launch_bounds__(delta_warps * 32) form_delta(delta_arguments<T> const __grid_constant__ a) {
    anchor_place const at = place_of_warp(a);
    if (at.row < 0) return;
    anchor_row<HeadDim> other = merged<HeadDim>(a.other, at.index);
    if (a.form == delta_form::recompute) {
        store(a.other, at.index, other);  // of one split as well: without a key its channels were not written
        return;
    }
    anchor_row<HeadDim> seen = merged<HeadDim>(a.seen, at.index), dense = other, taken = other;
    if (a.others == attended_keys::omitted) {
        float const most = fmaxf(other.lse, seen.lse);
        bool const nothing = most == minus_infinity;
        float const omitted = nothing ? 0.0f : ptx::exp2_fast(other.lse - most);
        float const total = nothing ? 1.0f : omitted + ptx::exp2_fast(seen.lse - most);
        float const share = omitted / total;
        for_channels(dense, other, seen, [&](float o, float s) { return fmaf(share, o - s, s); });
        dense.lse = nothing ? minus_infinity : most + ptx::log2_fast(total);
        if (a.form != delta_form::mass_preserving)
            for_channels(taken, other, seen, [&](float o, float s) { return share * (o - s); });
    } else if (a.form == delta_form::mass_preserving) {
        // Rounding may leave sparse attention more mass than dense: then nothing is missing.
        bool const nothing = other.lse == minus_infinity;
        float const share = nothing ? 1.0f : ptx::exp2_fast(seen.lse - other.lse), missing = 1.0f - share;
        bool const some = !(missing <= 0.0f);  // NaN goes on
        float const inverse = some ? 1.0f / missing : 0.0f;
        for_channels(taken, other, seen, [&](float x, float s) { return some ? fmaf(-share, s, x) * inverse : 0.0f; });
        taken.lse = some ? other.lse + ptx::log2_fast(missing) : minus_infinity;
    } else {
        for_channels(taken, other, seen, [](float x, float s) { return x - s; });
    }
    store(a.other, at.index, taken);
    store(a.seen, at.index, dense);
}

/// One warp per anchor and head: writes X over the row that attention wrote, and its lse.
template <class T, int HeadDim>
__global__ void __launch_bounds__(delta_warps * 32) store_anchors(delta_arguments<T> const __grid_constant__ a) {
    anchor_place const at = place_of_warp(a);
    if (at.row < 0) return;
    attend_params<T> const& p = a.params;
    anchor_parts const& from = a.form == delta_form::recompute ? a.other : a.seen;
    std::int32_t const lane = threadIdx.x % 32, head = blockIdx.y;
    std::int64_t const row = static_cast<std::int64_t>(at.request.first_row) + at.row;
    T* const to = p.output.data + p.output.offset(at.request.outer, row, head) + 2 * lane;
    std::int64_t const first = at.index * from.splits;
    WINNOW_UNROLL
    for (int k = 0; k < HeadDim / 64; ++k) {
        float2 const v = *reinterpret_cast<float2 const*>(from.output + first * HeadDim + 2 * lane + 64 * k);
        *reinterpret_cast<std::uint32_t*>(to + 64 * k) = ptx::pack<T>(v.x, v.y);
    }
    if (lane == 0 && !p.lse.empty())
        p.lse.values(at.request.outer, row, head) =
            p.lse.base == lse_base::natural ? from.lse[first] * ln_2 : from.lse[first];
}

}  // namespace winnow
