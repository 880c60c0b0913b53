// Attention rounded as the kernels round, and otherwise plain: its distance from the oracle bounds a kernel's.
//
//   s = fp32 dot products,  p = exp2((s - max) c),  sum in fp32 of p,  output = T( sum_j T(p_j) values_j / sum ).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "winnow/op/attend.hpp"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/streaming.hpp"
#include "winnow/reference/visible.hpp"

namespace winnow::reference {

/// fp32 dot product as tensor cores take it: 16 channels at a time, added to a running fp32 sum.
inline float rounded_dot(float const* q, float const* k, std::int32_t channels) {
    float sum = 0;
    for (std::int32_t c = 0; c < channels; c += 16) {
        float part[4] = {};
        for (std::int32_t i = 0; i < 16; i += 4)
            for (std::int32_t j = 0; j < 4; ++j) part[j] += q[c + i + j] * k[c + i + j];
        sum += (part[0] + part[1]) + (part[2] + part[3]);
    }
    return sum;
}

/// Whether attend_rounded's last step, to T, is taken.
enum class last_rounding : std::int32_t { taken, left_out };

/// Products of a row with its keys, both turned as the kernel turns them and rounded to T: keys before the window to
/// their ranks, keys of the window to their positions.
template <class T>
void rounded_products(visible_row<T> const& row, attend_params<T> const& p, std::vector<float>& products) {
    auto const channels = static_cast<std::int32_t>(p.queries.extent[3]);
    auto const frequency = frequencies_of(p.rotation, channels);
    std::int32_t const looking = row.view->first_position + row.row;
    std::int32_t const before = keys_before(*row.keys, looking, p.window);
    auto const turned = [&](float const* x, double position) {
        return turned_and_rounded<T>(x, channels, p.rotation, frequency, position);
    };
    auto const far = turned(row.query, streaming_row_position(p.window.recent, before));
    auto const near = turned(row.query, looking);
    for (std::size_t n = 0; n < row.count(); ++n) {
        bool const in_window = static_cast<std::int32_t>(n) >= before;
        auto const key = turned(row.key(n), in_window ? (*row.keys)[n] : static_cast<std::int32_t>(n));
        products[n] = rounded_dot(in_window ? near.data() : far.data(), key.data(), channels);
    }
}

/// Computes valid params `p`: see attend_rounded().
template <class T>
void attend_rounded_checked(attend_params<T> const& p, attend_result& result, run_options const& options,
                            last_rounding last = last_rounding::taken) {
    auto const& extent = p.queries.extent;
    auto const channels = static_cast<std::size_t>(extent[3]);
    auto const lists = static_cast<std::size_t>(extent[0] * extent[1] * extent[2]);
    result.lse.assign(lists, std::numeric_limits<double>::quiet_NaN());
    result.output.assign(lists * channels, std::numeric_limits<double>::quiet_NaN());

    constexpr float log2_e = 1.44269504f, infinity = std::numeric_limits<float>::infinity();
    bool const capped = p.soft_cap > 0;
    // Without a cap the scale is folded into the exponent's factor; with one it is applied before tanh.
    float const unit = p.lse.base == lse_base::two ? 1.0f : 1.0f / log2_e;
    for_each_row(p, 32, options, [&](visible_row<T> const& row) {
        float const scale = p.scale * p.scales.of_keys(row.cache->head());
        float const factor = capped ? log2_e : scale * log2_e;
        std::vector<float> weights(row.count()), sum(channels, 0.0f);
        float most = -infinity, total = 0;
        bool unordered = false;
        if (!p.rotation.empty())
            rounded_products(row, p, weights);
        else
            for (std::size_t n = 0; n < row.count(); ++n)
                weights[n] = rounded_dot(row.query, row.key(n), static_cast<std::int32_t>(channels));
        for (std::size_t n = 0; n < row.count(); ++n) {
            float s = weights[n];
            if (capped) s = p.soft_cap * std::tanh(s * scale / p.soft_cap);
            weights[n] = s;
            if (s > most) most = s;
            unordered = unordered || s != s;
        }
        auto const at = static_cast<std::size_t>((row.outer * extent[1] + row.token) * extent[2] + row.head);
        if (most == -infinity && !unordered) {
            result.lse[at] = -std::numeric_limits<double>::infinity();
            for (std::size_t c = 0; c < channels; ++c) result.output[at * channels + c] = 0;
            return;
        }
        for (std::size_t n = 0; n < row.count(); ++n) {
            float const weight = std::exp2((weights[n] - most) * factor);
            total += weight;
            float const stored = to_float(from_float<T>(weight));
            float const* const value = row.value(n);
            for (std::size_t c = 0; c < channels; ++c) sum[c] += stored * value[c];
        }
        float lse = most * factor + std::log2(total), inverse = 1.0f / total;
        if (p.sink_logits != nullptr) {
            float const before = lse, sink = p.sink_logits[row.head] * log2_e, highest = std::fmax(lse, sink);
            lse = highest + std::log2(std::exp2(before - highest) + std::exp2(sink - highest));
            inverse *= std::exp2(before - lse);
        }
        inverse *= p.scales.of_values(row.cache->head());
        result.lse[at] = lse * unit;
        for (std::size_t c = 0; c < channels; ++c)
            result.output[at * channels + c] =
                last == last_rounding::taken ? to_float(from_float<T>(sum[c] * inverse)) : sum[c] * inverse;
    });
}

/// As attend(), but rounded, and into `result` alone: params.output and params.lse stay as they are. Values of
/// result.output are T's, those of result.lse floats; rows that are not written hold NaN.
template <class T>
status attend_rounded(attend_params<T> const& p, attend_result& result, run_options const& options = {},
                      last_rounding last = last_rounding::taken) {
    if (auto s = check(p); !s) return s;
    attend_rounded_checked(p, result, options, last);
    return {};
}

/// The same for an fp8 cache.
template <class T>
status attend_rounded(attend_params<T, fp8_e4m3> const& p, attend_result& result, run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    attend_rounded_checked(widened_cache<T>(p).call, result, options);
    return {};
}

}  // namespace winnow::reference
