// What is kept of many rows in eight channels: their mean, or the smallest and the largest of each.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/prune_stages.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/min_max.cuh"

namespace winnow {

/// fp32 sums in the order of the rows, rounded to T at the end.
template <class T>
struct channel_mean {
    static constexpr int parts = 1;
    float sum[8] = {};

    WINNOW_DEVICE void add(uint4 const& v) {
        std::uint32_t const pairs[4] = {v.x, v.y, v.z, v.w};
        WINNOW_UNROLL
        for (int k = 0; k < 4; ++k) {
            float2 const x = ptx::unpack<T>(pairs[k]);
            sum[2 * k] += x.x;
            sum[2 * k + 1] += x.y;
        }
    }
    [[nodiscard]] WINNOW_DEVICE uint4 value(int, std::int32_t rows) const {
        float const count = static_cast<float>(rows);
        return make_uint4(ptx::pack<T>(sum[0] / count, sum[1] / count), ptx::pack<T>(sum[2] / count, sum[3] / count),
                          ptx::pack<T>(sum[4] / count, sum[5] / count), ptx::pack<T>(sum[6] / count, sum[7] / count));
    }
};

/// Part 0: the largest, part 1: the smallest. NaN counts only where there is nothing else: two of them make any row win.
template <class T>
struct channel_bounds {
    static constexpr int parts = 2;
    static constexpr std::uint32_t none = 0x7fff7fffu;  // a NaN in either type
    uint4 high = make_uint4(none, none, none, none), low = high;

    WINNOW_DEVICE void add(uint4 const& v) {
        high = make_uint4(ptx::maximum<T>(high.x, v.x), ptx::maximum<T>(high.y, v.y), ptx::maximum<T>(high.z, v.z),
                          ptx::maximum<T>(high.w, v.w));
        low = make_uint4(ptx::minimum<T>(low.x, v.x), ptx::minimum<T>(low.y, v.y), ptx::minimum<T>(low.z, v.z),
                         ptx::minimum<T>(low.w, v.w));
    }
    [[nodiscard]] WINNOW_DEVICE uint4 value(int part, std::int32_t) const { return part == 0 ? high : low; }
};

/// The summary that a scorer reads.
template <scorer How, class T>
struct channel_summary_of : channel_mean<T> {};
template <class T>
struct channel_summary_of<scorer::min_max_bound, T> : channel_bounds<T> {};

}  // namespace winnow
