// One pruning stage by the plain definition: candidates of a query block, their scores in double, and the ones kept.
//
//   score(chunk) = max over row groups and over the heads that share a list of q . k*, k* as in prune_stages.hpp, times the
//   scale of fp8 keys.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "winnow/core/dtype.hpp"
#include "winnow/op/prune.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/rows.hpp"
#include "winnow/reference/streaming.hpp"

namespace winnow::reference {

/// Where the reference rounds as the kernels do. Probes and sums stay in double either way.
struct prune_rounding {
    bool queries = true;   ///< averaged queries (query_stride > 1) are rounded to T, as tensor cores take them
    bool mean_key = true;  ///< the mean of a chunk's keys is rounded to T
    bool turned = true;    ///< queries and keys that were turned are rounded to T
};

/// What one stage did for one list.
struct pruned_list {
    std::int32_t eligible_end = 0;   ///< candidates lie below it
    std::vector<std::int32_t> left;  ///< left ends of the candidates, ascending
    std::vector<double> score;       ///< theirs; empty where everything was kept, which needs no scores
    std::vector<std::int32_t> kept;  ///< left ends of the kept ones, ascending
};

/// Queries of one head and query block, averaged in groups: fp32 means over the rows of a group inside the block.
struct query_groups {
    std::vector<std::int32_t> look;  ///< position from which each group looks: that of its first row
    std::vector<float> mean;         ///< [group, channel]
};

/// Everything that the stages of one request share.
template <class T, class KV = T>
struct prune_request {
    prune_params<T, KV> const& p;       ///< the call
    request_view view;                  ///< lengths and position of the request
    std::int32_t request;               ///< index in the batch
    prune_rounding rounding;            ///< where to round
    std::vector<row_cache<KV>> caches;  ///< one per KV head
    std::vector<double> frequency;      ///< of the rotation, if there is one

