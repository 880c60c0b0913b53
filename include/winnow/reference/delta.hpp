// Delta correction in double precision from its definition: the oracle of delta correction.
//
//   output_i = S_i + (X_a - S_a);  mass preserving: (Z_a O_a + T_i S_i) / (Z_a + T_i), Z_a O_a = (Z_a + T_a) X_a - T_a S_a.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "winnow/op/delta.hpp"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/rounded.hpp"
#include "winnow/reference/visible.hpp"

namespace winnow::reference {

/// First row of a request's tail: floor(max(0, rows - dense_tail) / gamma) gamma, counted in positions.
template <class T>
std::int32_t first_of_tail(delta_params<T> const& p, request_view const& r) {
    return p.options.last_chunk ? covered(sparse_part(p), r).end : r.queries;
}

/// Anchor of a row: the last row up to it whose position gamma divides, or else the request's first.
inline std::int32_t anchor_row_of(std::int32_t row, request_view const& r, std::int32_t gamma) {
    std::int64_t i = row;
    while (i > 0 && (i + r.first_position) % gamma != 0) --i;
    return static_cast<std::int32_t>(i);
}

/// Puts sparse rows and dense ones together. All vectors as attend_result's, lse natural; `dense` is read at anchors and in
/// the tail alone, `sparse` before the tail.
template <class T>
void correct_rows(delta_params<T> const& p, attend_result const& sparse, attend_result const& dense,
                  attend_result& result) {
    auto const& extent = p.base.queries.extent;
    auto const heads = static_cast<std::size_t>(extent[2]), channels = static_cast<std::size_t>(extent[3]);
    double const minus_infinity = -std::numeric_limits<double>::infinity();
    result.lse.assign(sparse.lse.size(), std::numeric_limits<double>::quiet_NaN());
    result.output.assign(sparse.output.size(), std::numeric_limits<double>::quiet_NaN());
    for (std::int32_t b = 0; b < p.shape().batch; ++b) {
        request_view const r = request_of_params(p.base, b);
        std::int32_t const cut = first_of_tail(p, r);
        auto const at = [&](std::int32_t row, std::size_t head) {
            return static_cast<std::size_t>(r.outer * extent[1] + r.first_row + row) * heads + head;
        };
        for (std::int32_t row = 0; row < r.queries; ++row) {
            std::int32_t const anchor = row < cut ? anchor_row_of(row, r, p.options.gamma) : row;
            for (std::size_t h = 0; h < heads; ++h) {
                std::size_t const i = at(row, h), a = at(anchor, h);
                double const* const x = dense.output.data() + a * channels;
                double const* const sa = sparse.output.data() + a * channels;
                double const* const si = sparse.output.data() + i * channels;
                double* const out = result.output.data() + i * channels;
                bool const mass = p.options.form == delta_form::mass_preserving;
                if (anchor == row) {
                    for (std::size_t c = 0; c < channels; ++c) out[c] = x[c];
                    result.lse[i] = dense.lse[a];
                } else if (p.options.form == delta_form::recompute || (mass && dense.lse[a] == minus_infinity)) {
                    for (std::size_t c = 0; c < channels; ++c) out[c] = si[c];
                    result.lse[i] = sparse.lse[i];
                } else if (mass) {
                    double const most = std::fmax(dense.lse[a], sparse.lse[i]);
                    double const all = std::exp(dense.lse[a] - most);             // Z_a + T_a
                    double const share = std::exp(sparse.lse[a] - dense.lse[a]);  // T_a / (Z_a + T_a)
                    double const omitted = std::fmax(all * (1 - share), 0.0);     // Z_a
                    double const seen = std::exp(sparse.lse[i] - most);           // T_i
                    for (std::size_t c = 0; c < channels; ++c) {
                        double const missing = omitted > 0 ? all * (x[c] - share * sa[c]) : 0;
                        out[c] = (missing + seen * si[c]) / (omitted + seen);
                    }
                    result.lse[i] = most + std::log(omitted + seen);
                } else {
                    for (std::size_t c = 0; c < channels; ++c) out[c] = si[c] + (x[c] - sa[c]);
                    result.lse[i] = sparse.lse[i];
                }
            }
        }
    }
}

/// Computes `p` on host pointers: checks it, then writes base.output and base.lse, and unrounded results to `exact` if
/// given.
template <class T>
status delta(delta_params<T> const& p, attend_result* exact = nullptr, run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    auto const& extent = p.base.queries.extent;
    auto const channels = static_cast<std::size_t>(extent[3]);
    auto const lists = static_cast<std::size_t>(extent[0] * extent[1] * extent[2]);
    attend_result sparse, dense, result;
    for (auto* const r : {&sparse, &dense}) {
        r->lse.assign(lists, std::numeric_limits<double>::quiet_NaN());
        r->output.assign(lists * channels, std::numeric_limits<double>::quiet_NaN());
    }
    auto const compute = [&](attend_params<T> part, attend_result& to, auto const& wanted) {
        part.range = row_range::all, part.tail = 0, part.tail_step = 1;
        for_each_row(part, 32, options, [&](visible_row<T> const& row) {
            if (!wanted(row)) return;
            std::vector<double> sum;
            double const lse = attend_row(row, part, sum);
            auto const at = static_cast<std::size_t>((row.outer * extent[1] + row.token) * extent[2] + row.head);
            to.lse[at] = lse;
            for (std::size_t c = 0; c < channels; ++c) to.output[at * channels + c] = sum[c];
        });
    };
    compute(sparse_part(p), sparse, [&](visible_row<T> const& row) { return row.row < first_of_tail(p, *row.view); });
    compute(dense_part(p), dense, [&](visible_row<T> const& row) {
        return row.row >= first_of_tail(p, *row.view) || anchor_row_of(row.row, *row.view, p.options.gamma) == row.row;
    });
    correct_rows(p, sparse, dense, result);
    double const unit = p.base.lse.base == lse_base::two ? 1 / std::log(2.0) : 1.0;
    for (double& lse : result.lse) lse *= unit;
    for (std::int32_t b = 0; b < p.shape().batch; ++b) {
        request_view const r = request_of_params(p.base, b);
        for (std::int32_t row = 0; row < r.queries; ++row)
            for (std::int64_t h = 0; h < extent[2]; ++h) {
                auto const token = static_cast<std::int64_t>(r.first_row) + row;
                auto const at = static_cast<std::size_t>((r.outer * extent[1] + token) * extent[2] + h);
                for (std::size_t c = 0; c < channels; ++c)
                    p.base.output(r.outer, token, h, c) =
                        from_float<T>(static_cast<float>(result.output[at * channels + c]));
                if (!p.base.lse.empty()) p.base.lse.values(r.outer, token, h) = static_cast<float>(result.lse[at]);
            }
    }
    if (exact) *exact = std::move(result);
    return {};
}

/// The same with both attentions rounded as the kernels round them, kept in fp32 until one rounding to T; into `result`
/// alone. Values of result.output are T's.
template <class T>
status delta_rounded(delta_params<T> const& p, attend_result& result, run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    attend_params<T> sparse_call = p.base, dense_call = dense_part(p);
    dense_call.range = row_range::all, dense_call.tail = 0, dense_call.tail_step = 1;
    sparse_call.lse.base = dense_call.lse.base = lse_base::natural;
    attend_result sparse, dense;
    if (auto s = attend_rounded(sparse_call, sparse, options, last_rounding::left_out); !s) return s;
    if (auto s = attend_rounded(dense_call, dense, options, last_rounding::left_out); !s) return s;
    correct_rows(p, sparse, dense, result);
    for (double& x : result.output) x = to_float(from_float<T>(static_cast<float>(x)));
    double const unit = p.base.lse.base == lse_base::two ? 1 / std::log(2.0) : 1.0;
    for (double& lse : result.lse) lse *= unit;
    return {};
}

}  // namespace winnow::reference
