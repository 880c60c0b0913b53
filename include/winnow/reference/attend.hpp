// Attention in double precision by plain loops over every visible key: what the kernels are held against.
//
//   output_i = sum_j p_ij values_j,  p_ij = exp(s_ij - lse_i),  s_ij = cap(scale queries_i . keys_j),  j visible to i,
//   exp(lse_i) = sum_j exp(s_ij), and exp(sink_logits_h) more where they are given.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "winnow/op/attend.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/streaming.hpp"
#include "winnow/reference/visible.hpp"

namespace winnow::reference {

/// Unrounded results. Rows that the call does not write (outside `range`, or of no request) hold NaN.
struct attend_result {
    std::vector<double> output;  ///< [outer, token, head, channel], packed, extents of queries
    std::vector<double> lse;     ///< [outer, token, head], in the base of params.lse
};

/// Products of a row with its keys at their streaming distances.
template <class T>
void turned_products(visible_row<T> const& row, attend_params<T> const& p, std::vector<double>& products) {
    auto const channels = static_cast<std::int32_t>(p.queries.extent[3]);
    auto const frequency = frequencies_of(p.rotation, channels);
    std::int32_t const looking = row.view->first_position + row.row;
    std::int32_t const before = keys_before(*row.keys, looking, p.window);
    for (std::size_t n = 0; n < row.count(); ++n) {
        auto const query = turned_to(row.query, channels, p.rotation, frequency,
                                     streaming_distance(*row.keys, n, before, looking, p.window));
        products[n] = dot(query.data(), row.key(n), channels);
    }
}

/// Scores of a row after scale and soft cap.
template <class T>
void scores_of(visible_row<T> const& row, attend_params<T> const& p, std::vector<double>& scores) {
    auto const channels = static_cast<std::int32_t>(p.queries.extent[3]);
    double const cap = p.soft_cap;
    double const scale = static_cast<double>(p.scale) * static_cast<double>(p.scales.of_keys(row.cache->head()));
    scores.resize(row.count());
    if (!p.rotation.empty())
        turned_products(row, p, scores);
    else
        for (std::size_t n = 0; n < row.count(); ++n) scores[n] = dot(row.query, row.key(n), channels);
    for (std::size_t n = 0; n < row.count(); ++n) {
        double const s = scores[n] * scale;
        scores[n] = cap > 0 ? cap * std::tanh(s / cap) : s;
    }
}

/// Turns scores into softmax weights and returns the natural log-sum-exp; -inf and weights 0 when nothing is visible.
inline double softmax(std::vector<double>& scores) {
    double const minus_infinity = -std::numeric_limits<double>::infinity();
    double most = minus_infinity, sum = 0;
    for (double const s : scores)
        if (s > most) most = s;
    // Scores of -inf alone weigh nothing either. A NaN must reach the sum, so it does not take this way out.
    bool nothing = most == minus_infinity;
    for (double const s : scores) nothing = nothing && s == minus_infinity;
    if (nothing) {
        for (double& s : scores) s = 0;
        return minus_infinity;
    }
    for (double& s : scores) sum += s = std::exp(s - most);
    for (double& s : scores) s /= sum;
    return most + std::log(sum);
}

/// Attention of one row: writes its channels and returns the natural log-sum-exp.
template <class T>
double attend_row(visible_row<T> const& row, attend_params<T> const& p, std::vector<double>& sum) {
    std::vector<double> weights;
    sum.assign(static_cast<std::size_t>(p.queries.extent[3]), 0.0);
    scores_of(row, p, weights);
    double lse = softmax(weights);
    if (p.sink_logits != nullptr && lse > -std::numeric_limits<double>::infinity()) {
        double const sink = static_cast<double>(p.sink_logits[row.head]), most = std::fmax(lse, sink);
        double const total = most + std::log(std::exp(lse - most) + std::exp(sink - most));
        for (double& weight : weights) weight *= std::exp(lse - total);
        lse = total;
    }
    double const value_scale = p.scales.of_values(row.cache->head());
    for (std::size_t n = 0; n < row.count(); ++n) {
        float const* const value = row.value(n);
        double const weight = weights[n] * value_scale;
        for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weight * static_cast<double>(value[c]);
    }
    return lse;
}

/// Computes valid params `p`: see attend().
template <class T>
void attend_checked(attend_params<T> const& p, attend_result* exact, run_options const& options) {
    auto const& extent = p.queries.extent;
    auto const channels = static_cast<std::size_t>(extent[3]);
    if (exact) {
        auto const lists = static_cast<std::size_t>(extent[0] * extent[1] * extent[2]);
        exact->lse.assign(lists, std::numeric_limits<double>::quiet_NaN());
        exact->output.assign(lists * channels, std::numeric_limits<double>::quiet_NaN());
    }
    double const unit = p.lse.base == lse_base::two ? 1 / std::log(2.0) : 1.0;
    for_each_row(p, 32, options, [&](visible_row<T> const& row) {
        std::vector<double> sum;
        double const lse = attend_row(row, p, sum) * unit;
        T* const output = p.output.data + p.output.offset(row.outer, row.token, row.head);
        for (std::size_t c = 0; c < channels; ++c) output[c] = from_float<T>(static_cast<float>(sum[c]));
        if (!p.lse.empty()) p.lse.values(row.outer, row.token, row.head) = static_cast<float>(lse);
        if (exact) {
            auto const at = static_cast<std::size_t>((row.outer * extent[1] + row.token) * extent[2] + row.head);
            exact->lse[at] = lse;
            for (std::size_t c = 0; c < channels; ++c) exact->output[at * channels + c] = sum[c];
        }
    });
}

/// Computes `p` on host pointers: checks it, then writes p.output and p.lse, and unrounded results to `exact` if given.
template <class T>
status attend(attend_params<T> const& p, attend_result* exact = nullptr, run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    attend_checked(p, exact, options);
    return {};
}

/// Keys and values of an fp8 cache as T, which holds them exactly, and the call that reads them there.
template <class T>
struct widened_cache {
    std::vector<T> keys;    ///< packed, extents of the cache
    std::vector<T> values;  ///< the same
    attend_params<T> call;  ///< with the scales of the cache: not for check(), which keeps them to fp8

    /// Widens the cache of valid params.
    explicit widened_cache(attend_params<T, fp8_e4m3> const& p)
        : call(over_cache(p, widened(p.keys, keys), widened(p.values, values), p.scales)) {}
    widened_cache(widened_cache const&) = delete;
    widened_cache& operator=(widened_cache const&) = delete;

private:
    static tensor_view<T const, 4> widened(tensor_view<fp8_e4m3 const, 4> const& from, std::vector<T>& to) {
        auto const& e = from.extent;
        to.reserve(static_cast<std::size_t>(from.size()));
        for (std::int64_t outer = 0; outer < e[0]; ++outer)
            for (std::int64_t token = 0; token < e[1]; ++token)
                for (std::int64_t head = 0; head < e[2]; ++head)
                    for (std::int64_t c = 0; c < e[3]; ++c)
                        to.push_back(from_float<T>(to_float(from(outer, token, head, c))));
        return packed_view(static_cast<T const*>(to.data()), {e[0], e[1], e[2], e[3]});
    }
};

/// The same for an fp8 cache: as attend() over its widened elements, with its scales.
template <class T>
status attend(attend_params<T, fp8_e4m3> const& p, attend_result* exact = nullptr, run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    attend_checked(widened_cache<T>(p).call, exact, options);
    return {};
}

}  // namespace winnow::reference
