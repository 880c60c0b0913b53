// How good a selection is: attention mass kept, recall of the true top blocks, output error, keys read per query.
//
//   mass kept by a row = sum over the keys it reads of its dense softmax weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "winnow/op/attend.hpp"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/visible.hpp"

namespace winnow::reference {

/// Measures of one attention call against dense attention on the same inputs.
struct attention_quality {
    double mass_kept = 0;         ///< mean over rows and heads; rows that may see nothing do not count
    double lowest_mass_kept = 1;  ///< of any row and head
    double keys_per_query = 0;    ///< mean number of keys read
    double keys_allowed = 0;      ///< mean number of keys that the mask allows: what dense attention reads
    double block_recall = 1;      ///< of the blocks with the most mass, as many as a list holds, the part that it holds
    std::vector<double> row_mass;  ///< [outer, token, head], packed; NaN for rows that do not count
};

/// Softmax mass of every query block of every head over key blocks; each query block's masses sum to 1.
struct attention_map {
    std::int32_t batch = 0;         ///< requests
    std::int32_t heads = 0;         ///< query heads
    std::int32_t query_blocks = 0;  ///< of a request, at most
    std::int32_t key_blocks = 0;    ///< of a context, at most
    std::vector<double> mass;       ///< [batch, head, query block, key block]

