// Benchmarks of append: new rows into a paged cache, bound by memory, with and without a rotation of keys and queries.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../tests/support/tolerance.hpp"
#include "support/fill.cuh"
#include "support/harness.cuh"
#include "support/sample.hpp"
#include "winnow/op/append.cuh"
#include "winnow/reference/append.hpp"

using namespace winnow;
using namespace winnow::bench;

namespace {

constexpr std::int64_t kv_heads = 8, heads = 32, head_dim = 128, page_size = 16;

struct append_shape {
    std::int64_t rows;
    bool head_major;  ///< HND: the tokens of a page lie apart for each head
    bool rotated;     ///< and 32 heads of queries with it
};

// Rows that go to random slots of a cache twice their number, which is longer than the L2 cache where rows are many.
struct append_case {
    explicit append_case(append_shape const& s)
        : shape(s), keys(elements(kv_heads)), values(elements(kv_heads)), queries(s.rotated ? elements(heads) : 0),
          key_cache(cache_elements()), value_cache(cache_elements()) {
        fill(keys, draw::normal, 1), fill(values, draw::normal, 2), fill(queries, draw::normal, 3);
        fill(key_cache, draw::normal, 4), fill(value_cache, draw::normal, 5);
        slots.resize(static_cast<std::size_t>(pages() * page_size));
        for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<std::int64_t>(i);
        std::shuffle(slots.begin(), slots.end(), std::mt19937_64(6));
        slots.resize(static_cast<std::size_t>(s.rows));
        for (std::int64_t i = 0; i < s.rows; ++i) positions.push_back(static_cast<std::int32_t>(100000 + i));
        slot = device_array<std::int64_t>(slots), position = device_array<std::int32_t>(positions);
    }
    std::int64_t pages() const { return ceil_div(2 * shape.rows, page_size); }
    std::size_t elements(std::int64_t count) const { return static_cast<std::size_t>(shape.rows * count * head_dim); }
    std::size_t cache_elements() const { return static_cast<std::size_t>(pages() * page_size * kv_heads * head_dim); }

    tensor_view<bf16, 4> cache(device_array<bf16> const& memory) const {
        tensor_view<bf16, 4> view = packed_view(memory.data(), {pages(), page_size, kv_heads, head_dim});
        if (shape.head_major) view.stride[1] = head_dim, view.stride[2] = page_size * head_dim;
        return view;
    }
    append_params<bf16> params() const {
        append_params<bf16> p;
        p.keys = packed_view<bf16 const>(keys.data(), {shape.rows, kv_heads, head_dim});
        p.values = packed_view<bf16 const>(values.data(), {shape.rows, kv_heads, head_dim});
        p.key_cache = cache(key_cache);
        p.value_cache = cache(value_cache);
        p.slot = slot.data();
        if (!shape.rotated) return p;
        p.position = position.data();
        p.rotation.theta = 5e5f;
        p.queries = packed_view(queries.data(), {shape.rows, heads, head_dim});
        return p;
    }
    status launch(cudaStream_t stream) const {
        auto const p = params();
        return winnow::launch(p, plan(p, this_machine().info), {}, stream);
    }

    append_shape const shape;
    std::vector<std::int64_t> slots;
    std::vector<std::int32_t> positions;
    device_array<bf16> keys, values, queries, key_cache, value_cache;
    device_array<std::int64_t> slot;
    device_array<std::int32_t> position;
};

std::vector<double> as_doubles(std::vector<bf16> const& values) {
    std::vector<double> to;
    for (bf16 const x : values) to.push_back(static_cast<double>(to_float(x)));
    return to;
}

// A few rows of keys and values against the reference. (Queries are rotated in place, so timed launches turn them on.)
void check_append(append_case const& c) {
    for (std::int64_t const row : {std::int64_t{0}, c.shape.rows / 2, c.shape.rows - 1}) {
        auto const index = static_cast<std::size_t>(row), width = static_cast<std::size_t>(kv_heads * head_dim);
        std::vector<bf16> const keys = c.keys.download(index * width, width);
        std::vector<bf16> const values = c.values.download(index * width, width);
        std::vector<bf16> key_cache(width), value_cache(width);
        std::int64_t const first = 0;
        append_params<bf16> host = c.params();
        host.keys = packed_view<bf16 const>(keys.data(), {1, kv_heads, head_dim});
        host.values = packed_view<bf16 const>(values.data(), {1, kv_heads, head_dim});
        host.key_cache = packed_view(key_cache.data(), {1, 1, kv_heads, head_dim});
        host.value_cache = packed_view(value_cache.data(), {1, 1, kv_heads, head_dim});
        host.slot = &first;
        host.position = c.shape.rotated ? &c.positions[index] : nullptr;
        host.queries = {};
        reference::append_result exact;
        require(reference::append(host, &exact));
        auto const found = [&](device_array<bf16> const& memory) {
            auto const view = c.cache(memory);
            std::vector<bf16> all;
            for (std::int64_t head = 0; head < kv_heads; ++head) {
                auto const at = view.offset(c.slots[index] / page_size, c.slots[index] % page_size, head);
                auto const part = memory.download(static_cast<std::size_t>(at), static_cast<std::size_t>(head_dim));
                all.insert(all.end(), part.begin(), part.end());
            }
            return as_doubles(all);
        };
        auto const verdict = testing::compare<bf16>(found(c.key_cache), exact.keys, as_doubles(key_cache));
        if (!verdict) throw std::runtime_error("wrong keys, row " + std::to_string(row) + ": " + verdict.message);
        if (found(c.value_cache) != as_doubles(value_cache))
            throw std::runtime_error("wrong values, row " + std::to_string(row));
    }
}

prepared appending(append_shape const& shape) {
    auto const c = std::make_shared<append_case>(shape);
    require(c->launch(this_machine().stream));
    require(cudaStreamSynchronize(this_machine().stream), "append");
    check_append(*c);
    double const rows = c->keys.bytes() + c->values.bytes() + c->queries.bytes();
    double const index = c->slot.bytes() + (shape.rotated ? c->position.bytes() : 0);
    return {[c](cudaStream_t stream) { return c->launch(stream); }, {.bytes = 2 * rows + index}};
}

void add_all() {
    for (std::int64_t const rows : {1, 64, 1 << 10, 8 << 10, 32 << 10})
        for (bool const rotated : {false, true})
            for (bool const head_major : {false, true}) {
                bool const quick = !head_major && (rows == 64 || rows == 8 << 10);
                add(std::string(quick ? "quick" : "full") + "/append/" + (rotated ? "rotated/" : "copied/") +
                        (head_major ? "HND/" : "NHD/") + size_name(rows) + "_rows",
                    benchmark::kMicrosecond, [=] {
                        return appending({rows, head_major, rotated});
                    });
            }
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