    /// Looks up request `b`.
    prune_request(prune_params<T, KV> const& params, std::int32_t b, prune_rounding how)
        : p(params), view(request_of(params.shape(), params.rows, params.kv, page_size_of(params.keys, params.kv),
                                     params.mask, b)),
          request(b), rounding(how) {
        if (!p.rotation.empty()) frequency = frequencies_of(p.rotation, p.shape().head_dim);
        for (std::int32_t h = 0; h < p.shape().kv_heads; ++h)
            caches.emplace_back(p.keys, tensor_view<KV const, 4>{}, p.kv, b, h, view.keys);
    }
};

/// The best sum over the antidiagonal of a square of `stride` rows and keys, for one head: see scorer::antidiagonal. Rows
/// that the query block does not have and keys beyond the chunk count as zeros.
template <class T, class KV>
double antidiagonal_score(prune_request<T, KV>& q, query_span span, std::int32_t stride, std::int32_t head,
                          std::int32_t kv_head, std::int32_t left, std::int32_t right) {
    auto const channels = static_cast<std::size_t>(q.p.queries.extent[3]);
    auto& cache = q.caches[static_cast<std::size_t>(kv_head)];
    std::vector<float> row(channels);
    double best = -std::numeric_limits<double>::infinity();
    for (std::int32_t group = span.first / stride; group <= span.last / stride; ++group) {
        std::int32_t const first = larger(group * stride, span.first);
        std::int32_t const look = q.p.mask.kind == mask_kind::causal ? first : q.view.keys - 1;
        for (std::int32_t square = left; square < right; square += stride) {
            if (smaller(square + stride, right) - 1 > look) continue;
            double sum = 0;
            for (std::int32_t r = 0; r < stride; ++r) {
                std::int32_t const position = group * stride + stride - 1 - r, key = square + r;
                // A key that no row of the block meets is not looked at; a NaN among the others reaches every sum.
                bool met = false;
                for (std::int32_t at = span.first; at <= span.last && !met; ++at) met = at % stride == stride - 1 - r;
                if (!met || key >= right) continue;
                bool const exists = position >= span.first && position <= span.last;
                T const* const from =
                    q.p.queries.data +
                    q.p.queries.offset(q.view.outer, exists ? q.view.first_row + position - q.view.first_position : 0,
                                       head);
                for (std::size_t c = 0; c < channels; ++c) row[c] = exists ? to_float(from[c]) : 0.0f;
                sum += dot(row.data(), cache.key(cache.fetch(key)), static_cast<std::int32_t>(channels));
            }
            best = std::fmax(best, sum);
        }
    }
    return best;
}

/// Averages the rows of `span` in groups of stage.query_stride, aligned to absolute positions.
template <class T, class KV>
query_groups groups_of(prune_request<T, KV> const& q, prune_stage const& stage, query_span span, std::int32_t head) {
    auto const channels = static_cast<std::size_t>(q.p.queries.extent[3]);
    query_groups groups;
    for (std::int32_t position = span.first; position <= span.last;) {
        std::int32_t const end = smaller((position / stage.query_stride + 1) * stage.query_stride, span.last + 1);
        std::vector<float> mean(channels, 0.0f);
        for (std::int32_t at = position; at < end; ++at) {
            T const* const row = q.p.queries.data +
                                 q.p.queries.offset(q.view.outer, q.view.first_row + at - q.view.first_position, head);
            for (std::size_t c = 0; c < channels; ++c) mean[c] += to_float(row[c]);
        }
        for (float& m : mean) {
            m /= static_cast<float>(end - position);
            if (q.rounding.queries) m = to_float(from_float<T>(m));
        }
        groups.look.push_back(q.p.mask.kind == mask_kind::causal ? position : q.view.keys - 1);
        groups.mean.insert(groups.mean.end(), mean.begin(), mean.end());
        position = end;
    }
    return groups;
}

/// Channels turned to a position, as floats.
template <class T, class KV>
std::vector<float> turned(prune_request<T, KV> const& q, float const* channels, double position) {
    auto const head_dim = static_cast<std::int32_t>(q.p.queries.extent[3]);
    if (q.rounding.turned) return turned_and_rounded<T>(channels, head_dim, q.p.rotation, q.frequency, position);
    auto const exact = turned_to(channels, head_dim, q.p.rotation, q.frequency, position);
    return std::vector<float>(exact.begin(), exact.end());
}

/// The groups as a probe of side `side` (0 left, 1 right) meets them in a list of `chunks` chunks.
template <class T, class KV>
query_groups turned_groups(prune_request<T, KV> const& q, query_groups groups, std::int32_t side, std::int32_t chunks) {
    auto const channels = static_cast<std::size_t>(q.p.queries.extent[3]);
    std::int32_t const reach = scan_reach(q.p.method);
    for (std::size_t g = 0; g < groups.look.size(); ++g) {
        std::int32_t const position =
            q.p.scan == scan_style::relative ? reach + 1 - side : scan_row_position(groups.look[g], chunks, reach);
        auto const row = turned(q, groups.mean.data() + g * channels, position);
        std::copy(row.begin(), row.end(), groups.mean.data() + g * channels);
    }
    return groups;
}

/// Maximum over the groups that may see `position` of their product with `key`; NaN never wins. -inf: no group may.
inline double probe(query_groups const& groups, float const* key, std::int32_t channels, std::int32_t position) {
    double most = -std::numeric_limits<double>::infinity();
    for (std::size_t g = 0; g < groups.look.size(); ++g)
        if (position <= groups.look[g])
            most = std::fmax(most, dot(groups.mean.data() + g * static_cast<std::size_t>(channels), key, channels));
    return most;
}

/// A tree search by branch centres: the best score on the path. `left_at` and `right_at` score the key at a position, as
/// the probe of a left and of a right half.
template <class Left, class Right>
double best_on_path(std::int32_t chunk, std::int32_t left, std::int32_t right, Left const& left_at,
                    Right const& right_at) {
    double best = -std::numeric_limits<double>::infinity();
    for (std::int32_t size = chunk; size >= 1 && left < right; size /= 2) {  // floor(log2(chunk)) + 1 rounds
        std::int32_t const centre = left + (right - left) / 2;
        double const a = left_at(left + (centre - left) / 2), b = right_at(centre + (right - centre) / 2);
        best = std::fmax(best, std::fmax(a, b));
        if (a > b)
            right = centre;
        else
            left = centre;
    }
    return best;
}

/// The same over keys without rotary embedding. `left_rows`, `right_rows`: turned_groups of the
/// heads that walk together; the chunk is number `index` of the stage's list.
template <class T, class KV>
double turned_chunk_score(prune_request<T, KV>& q, std::vector<query_groups> const& left_rows,
                          std::vector<query_groups> const& right_rows, std::int32_t kv_head, std::int32_t chunk,
                          std::int32_t left, std::int32_t right, std::int32_t index) {
    auto const channels = static_cast<std::int32_t>(q.p.queries.extent[3]);
    auto& cache = q.caches[static_cast<std::size_t>(kv_head)];
    auto const at = [&](std::vector<query_groups> const& rows, std::int32_t position) {
        auto const key = turned(q, cache.key(cache.fetch(position)), q.p.scan == scan_style::relative ? 0 : index);
        double most = -std::numeric_limits<double>::infinity();
        for (auto const& groups : rows) most = std::fmax(most, probe(groups, key.data(), channels, position));
        return most;
    };
    return best_on_path(
        chunk, left, right, [&](std::int32_t position) { return at(left_rows, position); },
        [&](std::int32_t position) { return at(right_rows, position); });
}

/// Score of chunk [left, right) by heads that walk one path together (a single head, or a KV group).
template <class T, class KV>
double chunk_score(prune_request<T, KV>& q, std::vector<query_groups const*> const& heads, std::int32_t kv_head,
                   std::int32_t chunk, std::int32_t left, std::int32_t right) {
    double const minus_infinity = -std::numeric_limits<double>::infinity();
    auto const channels = static_cast<std::int32_t>(q.p.queries.extent[3]);
    auto& cache = q.caches[static_cast<std::size_t>(kv_head)];
    auto const over_heads = [&](float const* key, std::int32_t position) {
        double most = minus_infinity;
        for (auto const* groups : heads) most = std::fmax(most, probe(*groups, key, channels, position));
        return most;
    };
    auto const at = [&](std::int32_t position) { return over_heads(cache.key(cache.fetch(position)), position); };
    auto const middle = [](std::int32_t a, std::int32_t b) { return a + (b - a) / 2; };

    switch (q.p.method.scorer) {
    case scorer::tree_probe:
        return best_on_path(chunk, left, right, at, at);
    case scorer::tree_probe_first: {
        while (right - left > 1) {
            std::int32_t const centre = middle(left, right);
            if (at(left) > at(centre))
                right = centre;
            else
                left = centre;
        }
        return at(left);
    }
    case scorer::centre_probe:
        return at(middle(left, right));
    case scorer::min_max_bound: {
        std::vector<float> low(static_cast<std::size_t>(channels), std::numeric_limits<float>::quiet_NaN()), high = low;
        for (std::int32_t j = left; j < right; ++j) {
            float const* const key = cache.key(cache.fetch(j));
            for (std::size_t c = 0; c < low.size(); ++c) {
                low[c] = std::fmin(low[c], key[c]);  // NaN gives way to any number
                high[c] = std::fmax(high[c], key[c]);
            }
        }
        double most = minus_infinity;
        for (auto const* groups : heads)
            for (std::size_t g = 0; g < groups->look.size(); ++g) {
                if (right - 1 > groups->look[g]) continue;
                float const* const row = groups->mean.data() + g * low.size();
                double sum = 0;
                for (std::size_t c = 0; c < low.size(); ++c)
                    sum += double{std::fmax(row[c], 0.0f)} * high[c] + double{std::fmin(row[c], 0.0f)} * low[c];
                most = std::fmax(most, sum);
            }
        return most;
    }
    case scorer::mean_key: {
        std::vector<float> mean(static_cast<std::size_t>(channels), 0.0f);
        for (std::int32_t j = left; j < right; ++j) {
            float const* const key = cache.key(cache.fetch(j));
            for (std::size_t c = 0; c < mean.size(); ++c) mean[c] += key[c];
        }
        for (float& m : mean) {
            m /= static_cast<float>(right - left);
            if (q.rounding.mean_key) m = to_float(from_float<T>(m));
        }
        return over_heads(mean.data(), right - 1);
    }
    case scorer::antidiagonal:  // takes rows one by one: antidiagonal_score
        break;
    }
    return minus_infinity;
}

/// The `keep` highest scores, ties to the smaller index, ascending; NaN ranks lowest.
inline std::vector<std::int32_t> keep_best(std::vector<std::int32_t> const& left, std::vector<double> const& score,
                                           std::int32_t keep) {
    std::vector<std::size_t> order(left.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return score[a] > score[b] || (score[b] != score[b] && score[a] == score[a]);
    });
    order.resize(smaller(order.size(), static_cast<std::size_t>(keep)));
    std::vector<std::int32_t> kept;
    for (std::size_t const i : order) kept.push_back(left[i]);
    std::sort(kept.begin(), kept.end());
    return kept;
}

