// Merge kernels: the splits of one attention launch, and the public operator's strided parts.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/merge_params.hpp"
#include "winnow/policy/attend_policy.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/anchor_correction.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/merge.cuh"

namespace winnow {

/// Device-side rounding through the same instruction as the attention kernels.
template <class T>
WINNOW_DEVICE T rounded(float x) {
    if constexpr (sizeof(T) == 4) {
        return x;
    } else {
        return T{static_cast<std::uint16_t>(ptx::pack<T>(x, 0.0f))};
    }
}

/// One block per (row, head): combines the key splits of attend_sm80 in split order.
template <class T, int HeadDim>
__global__ void __launch_bounds__(merge_warps * 32) merge_splits(attend_arguments<T> const __grid_constant__ a) {
    __shared__ merge_storage<HeadDim> shared;
    attend_params<T> const& p = a.params;
    std::int32_t const head = blockIdx.x, row = blockIdx.y, b = blockIdx.z;
    request_view const r = request_of(a.shape, p.rows, p.kv, a.page_size.divisor, p.mask, b);
    auto const [begin, end] = rows_of_range(r, p.range, p.tail, p.tail_step);
    if (begin + row >= end) return;
    std::int64_t const first =
        ((static_cast<std::int64_t>(b) * a.schedule.max_rows + row) * a.shape.heads + head) * a.schedule.splits;
    T* const out = p.output.data + p.output.offset(r.outer, r.first_row + begin + row, head);
    float* const merged = shared.output[0];  // a channel is stored by the thread that read it last
    float lse = merge_parts(
        shared, a.schedule.splits, HeadDim, [&](int i) { return a.partial_lse[first + i]; },
        [&](int i, int c) { return a.partial_output[(first + i) * HeadDim + c]; },
        [&](int c, float x) { merged[c] = x; },
        p.sink_logits == nullptr ? minus_infinity : p.sink_logits[head] * log2_e);
    if (a.correction.output != nullptr) {
        row_correction const to = correction_of(a, r, b, begin + row, head, 1.0f, lse);
        for (int c = threadIdx.x; c < HeadDim; c += merge_warps * 32)
            merged[c] = fmaf(to.other, to.at[c], merged[c] * to.own);
    }
    for (int c = threadIdx.x; c < HeadDim; c += merge_warps * 32) out[c] = rounded<T>(merged[c]);
    if (threadIdx.x == 0 && !p.lse.empty())
        p.lse.values(r.outer, r.first_row + begin + row, head) = p.lse.base == lse_base::natural ? lse * ln_2 : lse;
}

/// One block per (row, head) of the public operator.
template <class T, int MaxChannels>
__global__ void __launch_bounds__(merge_warps * 32) merge_rows(merge_params<T> const __grid_constant__ p) {
    __shared__ merge_storage<MaxChannels> shared;
    std::int64_t const row = blockIdx.x, head = blockIdx.y;
    float const to_base2 = p.base == lse_base::natural ? log2_e : 1.0f;
    float const lse = merge_parts(
        shared, static_cast<int>(p.outputs.extent[0]), static_cast<int>(p.outputs.extent[3]),
        [&](int i) { return p.lses(i, row, head) * to_base2; },
        [&](int i, int c) { return to_float(p.outputs(i, row, head, c)); },
        [&](int c, float x) { p.output(row, head, c) = rounded<T>(x); });
    if (threadIdx.x == 0 && p.lse.data != nullptr) p.lse(row, head) = p.base == lse_base::natural ? lse * ln_2 : lse;
}

}  // namespace winnow
