// Comparison of a selection with the oracle's by score margin: lists may differ only where scores nearly tie.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "winnow/op/prune.hpp"
#include "winnow/reference/prune.hpp"

namespace winnow::testing {

struct selection_comparison {
    bool ok = true;
    std::int64_t lists = 0;      ///< compared
    std::int64_t differing = 0;  ///< of them, lists that are not equal to the oracle's
    std::string message;
    explicit operator bool() const { return ok; }
};

/// Compares the written selection of `p` (host pointers) with the oracle's trace of the same call. A list must have the
/// oracle's count, ascend, and hold candidates only; an entry that the oracle did not keep must score at least the
/// lowest score kept, less `margin` x the largest score. margin 0: equal lists. Where an earlier stage chose otherwise,
/// the later one has other candidates: compare several stages with integer inputs and margin 0, or by attention mass.
template <class T, class KV>
selection_comparison compare_selection(prune_params<T, KV> const& p, reference::prune_trace const& trace,
                                       double margin) {
    selection_comparison result;
    std::int32_t const last = p.method.stage_count - 1, chunk = p.method.last().chunk;
    auto const wrong = [&](std::int32_t b, std::int32_t h, std::int32_t m, std::string const& what) {
        if (result.ok)
            result.message = "request " + std::to_string(b) + ", list head " + std::to_string(h) + ", query block " +
                             std::to_string(m) + ": " + what;
        result.ok = false;
    };
    for (std::int32_t b = 0; b < p.shape().batch; ++b)
        for (std::int32_t h = 0; h < trace.list_heads; ++h)
            for (std::int32_t m = 0; m < trace.query_blocks[last]; ++m) {
                auto const& oracle = trace.at(last, b, h, m);
                ++result.lists;
                std::int32_t const count = p.selection.counts(b, h, m);
                if (count != static_cast<std::int32_t>(oracle.kept.size())) {
                    wrong(b, h, m, "count " + std::to_string(count) + ", oracle " + std::to_string(oracle.kept.size()));
                    continue;
                }
                std::vector<std::int32_t> left;
                for (std::int32_t i = 0; i < count; ++i) left.push_back(p.selection.blocks(b, h, m, i) * chunk);
                if (left == oracle.kept) continue;
                ++result.differing;
                if (std::adjacent_find(left.begin(), left.end(), [](auto a, auto c) { return a >= c; }) != left.end())
                    wrong(b, h, m, "not ascending and unique");
                if (margin == 0 || oracle.score.empty()) {
                    wrong(b, h, m, "differs from the oracle");
                    continue;
                }
                auto const score = [&](std::int32_t at) {
                    auto const found = std::lower_bound(oracle.left.begin(), oracle.left.end(), at);
                    if (found == oracle.left.end() || *found != at) return std::nan("");
                    return oracle.score[static_cast<std::size_t>(found - oracle.left.begin())];
                };
                double lowest = score(oracle.kept.front()), largest = 0;
                for (std::int32_t const at : oracle.kept) lowest = std::fmin(lowest, score(at));
                for (double const s : oracle.score)
                    if (std::isfinite(s)) largest = std::fmax(largest, std::fabs(s));
                for (std::int32_t const at : left)
                    if (!(score(at) >= lowest - margin * largest))
                        wrong(b, h, m,
                              "chunk at " + std::to_string(at) + " scores " + std::to_string(score(at)) +
                                  ", lowest kept " + std::to_string(lowest));
            }
    if (result.ok)
        result.message = std::to_string(result.differing) + " of " + std::to_string(result.lists) + " lists differ";
    return result;
}

}  // namespace winnow::testing