    /// One cell.
    double& at(std::int32_t b, std::int32_t head, std::int32_t m, std::int32_t block) {
        return mass[((static_cast<std::size_t>(b) * static_cast<std::size_t>(heads) + static_cast<std::size_t>(head)) *
                         static_cast<std::size_t>(query_blocks) +
                     static_cast<std::size_t>(m)) *
                        static_cast<std::size_t>(key_blocks) +
                    static_cast<std::size_t>(block)];
    }
    /// One cell, to read.
    double at(std::int32_t b, std::int32_t head, std::int32_t m, std::int32_t block) const {
        return const_cast<attention_map&>(*this).at(b, head, m, block);
    }
};

/// The same call without any sparsity.
template <class T>
attend_params<T> dense_of(attend_params<T> p) {
    p.selection = {};
    p.window = {};
    return p;
}

/// Empty map of a call.
template <class T>
attention_map empty_map(attend_params<T> const& p, std::int32_t query_block, std::int32_t key_block) {
    batch_shape const shape = p.shape();
    attention_map map{shape.batch,
                      shape.heads,
                      query_blocks_of(shape.max_queries, query_block),
                      static_cast<std::int32_t>(ceil_div<std::int64_t>(shape.max_keys, key_block)),
                      {}};
    map.mass.assign(static_cast<std::size_t>(map.batch) * static_cast<std::size_t>(map.heads) *
                        static_cast<std::size_t>(map.query_blocks) * static_cast<std::size_t>(map.key_blocks),
                    0.0);
    return map;
}

/// Where dense attention of `p` looks, in blocks of `query_block` rows and `key_block` keys.
template <class T>
status map_attention(attend_params<T> const& p, std::int32_t query_block, std::int32_t key_block, attention_map& map,
                     run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    if (query_block < 1) return fail(errc::out_of_range, "query_block", "must be >= 1", query_block);
    if (key_block < 1) return fail(errc::out_of_range, "key_block", "must be >= 1", key_block);
    map = empty_map(p, query_block, key_block);
    attend_params<T> const dense = dense_of(p);
    for_each_row(dense, query_block, options, [&](visible_row<T> const& row) {
        std::vector<double> weights;
        scores_of(row, dense, weights);
        softmax(weights);
        std::int32_t const m =
            query_block_of(row.view->first_position + row.row, row.view->first_position, query_block);
        for (std::size_t n = 0; n < weights.size(); ++n)
            map.at(row.request, row.head, m, (*row.keys)[n] / key_block) += weights[n];
    });
    for (std::size_t at = 0; at < map.mass.size(); at += static_cast<std::size_t>(map.key_blocks)) {
        double total = 0;
        for (std::int32_t i = 0; i < map.key_blocks; ++i) total += map.mass[at + static_cast<std::size_t>(i)];
        for (std::int32_t i = 0; total > 0 && i < map.key_blocks; ++i)
            map.mass[at + static_cast<std::size_t>(i)] /= total;
    }
    return {};
}

/// Recall of `p.selection` given the true mass of its blocks among listable keys (behind the window, not sinks).
template <class T>
double block_recall(attend_params<T> const& p, attention_map const& listable) {
    std::int64_t wanted = 0, found = 0;
    auto const& s = p.selection;
    std::int32_t const sharers = listable.heads / s.list_heads();
    std::vector<std::uint8_t> listed;
    for (std::int32_t b = 0; b < listable.batch; ++b) {
        request_view const r = request_of_params(p, b);
        for (std::int32_t list_head = 0; list_head < s.list_heads(); ++list_head)
            for (std::int32_t m = 0; m < listable.query_blocks; ++m) {
                std::int32_t const first = larger(r.first_position, 0);
                std::int32_t const position = larger(first, (first / s.query_block + m) * s.query_block);
                listed_blocks(p, r, b, list_head * sharers, position, listed);
                std::vector<double> mass(static_cast<std::size_t>(listable.key_blocks), 0.0);
                for (std::int32_t h = 0; h < sharers; ++h)
                    for (std::size_t i = 0; i < mass.size(); ++i)
                        mass[i] += listable.at(b, list_head * sharers + h, m, static_cast<std::int32_t>(i));
                std::vector<std::size_t> order;
                for (std::size_t i = 0; i < mass.size(); ++i)
                    if (mass[i] > 0) order.push_back(i);
                std::stable_sort(order.begin(), order.end(),
                                 [&](std::size_t a, std::size_t c) { return mass[a] > mass[c]; });
                std::size_t held = 0;
                for (auto const mark : listed) held += mark;
                for (std::size_t i = 0; i < order.size() && i < held; ++i) {
                    ++wanted;
                    found += listed[order[i]];
                }
            }
    }
    return wanted == 0 ? 1.0 : static_cast<double>(found) / static_cast<double>(wanted);
}

/// Measures how well the window, sinks and selection of `p` stand for dense attention. p.output is not touched.
template <class T>
status measure(attend_params<T> const& p, attention_quality& quality, run_options const& options = {}) {
    if (auto s = check(p); !s) return s;
    auto const& extent = p.queries.extent;
    auto const lists = static_cast<std::size_t>(extent[0] * extent[1] * extent[2]);
    std::int32_t const query_block = p.selection.empty() ? 32 : p.selection.query_block;
    std::int32_t const block = p.selection.empty() ? 8 : p.selection.block_size;
    attend_params<T> const dense = dense_of(p);
    attention_map listable;
    if (!p.selection.empty()) listable = empty_map(p, query_block, block);
    std::vector<std::int64_t> read(lists, 0), allowed(lists, 0);
    quality = {};
    quality.row_mass.assign(lists, std::numeric_limits<double>::quiet_NaN());
    for_each_row(dense, query_block, options, [&](visible_row<T> const& row) {
        if (row.count() == 0) return;
        std::vector<double> weights;
        scores_of(row, dense, weights);
        softmax(weights);
        std::vector<std::int32_t> kept;
        visible_keys(p, *row.view, row.request, row.head, row.row, kept);
        auto const at = static_cast<std::size_t>((row.outer * extent[1] + row.token) * extent[2] + row.head);
        double mass = 0;  // keys of a dense row are 0, 1, 2, ..., so a key is its own index
        for (std::int32_t const j : kept) mass += weights[static_cast<std::size_t>(j)];
        quality.row_mass[at] = mass;
        read[at] = static_cast<std::int64_t>(kept.size());
        allowed[at] = static_cast<std::int64_t>(row.count());
        if (p.selection.empty()) return;
        std::int32_t const position = row.view->first_position + row.row;
        std::int64_t const look = looking_position(p.mask.kind, position, row.view->keys);
        std::int32_t const m = query_block_of(position, row.view->first_position, query_block);
        for (std::int64_t j = p.window.sinks; j < static_cast<std::int64_t>(row.count()) && j <= look - p.window.recent;
             ++j)
            listable.at(row.request, row.head, m, static_cast<std::int32_t>(j / block)) +=
                weights[static_cast<std::size_t>(j)];
    });
    double counted = 0;
    for (std::size_t i = 0; i < lists; ++i) {
        if (allowed[i] == 0) continue;
        counted += 1;
        quality.mass_kept += quality.row_mass[i];
        quality.lowest_mass_kept = smaller(quality.lowest_mass_kept, quality.row_mass[i]);
        quality.keys_per_query += static_cast<double>(read[i]);
        quality.keys_allowed += static_cast<double>(allowed[i]);
    }
    if (counted > 0) {
        quality.mass_kept /= counted;
        quality.keys_per_query /= counted;
        quality.keys_allowed /= counted;
    }
    if (!p.selection.empty()) quality.block_recall = block_recall(p, listable);
    return {};
}

/// ||a - b|| / ||b||, over elements that are not NaN in both; infinity if only one of them is.
inline double relative_error(std::vector<double> const& a, std::vector<double> const& b) {
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
        bool const no_a = a[i] != a[i], no_b = b[i] != b[i];
        if (no_a && no_b) continue;
        if (no_a != no_b) return std::numeric_limits<double>::infinity();
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return difference == 0 ? 0.0 : std::sqrt(difference / size);
}

}  // namespace winnow::reference
