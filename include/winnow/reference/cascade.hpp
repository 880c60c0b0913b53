// Attention over a cascading cache in double precision by plain loops, with scores: the oracle of cascade_attend.
//
//   p_mj = exp(scale q_m . k_j - lse_m) over sinks, slots and tokens 0 .. m of the chunk,
//   score of a slot <- beta^S score + sum_m beta^(S - 1 - m) p_mj, reduced over heads; of a new token the sum alone
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "winnow/core/cascade_params.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/status.hpp"
#include "winnow/op/cascade.hpp"
#include "winnow/reference/append.hpp"
#include "winnow/reference/cascade_insert.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/rounded.hpp"
#include "winnow/reference/rows.hpp"

namespace winnow::reference {

/// Unrounded results. What the call does not write holds NaN.
struct cascade_result {
    std::vector<double> output;  ///< [outer, token, head, channel], packed
    std::vector<double> lse;     ///< [outer, token, head], in the base of params.lse
    std::vector<double> scores;  ///< [outer, token, token head] of the chunk's tokens; empty where nothing is scored
    std::vector<double> slots;   ///< [sequence, token head, slot] of the cache afterwards; empty likewise
};

/// What one KV head of a request attends to.
template <class Real>
struct cascade_context {
    std::int32_t cached = 0;          ///< tokens in front of the chunk
    std::vector<std::int32_t> slot;   ///< [cached] of each, -1 for sinks
    std::vector<Real> keys;           ///< [cached + tokens, channel], rotated
    std::vector<Real> values;         ///< the same
    std::int32_t first_position = 0;  ///< of the chunk's first token
};

namespace detail {

/// Channels of a row, rotated if asked for; as float after rounding to T, as the kernels hold it.
template <class Real, class T>
void append_row(std::vector<Real>& to, T const* from, std::int32_t channels, rope const& rotation,
                std::int32_t position) {
    std::vector<double> row;
    for (std::int32_t c = 0; c < channels; ++c) row.push_back(static_cast<double>(to_float(from[c])));
    rotate(rotation, position, row);
    for (double const x : row)
        to.push_back(std::is_same_v<Real, double> ? static_cast<Real>(x)
                                                  : static_cast<Real>(to_float(from_float<T>(static_cast<float>(x)))));
}

/// Sum of products, in double or as tensor cores take it.
inline double score_of(double const* q, double const* k, std::int32_t channels) {
    double sum = 0;
    for (std::int32_t c = 0; c < channels; ++c) sum += q[c] * k[c];
    return sum;
}
inline float score_of(float const* q, float const* k, std::int32_t channels) { return rounded_dot(q, k, channels); }

/// One score of several heads'.
template <class Real>
Real reduced(cascade_reduction reduction, std::vector<Real> scores) {
    std::sort(scores.begin(), scores.end());
    if (reduction == cascade_reduction::max) return scores.back();
    if (reduction == cascade_reduction::median) return scores[(scores.size() - 1) / 2];
    return std::accumulate(scores.begin(), scores.end(), Real{0}) / static_cast<Real>(scores.size());
}

/// The keys that the chunk of a request sees, from the definition of positions.
template <class Real, class T>
cascade_context<Real> context_of(cascade_attend_params<T> const& p, cascade_chunk const& chunk, std::int32_t kv_head) {
    cascade_cache<T> const& cache = p.cache;
    cascade_layout const& layout = cache.layout;
    cascade_counters const& counters = *cache.counters(chunk.sequence);
    std::int32_t const* const origins = cache.origins(chunk.sequence, cache.token_head_of(kv_head));
    bool const original = p.positions == cascade_positions::original;
    cascade_context<Real> context;
    auto const add = [&](std::int32_t row, std::int32_t position) {
        std::int64_t const at = std::int64_t{row} * cache.head_dim;
        append_row(context.keys, cache.keys(chunk.sequence, kv_head) + at, cache.head_dim, p.rotation, position);
        append_row(context.values, cache.values(chunk.sequence, kv_head) + at, cache.head_dim, rope{}, 0);
        context.slot.push_back(row < layout.sinks ? -1 : row - layout.sinks);
        ++context.cached;
    };
    std::int32_t const sinks = filled_sinks(layout, counters);
    for (std::int32_t row = 0; row < sinks; ++row) add(row, row);
    for (std::int32_t i = 0; i < layout.levels; ++i) {
        std::int32_t older = sinks;
        for (std::int32_t j = i + 1; j < layout.levels; ++j) older += counters.count[j];
        for (std::int32_t slot = 0; slot < counters.count[i]; ++slot) {
            std::int32_t const age = (slot - counters.head[i] + counters.count[i]) % counters.count[i];
            std::int32_t const at = layout.slots_before(i) + slot;
            add(layout.sinks + at, original ? origins[at] : older + age);
        }
    }
    context.first_position = original ? static_cast<std::int32_t>(counters.seen) : context.cached;
    for (std::int32_t u = 0; u < chunk.tokens; ++u) {
        append_row(context.keys, p.keys.data + p.keys.offset(chunk.outer, chunk.first_row + u, kv_head), cache.head_dim,
                   p.rotation, context.first_position + u);
        append_row(context.values, p.values.data + p.values.offset(chunk.outer, chunk.first_row + u, kv_head),
                   cache.head_dim, rope{}, 0);
    }
    return context;
}

/// One query head of a request: writes output and lse, and adds to `sums` [cached + tokens].
template <class Real, class T>
void attend_head(cascade_attend_params<T> const& p, cascade_chunk const& chunk, std::int32_t head,
                 cascade_context<Real> const& context, cascade_result& result, Real* sums) {
    constexpr bool exact = std::is_same_v<Real, double>;
    constexpr Real infinity = std::numeric_limits<Real>::infinity();
    std::int32_t const channels = p.cache.head_dim, counted = p.scorer.counted(chunk.tokens);
    // Exponents are base 2 in the kernels.
    auto const factor = exact ? static_cast<Real>(p.scale) : static_cast<Real>(p.scale * 1.44269504f);
    auto const power = [](Real x) { return exact ? std::exp(x) : std::exp2(x); };
    Real const unit = (p.lse.base == lse_base::two) == !exact ? 1
                      : exact                                 ? static_cast<Real>(1.4426950408889634)
                                                              : static_cast<Real>(0.6931471805599453);
    for (std::int32_t m = 0; m < chunk.tokens; ++m) {
        std::vector<Real> query, weights;
        append_row(query, p.queries.data + p.queries.offset(chunk.outer, chunk.first_row + m, head), channels,
                   p.rotation, context.first_position + m);
        Real most = -infinity, total = 0;
        for (std::int32_t j = 0; j <= context.cached + m; ++j) {
            weights.push_back(score_of(query.data(), context.keys.data() + std::int64_t{j} * channels, channels) *
                              (exact ? factor : Real{1}));
            if (weights.back() > most) most = weights.back();
        }
        std::vector<Real> sum(static_cast<std::size_t>(channels), Real{0});
        Real const inner = exact ? Real{1} : factor;
        for (std::int32_t j = 0; j <= context.cached + m; ++j) {
            Real const weight = power((weights[static_cast<std::size_t>(j)] - most) * inner);
            total += weight;
            Real const stored = exact ? weight : static_cast<Real>(to_float(from_float<T>(static_cast<float>(weight))));
            for (std::int32_t c = 0; c < channels; ++c)
                sum[static_cast<std::size_t>(c)] +=
                    stored * context.values[static_cast<std::size_t>(std::int64_t{j} * channels + c)];
        }
        Real const lse = most * inner + (exact ? std::log(total) : std::log2(total));
        auto const at = static_cast<std::size_t>(
            (chunk.outer * p.queries.extent[1] + chunk.first_row + m) * p.queries.extent[2] + head);
        result.lse[at] = static_cast<double>(lse * unit);
        for (std::int32_t c = 0; c < channels; ++c) {
            Real const x = sum[static_cast<std::size_t>(c)] / total;
            result.output[at * static_cast<std::size_t>(channels) + static_cast<std::size_t>(c)] =
                exact ? static_cast<double>(x) : static_cast<double>(to_float(from_float<T>(static_cast<float>(x))));
        }
        if (sums == nullptr || m < chunk.tokens - counted) continue;
        double const decay = (chunk.tokens - 1 - m) * (exact ? std::log(p.scorer.beta) : std::log2(p.scorer.beta));
        for (std::int32_t j = 0; j <= context.cached + m; ++j)
            sums[j] += power(weights[static_cast<std::size_t>(j)] * inner + (static_cast<Real>(decay) - lse));
    }
}

/// Output, lse and scores into `result`; params stay as they are.
template <class Real, class T>
void cascade_run(cascade_attend_params<T> const& p, cascade_result& result, run_options const& options) {
    batch_shape const shape = p.shape();
    cascade_cache<T> const& cache = p.cache;
    double const nan = std::numeric_limits<double>::quiet_NaN();
    auto const rows = static_cast<std::size_t>(p.queries.extent[0] * p.queries.extent[1]);
    auto const token_heads = static_cast<std::size_t>(cache.token_heads());
    auto const slots = static_cast<std::size_t>(cache.layout.slots()), heads = static_cast<std::size_t>(shape.heads);
    result = {};
    result.output.assign(rows * heads * static_cast<std::size_t>(shape.head_dim), nan);
    result.lse.assign(rows * heads, nan);
    if (p.takes_scores()) {
        result.scores.assign(rows * token_heads, nan);
        for (std::int32_t sequence = 0; sequence < cache.sequences; ++sequence)
            for (std::int32_t h = 0; h < cache.token_heads(); ++h)
                for (std::size_t i = 0; i < slots; ++i)
                    result.slots.push_back(static_cast<double>(cache.scores(sequence, h)[i]));
    }
    for (std::int32_t b = 0; b < shape.batch; ++b) {
        cascade_chunk const chunk = chunk_of(p.rows, p.sequence, cache.sequences, shape.max_queries, b);
        if (chunk.sequence < 0) {  // sees nothing
            cascade_chunk const padding = chunk_of(p.rows, nullptr, shape.batch, shape.max_queries, b);
            for (std::int32_t m = 0; m < padding.tokens; ++m)
                for (std::size_t h = 0; h < heads; ++h) {
                    auto const at =
                        static_cast<std::size_t>(padding.outer * p.queries.extent[1] + padding.first_row + m) * heads +
                        h;
                    result.lse[at] = -std::numeric_limits<double>::infinity();
                    for (std::int32_t c = 0; c < shape.head_dim; ++c)
                        result.output[at * static_cast<std::size_t>(shape.head_dim) + static_cast<std::size_t>(c)] = 0;
                }
            continue;
        }
        if (chunk.tokens == 0) continue;
        std::vector<std::int32_t> slot;
        std::vector<std::vector<Real>> sums(heads);
        std::vector<cascade_context<Real>> contexts(static_cast<std::size_t>(shape.kv_heads));
        parallel_for(shape.kv_heads, options, [&](std::int64_t kv_head) {
            auto& context = contexts[static_cast<std::size_t>(kv_head)];
            context = context_of<Real>(p, chunk, static_cast<std::int32_t>(kv_head));
            for (std::int32_t g = 0; g < shape.group(); ++g) {
                std::int32_t const head = static_cast<std::int32_t>(kv_head) * shape.group() + g;
                auto& sum = sums[static_cast<std::size_t>(head)];
                sum.assign(static_cast<std::size_t>(context.cached + chunk.tokens), Real{0});
                attend_head(p, chunk, head, context, result, p.takes_scores() ? sum.data() : nullptr);
            }
        });
        if (!p.takes_scores()) continue;
        std::int32_t const cached = contexts[0].cached, share = shape.heads / cache.token_heads();
        auto const fade = static_cast<Real>(std::pow(p.scorer.beta, chunk.tokens));
        for (std::int32_t s = 0; s < cache.token_heads(); ++s)
            for (std::int32_t j = 0; j < cached + chunk.tokens; ++j) {
                std::vector<Real> shared;
                for (std::int32_t g = 0; g < share; ++g)
                    shared.push_back(sums[static_cast<std::size_t>(s * share + g)][static_cast<std::size_t>(j)]);
                Real const score = reduced(p.scorer.reduction, shared);
                if (j >= cached) {
                    auto const row =
                        static_cast<std::size_t>(chunk.outer * p.queries.extent[1] + chunk.first_row + j - cached);
                    result.scores[row * token_heads + static_cast<std::size_t>(s)] = static_cast<double>(score);
                } else if (std::int32_t const at = contexts[0].slot[static_cast<std::size_t>(j)]; at >= 0) {
                    auto const old = static_cast<Real>(cache.scores(chunk.sequence, s)[at]);
                    result
                        .slots[(static_cast<std::size_t>(chunk.sequence) * token_heads + static_cast<std::size_t>(s)) *
                                   slots +
                               static_cast<std::size_t>(at)] = static_cast<double>(fade * old + score);
                }
            }
    }
}

}  // namespace detail

/// As cascade_attend(), but rounded as the kernels round, and into `result` alone.
template <class T>
status cascade_attend_rounded(cascade_attend_params<T> const& p, cascade_result& result,
                              run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    detail::cascade_run<float>(p, result, options);
    return {};
}

/// Computes `p` on host pointers: checks it, then writes output, lse, scores and the scores of the cache's slots, and
/// unrounded results to `exact` if given.
template <class T>
status cascade_attend(cascade_attend_params<T> const& p, cascade_result* exact = nullptr,
                      run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    cascade_result own;
    cascade_result& result = exact ? *exact : own;
    detail::cascade_run<double>(p, result, options);
    auto const& extent = p.queries.extent;
    std::size_t at = 0;
    for (std::int64_t o = 0; o < extent[0]; ++o)
        for (std::int64_t t = 0; t < extent[1]; ++t)
            for (std::int64_t h = 0; h < extent[2]; ++h, ++at) {
                if (std::isnan(result.lse[at])) continue;
                for (std::int64_t c = 0; c < extent[3]; ++c)
                    p.output(o, t, h, c) = from_float<T>(static_cast<float>(
                        result.output[at * static_cast<std::size_t>(extent[3]) + static_cast<std::size_t>(c)]));
                if (!p.lse.empty()) p.lse.values(o, t, h) = static_cast<float>(result.lse[at]);
            }
    if (!p.takes_scores()) return {};
    at = 0;
    for (std::int64_t o = 0; o < extent[0]; ++o)
        for (std::int64_t t = 0; t < extent[1]; ++t)
            for (std::int32_t s = 0; s < p.cache.token_heads(); ++s, ++at)
                if (!std::isnan(result.scores[at])) p.scores(o, t, s) = static_cast<float>(result.scores[at]);
    at = 0;
    for (std::int32_t sequence = 0; sequence < p.cache.sequences; ++sequence)
        for (std::int32_t s = 0; s < p.cache.token_heads(); ++s)
            for (std::int32_t slot = 0; slot < p.cache.layout.slots(); ++slot, ++at)
                if (!std::isnan(result.slots[at]))
                    p.cache.scores(sequence, s)[slot] = static_cast<float>(result.slots[at]);
    return {};
}

/// Whole sequences chunk by chunk.
template <class T>
status cascade_prefill(cascade_prefill_params<T> const& p, run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    std::int64_t const tokens = p.keys.extent[1];
    std::vector<float> scores(
        static_cast<std::size_t>(p.keys.extent[0] * smaller<std::int64_t>(p.chunk, tokens) * p.cache.token_heads()));
    float* const wanted = p.cache.layout.selects() ? scores.data() : nullptr;
    for (std::int64_t first = 0; first < tokens; first += p.chunk) {
        auto const part = attend_part(p, first, smaller<std::int64_t>(p.chunk, tokens - first), wanted);
        if (auto s = cascade_attend(part, nullptr, options); !s) return s;
        if (auto s = cascade_insert(insert_part(part)); !s) return s;
    }
    return {};
}

}  // namespace winnow::reference
