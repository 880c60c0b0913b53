// Random block lists for benchmarks, and how many keys rows read under a window and lists.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/sample.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/selection.hpp"

namespace winnow::bench {

/// Lists in host memory: [list head, query block, entry] and [list head, query block], for one request.
struct host_lists {
    std::int32_t list_heads = 1, query_blocks = 0, capacity = 0, block_size = 0, query_block = 0;
    std::vector<std::int32_t> blocks, counts;

    std::size_t list(std::int32_t list_head, std::int32_t m) const {
        return static_cast<std::size_t>(list_head) * static_cast<std::size_t>(query_blocks) +
               static_cast<std::size_t>(m);
    }
    std::int32_t const* begin(std::int32_t list_head, std::int32_t m) const {
        return blocks.data() + list(list_head, m) * static_cast<std::size_t>(capacity);
    }
    std::int32_t count(std::int32_t list_head, std::int32_t m) const { return counts[list(list_head, m)]; }
};

/// For every query block: the blocks of its own rows, and random earlier ones up to `budget` keys in all. Queries are
/// the last `queries` rows of `keys`, and start at a multiple of query_block.
inline host_lists random_lists(std::int32_t queries, std::int32_t keys, std::int32_t list_heads,
                               std::int32_t query_block, std::int32_t block_size, std::int32_t budget,
                               std::uint64_t seed) {
    host_lists l;
    l.list_heads = list_heads, l.query_blocks = query_blocks_of(queries, query_block);
    l.capacity = budget / block_size, l.block_size = block_size, l.query_block = query_block;
    std::size_t const lists = static_cast<std::size_t>(list_heads) * static_cast<std::size_t>(l.query_blocks);
    l.blocks.resize(lists * static_cast<std::size_t>(l.capacity));
    l.counts.resize(lists);
    random_numbers random(seed);
    std::vector<std::uint8_t> taken(static_cast<std::size_t>(ceil_div(keys, block_size)));
    for (std::int32_t h = 0; h < list_heads; ++h)
        for (std::int32_t m = 0; m < ceil_div(queries, query_block); ++m) {
            std::int32_t const first = keys - queries + m * query_block;
            std::int32_t const own = first / block_size, end = ceil_div(smaller(first + query_block, keys), block_size);
            std::int32_t* const list = l.blocks.data() + l.list(h, m) * static_cast<std::size_t>(l.capacity);
            std::int32_t count = 0;
            std::int32_t const wanted = smaller(l.capacity - (end - own), own);
            while (count < wanted) {
                std::int32_t const id = random.below(own);
                if (taken[static_cast<std::size_t>(id)]) continue;
                taken[static_cast<std::size_t>(id)] = 1;
                list[count++] = id;
            }
            std::sort(list, list + count);
            for (std::int32_t i = 0; i < count; ++i) taken[static_cast<std::size_t>(list[i])] = 0;
            for (std::int32_t id = own; id < end; ++id) list[count++] = id;
            l.counts[l.list(h, m)] = count;
        }
    return l;
}

/// What a launch over lists computes, summed over rows and averaged over list heads.
struct pair_count {
    double visible = 0;  ///< query-key pairs that a row sees
    double blocks = 0;  ///< pairs of rows with whole listed blocks, and with sinks and window as the last row sees them
};

inline pair_count count_pairs(host_lists const& l, std::int32_t queries, std::int32_t keys, attention_window window) {
    pair_count sum;
    std::int32_t const first = keys - queries;
    for (std::int32_t h = 0; h < l.list_heads; ++h)
        for (std::int32_t row = 0; row < queries; ++row) {
            std::int32_t const m = query_block_of(first + row, first, l.query_block);
            visible_ranges const r = ranges_of(first + row, keys, window);
            std::int32_t const always = r.sink_end + (r.window_end - r.window_begin);
            std::int32_t listed = 0;
            std::int32_t const* const list = l.begin(h, m);
            for (std::int32_t i = 0; i < l.count(h, m); ++i) {
                std::int32_t const left = larger(list[i] * l.block_size, r.list_begin);
                std::int32_t const right = smaller((list[i] + 1) * l.block_size, r.list_end);
                listed += larger(right - left, 0);
            }
            sum.visible += always + listed;
            sum.blocks += always + static_cast<double>(l.count(h, m)) * l.block_size;
        }
    sum.visible /= l.list_heads, sum.blocks /= l.list_heads;
    return sum;
}

}  // namespace winnow::bench
