// Queries, keys, values and output of one benchmark in device memory, contiguous, ragged or in shuffled pages.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/fill.cuh"
#include "support/machine.cuh"
#include "support/sample.hpp"
#include "winnow/op/attend.hpp"

namespace winnow::bench {

/// The queries are the last rows of each request's context.
struct problem_shape {
    std::int32_t batch = 1;
    std::int32_t queries = 1;
    std::int32_t keys = 1;
    std::int32_t heads = 32;
    std::int32_t kv_heads = 8;
    std::int32_t head_dim = 128;
    std::int32_t page_size = 0;     ///< 0: contiguous; otherwise a block table over pages in random order
    std::int32_t other_keys = 0;    ///< > 0: keys of all requests but `long_request`, which has `keys`
    std::int32_t long_request = 0;  ///< see other_keys
    std::int32_t pool = 0;  ///< > 0: keys in memory; the requests share them, each has random pages in ascending order

    std::int32_t group() const { return heads / kv_heads; }
    bool ragged() const { return other_keys > 0; }
    /// Keys of a request.
    std::int32_t length(std::int32_t request) const { return ragged() && request != long_request ? other_keys : keys; }
    /// Keys of all requests.
    std::int64_t total_keys() const { return keys + (batch - std::int64_t{1}) * (ragged() ? other_keys : keys); }
    /// Position of row 0; of requests as long as the longest.
    std::int32_t first_position() const { return keys - queries; }
    std::int32_t first_position(std::int32_t request) const { return length(request) - queries; }
    /// Query-key pairs that a causal mask allows, per head and, in the mean, request.
    double causal_pairs() const {
        double const q = queries, mean_keys = static_cast<double>(total_keys()) / batch;
        return q * (mean_keys - q) + q * (q + 1) / 2;
    }
    /// Floating-point operations of attention over `pairs` (per head and request): two products.
    double flops(double pairs) const { return 4.0 * head_dim * heads * batch * pairs; }
    /// Bytes of queries and output, and of keys and values.
    double row_bytes() const { return 2.0 * 2 * batch * queries * heads * head_dim; }
    double key_bytes(std::size_t element = 2) const {
        return 2.0 * static_cast<double>(element) * static_cast<double>(total_keys()) * kv_heads * head_dim;
    }
};

/// Owns the tensors. Keys and values are stored as KV; an fp8 cache has scales of 1.
template <class T, class KV = T>
class problem_of {
public:
    explicit problem_of(problem_shape const& s)
        : shape(s), queries(rows() * s.heads * s.head_dim), output(queries.size()),
          keys(slots() * s.kv_heads * s.head_dim), values(keys.size()), lse(rows() * s.heads) {
        std::vector<std::int32_t> lengths, start{0};
        for (std::int32_t b = 0; b < s.batch; ++b) {
            lengths.push_back(s.length(b));
            start.push_back(start.back() + s.length(b));
        }
        if (s.page_size > 0) {
            pages_ = device_array<std::int32_t>(s.pool > 0 ? shared_pages() : own_pages(lengths));
            lengths_ = device_array<std::int32_t>(lengths);
        } else if (s.ragged()) {
            start_ = device_array<std::int32_t>(start);
        }
    }

    problem_shape const shape;
    device_array<T> queries, output;
    device_array<KV> keys, values;
    device_array<float> lse;

    /// `number` tells apart problems that must not hold the same.
    void fill_inputs(draw kind, std::uint64_t number = 0) {
        fill(queries, kind, 3 * number + 1), fill(keys, kind, 3 * number + 2), fill(values, kind, 3 * number + 3);
        require(cudaMemset(output.data(), 0xff, output.bytes()), "cudaMemset");  // NaN: what is not written shows
    }

    /// Dense causal attention over it.
    attend_params<T, KV> dense() const {
        attend_params<T, KV> p;
        p.queries = packed_view<T const>(queries.data(), {shape.batch, shape.queries, shape.heads, shape.head_dim});
        p.output = packed_view(output.data(), {shape.batch, shape.queries, shape.heads, shape.head_dim});
        bool const paged = shape.page_size > 0;
        std::int64_t const tokens = paged ? shape.page_size : shape.ragged() ? shape.total_keys() : shape.keys;
        std::int64_t const outer = static_cast<std::int64_t>(slots()) / tokens;
        p.keys = packed_view<KV const>(keys.data(), {outer, tokens, shape.kv_heads, shape.head_dim});
        p.values = packed_view<KV const>(values.data(), {outer, tokens, shape.kv_heads, shape.head_dim});
        if (paged) {
            p.kv.layout = kv_layout::block_table;
            p.kv.pages = pages_.data(), p.kv.length = lengths_.data();
            p.kv.table_stride = static_cast<std::int64_t>(pages_each());
            p.kv.max_length = shape.keys;
        } else if (shape.ragged()) {
            p.kv.layout = kv_layout::ragged;
            p.kv.start = start_.data(), p.kv.max_length = shape.keys;
        }
        p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
        return p;
    }

private:
    std::size_t rows() const { return static_cast<std::size_t>(shape.batch) * shape.queries; }
    std::size_t pages_each() const { return static_cast<std::size_t>(ceil_div(shape.keys, shape.page_size)); }
    /// Keys in memory, those that fill up a page included.
    std::size_t slots() const {
        if (shape.page_size == 0) return static_cast<std::size_t>(shape.total_keys());
        std::int64_t pages = ceil_div(shape.pool, shape.page_size);
        for (std::int32_t b = 0; shape.pool == 0 && b < shape.batch; ++b)
            pages += ceil_div(shape.length(b), shape.page_size);
        return static_cast<std::size_t>(pages * shape.page_size);
    }
    /// A block table in which every page belongs to one request.
    std::vector<std::int32_t> own_pages(std::vector<std::int32_t> const& lengths) const {
        auto const ids = shuffled(static_cast<std::int32_t>(slots() / static_cast<std::size_t>(shape.page_size)), 5);
        std::vector<std::int32_t> table;
        auto next = ids.begin();
        for (std::int32_t const length : lengths) {
            auto const used = ceil_div(length, shape.page_size);
            table.insert(table.end(), next, next + used);
            table.resize(table.size() + pages_each() - static_cast<std::size_t>(used), -1);
            next += used;
        }
        return table;
    }
    /// A block table of pages of the pool: distinct and ascending in each request.
    std::vector<std::int32_t> shared_pages() const {
        std::int32_t const pages = shape.pool / shape.page_size;
        std::vector<std::int32_t> table;
        random_numbers random(5);
        for (std::int32_t b = 0; b < shape.batch; ++b) {
            // Each page in turn with the chance that leaves exactly pages_each() of them.
            auto wanted = static_cast<std::int32_t>(pages_each());
            for (std::int32_t page = 0; page < pages; ++page)
                if (random.below(pages - page) < wanted) table.push_back(page), --wanted;
        }
        return table;
    }

    device_array<std::int32_t> pages_, lengths_, start_;
};
using problem = problem_of<bf16>;

}  // namespace winnow::bench
