// Queries, keys, values and output of one benchmark in device memory, contiguous or in shuffled pages.
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
    std::int32_t page_size = 0;  ///< 0: contiguous; otherwise a block table over pages in random order

    std::int32_t group() const { return heads / kv_heads; }
    std::int32_t first_position() const { return keys - queries; }
    /// Query-key pairs that a causal mask allows, per head and request.
    double causal_pairs() const {
        double const q = queries;
        return q * first_position() + q * (q + 1) / 2;
    }
    /// Floating-point operations of attention over `pairs` (per head and request): two products.
    double flops(double pairs) const { return 4.0 * head_dim * heads * batch * pairs; }
    /// Bytes of queries and output, and of keys and values.
    double row_bytes() const { return 2.0 * 2 * batch * queries * heads * head_dim; }
    double key_bytes() const { return 2.0 * 2 * batch * keys * kv_heads * head_dim; }
};

/// Owns the tensors. Every request has the same lengths.
class problem {
public:
    explicit problem(problem_shape const& s)
        : shape(s), queries(rows() * s.heads * s.head_dim), output(queries.size()),
          keys(slots() * s.kv_heads * s.head_dim), values(keys.size()), lse(rows() * s.heads) {
        if (s.page_size > 0) {
            pages_ = device_array<std::int32_t>(shuffled(static_cast<std::int32_t>(pages_each()) * s.batch, 5));
            lengths_ = device_array<std::int32_t>(std::vector<std::int32_t>(static_cast<std::size_t>(s.batch), s.keys));
        }
    }

    problem_shape const shape;
    device_array<bf16> queries, output, keys, values;
    device_array<float> lse;

    /// `number` tells apart problems that must not hold the same.
    void fill_inputs(draw kind, std::uint64_t number = 0) {
        fill(queries, kind, 3 * number + 1), fill(keys, kind, 3 * number + 2), fill(values, kind, 3 * number + 3);
        require(cudaMemset(output.data(), 0xff, output.bytes()), "cudaMemset");  // NaN: what is not written shows
    }

    /// Dense causal attention over it.
    attend_params<bf16> dense() const {
        attend_params<bf16> p;
        p.queries = packed_view<bf16 const>(queries.data(), {shape.batch, shape.queries, shape.heads, shape.head_dim});
        p.output = packed_view(output.data(), {shape.batch, shape.queries, shape.heads, shape.head_dim});
        bool const paged = shape.page_size > 0;
        std::int64_t const outer = paged ? static_cast<std::int64_t>(pages_each()) * shape.batch : shape.batch;
        std::int64_t const tokens = paged ? shape.page_size : shape.keys;
        p.keys = packed_view<bf16 const>(keys.data(), {outer, tokens, shape.kv_heads, shape.head_dim});
        p.values = packed_view<bf16 const>(values.data(), {outer, tokens, shape.kv_heads, shape.head_dim});
        if (paged) {
            p.kv.layout = kv_layout::block_table;
            p.kv.pages = pages_.data(), p.kv.length = lengths_.data();
            p.kv.table_stride = static_cast<std::int64_t>(pages_each());
            p.kv.max_length = shape.keys;
        }
        p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
        return p;
    }

private:
    std::size_t rows() const { return static_cast<std::size_t>(shape.batch) * shape.queries; }
    std::size_t pages_each() const { return static_cast<std::size_t>(ceil_div(shape.keys, shape.page_size)); }
    std::size_t slots() const {
        std::size_t const each = shape.page_size > 0 ? pages_each() * shape.page_size : shape.keys;
        return each * static_cast<std::size_t>(shape.batch);
    }

    device_array<std::int32_t> pages_, lengths_;
};

}  // namespace winnow::bench
