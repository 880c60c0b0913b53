// Hierarchical top-k pruning by plain loops in double: the lists that prune must find, and every stage's scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "winnow/op/prune.hpp"
#include "winnow/reference/parallel.hpp"
#include "winnow/reference/prune_stage.hpp"

namespace winnow::reference {

/// Lists of every stage, request, list head and query block: what a test compares by score margin.
struct prune_trace {
    std::int32_t list_heads = 0;                       ///< lists per query block
    std::int32_t query_blocks[max_prune_stages] = {};  ///< per request, in each stage
    std::vector<pruned_list> lists[max_prune_stages];  ///< [request, list head, query block]

    /// The list of one stage, request, list head and query block.
    pruned_list& at(std::int32_t stage, std::int32_t request, std::int32_t list_head, std::int32_t m) {
        return lists[stage][index(stage, request, list_head, m)];
    }
    /// The same, to read.
    pruned_list const& at(std::int32_t stage, std::int32_t request, std::int32_t list_head, std::int32_t m) const {
        return lists[stage][index(stage, request, list_head, m)];
    }

private:
    std::size_t index(std::int32_t stage, std::int32_t request, std::int32_t list_head, std::int32_t m) const {
        return (static_cast<std::size_t>(request) * static_cast<std::size_t>(list_heads) +
                static_cast<std::size_t>(list_head)) *
                   static_cast<std::size_t>(query_blocks[stage]) +
               static_cast<std::size_t>(m);
    }
};

/// Memory for a selection, and the view that prune takes; `view` points into the vectors, so the struct only moves.
struct selection_storage {
    std::vector<std::int32_t> blocks;  ///< entries of all lists
    std::vector<std::int32_t> counts;  ///< of each list
    block_selection_buffer view;       ///< the lists, to write and to read

    selection_storage() = default;
    /// Room for all lists of a call.
    selection_storage(prune_method const& method, batch_shape const& shape) {
        auto const extents = selection_extents_of(method, shape);
        blocks.resize(extents.list_count() * static_cast<std::size_t>(extents.capacity));
        counts.resize(extents.list_count());
        view = packed_selection(blocks.data(), counts.data(), method, shape);
    }
    /// The vectors keep their memory, so `view` stays right.
    selection_storage(selection_storage&&) = default;
    /// The vectors keep their memory, so `view` stays right.
    selection_storage& operator=(selection_storage&&) = default;
};

/// Writes a list of left ends as block ids.
template <class T, class KV>
void write_blocks(prune_params<T, KV> const& p, std::int32_t b, std::int32_t list_head, std::int32_t m,
                  std::vector<std::int32_t> const& kept) {
    std::int32_t const block = p.method.last().chunk;
    p.selection.counts(b, list_head, m) = static_cast<std::int32_t>(kept.size());
    for (std::size_t i = 0; i < kept.size(); ++i) p.selection.blocks(b, list_head, m, i) = kept[i] / block;
}

/// Computes `p` on host pointers: checks it, then writes p.selection. Every list that a request of max_queries rows can
/// have is written, empty ones with count 0; entries behind a count stay as they are.
template <class T, class KV>
status prune(prune_params<T, KV> const& p, prune_trace* trace = nullptr, run_options const& options = {},
             prune_rounding rounding = {}) {
    if (auto s = check(p); !s) return s;
    batch_shape const shape = p.shape();
    prune_method const& method = p.method;
    prune_trace local;
    prune_trace& all = trace ? *trace : local;
    all = {};
    all.list_heads = list_heads_of(method.sharing, shape.heads, shape.kv_heads);
    for (std::int32_t i = 0; i < method.stage_count; ++i) {
        all.query_blocks[i] = query_blocks_of(shape.max_queries, method.stages[i].query_block);
        all.lists[i].resize(static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(all.list_heads) *
                            static_cast<std::size_t>(all.query_blocks[i]));
    }
    // A query block of the first stage holds whole blocks of all later ones, so they are independent of each other.
    std::int64_t const coarse_blocks = all.query_blocks[0];
    parallel_for(shape.batch * coarse_blocks, options, [&](std::int64_t item) {
        auto const b = static_cast<std::int32_t>(item / coarse_blocks),
                   m0 = static_cast<std::int32_t>(item % coarse_blocks);
        prune_request<T, KV> q(p, b, rounding);
        for (std::int32_t i = 0; i < method.stage_count; ++i) {
            std::int32_t const fine = method.stages[i].query_block;
            for (std::int32_t m = 0; m < all.query_blocks[i]; ++m) {
                if (coarser_block(q.view, fine, method.stages[0].query_block, m) != m0) continue;
                for (std::int32_t h = 0; h < all.list_heads; ++h) {
                    std::vector<std::int32_t> parents;
                    if (i > 0) {
                        std::int32_t const around = coarser_block(q.view, fine, method.stages[i - 1].query_block, m);
                        if (around < all.query_blocks[i - 1]) parents = all.at(i - 1, b, h, around).kept;
                    }
                    all.at(i, b, h, m) = prune_stage_list(q, i, m, h, parents);
                }
            }
        }
    });
    std::int32_t const last = method.stage_count - 1;
    for (std::int32_t b = 0; b < shape.batch; ++b)
        for (std::int32_t h = 0; h < all.list_heads; ++h)
            for (std::int32_t m = 0; m < all.query_blocks[last]; ++m)
                write_blocks(p, b, h, m, all.at(last, b, h, m).kept);
    return {};
}

}  // namespace winnow::reference