/// Stage `index` for query block `m` (of that stage) and list head `list_head`. `parents`: left ends of the chunks that
/// the stage before kept for the block around this one; not read by stage 0.
template <class T, class KV>
pruned_list prune_stage_list(prune_request<T, KV>& q, std::int32_t index, std::int32_t m, std::int32_t list_head,
                             std::vector<std::int32_t> const& parents) {
    prune_method const& method = q.p.method;
    prune_stage const& stage = method.stages[index];
    batch_shape const shape = q.p.shape();
    query_span const span = span_of(q.view, stage.query_block, m);
    pruned_list list;
    if (span.last < span.first) return list;
    std::int32_t const end = list.eligible_end = eligible_end(looking_position(q.p.mask.kind, span.last, q.view.keys),
                                                              q.view.keys, method.window, q.p.lookahead);
    if (index == 0) {
        std::int32_t const sinks = method.window.sinks, count = first_candidates(end, sinks, stage.chunk);
        for (std::int32_t c = 0; c < count; ++c) list.left.push_back(sinks + c * stage.chunk);
    } else {
        for (std::int32_t const parent : parents)
            for (std::int32_t piece = 0; piece < method.stages[index - 1].chunk; piece += stage.chunk)
                if (parent + piece < end) list.left.push_back(parent + piece);
    }
    if (list.left.size() <= static_cast<std::size_t>(stage.keep)) {
        list.kept = list.left;
        return list;
    }

    // Heads of this list, and among them those that walk together.
    std::int32_t const list_heads = list_heads_of(method.sharing, shape.heads, shape.kv_heads);
    std::int32_t const first_head = list_head * (shape.heads / list_heads), group = shape.group();
    list.score.assign(list.left.size(), -std::numeric_limits<double>::infinity());
    bool const walks = method.scorer == scorer::tree_probe || method.scorer == scorer::tree_probe_first;
    bool const together = walks && method.path == probe_path::per_kv_group;
    std::int32_t walkers = 0;
    for (std::int32_t head = first_head; head < first_head + shape.heads / list_heads; head += walkers) {
        // Walking together takes the whole KV group, even for lists per head.
        walkers = together ? group - head % group : 1;
        std::vector<query_groups> rows;
        std::int32_t const from = together ? head / group * group : head;
        for (std::int32_t h = from; h < from + (together ? group : 1); ++h)
            rows.push_back(groups_of(q, stage, span, h));
        std::vector<query_groups const*> heads;
        for (auto const& r : rows) heads.push_back(&r);
        std::vector<query_groups> side[2];
        auto const chunks = static_cast<std::int32_t>(list.left.size());
        if (!q.p.rotation.empty())
            for (std::int32_t s = 0; s < 2; ++s)
                for (auto const& r : rows) side[s].push_back(turned_groups(q, r, s, chunks));
        for (std::size_t i = 0; i < list.left.size(); ++i) {
            std::int32_t const left = list.left[i], right = smaller(left + stage.chunk, end);
            if (method.scorer == scorer::antidiagonal) {
                list.score[i] = std::fmax(
                    list.score[i], antidiagonal_score(q, span, stage.query_stride, head, head / group, left, right));
                continue;
            }
            if (!q.p.rotation.empty()) {
                list.score[i] =
                    std::fmax(list.score[i], turned_chunk_score(q, side[0], side[1], head / group, stage.chunk, left,
                                                                right, static_cast<std::int32_t>(i)));
                continue;
            }
            double const found = chunk_score(q, heads, head / group, stage.chunk, left, right);
            list.score[i] = std::fmax(list.score[i], found * double{q.p.scales.of_keys(head / group)});
        }
    }
    list.kept = keep_best(list.left, list.score, stage.keep);
    return list;
}

}  // namespace winnow::reference
