// Merging of partial attention results in double: the oracle of merge.
//
//   lse = ln sum_i exp(lse_i),   output = sum_i exp(lse_i - lse) output_i;   (0, -inf) is the identity.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "winnow/core/dtype.hpp"
#include "winnow/op/merge.hpp"

namespace winnow::reference {

/// Unrounded results of a merge.
struct merge_result {
    std::vector<double> output;  ///< [row, head, channel], packed
    std::vector<double> lse;     ///< [row, head], in params.base
};

/// Computes `p` on host pointers: checks it, then writes p.output and p.lse, and unrounded results to `exact` if given.
template <class T>
status merge(merge_params<T> const& p, merge_result* exact = nullptr) {
    if (auto s = check(p); !s) return s;
    double const minus_infinity = -std::numeric_limits<double>::infinity();
    double const unit = p.base == lse_base::two ? std::log(2.0) : 1.0;  // natural logarithm of the base
    auto const channels = static_cast<std::size_t>(p.output.extent[2]);
    if (exact) *exact = {};
    for (std::int64_t row = 0; row < p.output.extent[0]; ++row)
        for (std::int64_t head = 0; head < p.output.extent[1]; ++head) {
            double most = minus_infinity, total = 0;
            for (std::int64_t part = 0; part < p.lses.extent[0]; ++part)
                most = std::fmax(most, static_cast<double>(p.lses(part, row, head)) * unit);
            std::vector<double> sum(channels, 0.0);
            for (std::int64_t part = 0; part < p.lses.extent[0]; ++part) {
                double const lse = static_cast<double>(p.lses(part, row, head)) * unit;
                if (lse == minus_infinity) continue;  // whatever its output holds
                double const weight = std::exp(lse - most);
                total += weight;
                for (std::size_t c = 0; c < channels; ++c)
                    sum[c] += weight * static_cast<double>(to_float(p.outputs(part, row, head, c)));
            }
            bool const empty = total == 0;
            double const lse = empty ? minus_infinity : (most + std::log(total)) / unit;
            for (std::size_t c = 0; c < channels; ++c) {
                sum[c] = empty ? 0.0 : sum[c] / total;
                p.output(row, head, c) = from_float<T>(static_cast<float>(sum[c]));
            }
            if (p.lse.data) p.lse(row, head) = static_cast<float>(lse);
            if (exact) {
                exact->lse.push_back(lse);
                exact->output.insert(exact->output.end(), sum.begin(), sum.end());
            }
        }
    return {};
}

}  // namespace winnow::reference
