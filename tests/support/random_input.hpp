// Inputs of attention and pruning in one block of memory, so that a test can use them on the host or copy them to a
// device.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "winnow/core/dtype.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/op/prune.hpp"

namespace winnow::testing {

/// The same numbers on every platform (splitmix64).
class random_source {
public:
    explicit random_source(std::uint64_t seed) : state_(seed) {}
    std::uint64_t bits() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  ///< [0, 1)
    double normal() {
        double const u = 1.0 - uniform(), v = uniform();
        return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
    }
    std::int32_t below(std::int32_t n) { return between(0, n - 1); }
    /// low .. high, both included.
    std::int32_t between(std::int32_t low, std::int32_t high) {
        auto const count = static_cast<std::uint64_t>(std::int64_t{high} - low + 1);
        return static_cast<std::int32_t>(low + static_cast<std::int64_t>(bits() % count));
    }

private:
    std::uint64_t state_;
};

/// How elements of queries, keys and values are drawn.
enum class draw : std::int32_t {
    normal,   ///< standard normal
    integers  ///< -4 .. 4: dot products are exact in fp32, so that kernels and oracle must agree on every comparison
};

/// What to build.
struct input_shape {
    std::vector<std::int32_t> queries = {1};  ///< rows of each request; without ragged_queries all must be equal
    std::vector<std::int32_t> keys = {1};     ///< keys of each request
    std::int32_t heads = 1, kv_heads = 1, head_dim = 64;
    kv_layout layout = kv_layout::contiguous;
    std::int32_t page_size = 16;
    bool ragged_queries = false;
    bool head_major = false;      ///< [.., head, token, channel] in memory (HND) instead of [.., token, head, channel]
    bool lengths = true;          ///< give kv.length where it may be left out (ragged, page_list)
    std::int32_t spare_keys = 0;  ///< contiguous: token extent beyond the longest request; paged: spare pages
    draw values = draw::normal;
    std::uint64_t seed = 1;
    bool sink_logits = false;  ///< give every head a learned sink, one of them -inf
};

/// One block of memory, handed out as offsets; the same offsets hold in a copy of it on a device.
class arena {
public:
    /// Offset of `count` elements. May move what earlier addresses point at.
    template <class U>
    std::size_t take(std::size_t count) {
        std::size_t const offset = size();
        lines_.resize(lines_.size() + (count * sizeof(U) + sizeof(line) - 1) / sizeof(line));
        return offset;
    }
    template <class U>
    U* at(std::size_t offset) {
        return reinterpret_cast<U*>(base() + offset);
    }
    char* base() { return reinterpret_cast<char*>(lines_.data()); }
    std::size_t size() const { return lines_.size() * sizeof(line); }

private:
    struct alignas(256) line {
        char bytes[256] = {};
    };
    std::vector<line> lines_ = std::vector<line>(1);
};

/// Queries, keys, values, output and lse of one call. Unused rows and pages, outputs and lse hold NaN.
///
/// `params()` gives host pointers; `params(device_base)` gives device pointers after the bytes [base(), base() +
/// size()) were copied there.
template <class T>
class attend_input {
public:
    explicit attend_input(input_shape shape) : shape_(std::move(shape)), random_(shape_.seed) {
        auto const batch = static_cast<std::int32_t>(shape_.keys.size());
        for (std::int32_t const n : shape_.queries) max_queries_ = larger(max_queries_, n);
        for (std::int32_t const n : shape_.keys) max_keys_ = larger(max_keys_, n);
        place_queries(batch);
        place_keys(batch);
        fill(queries_, query_rows_, shape_.heads, [&](auto&& put) {
            for (std::int32_t b = 0; b < batch; ++b)
                for (std::int32_t i = 0; i < rows_of(b); ++i) {
                    auto const [outer, token] = query_location(b, i);
                    put(outer, token);
                }
        });
        auto const every_key = [&](auto&& put) {
            for (std::int32_t b = 0; b < batch; ++b)
                for (std::int32_t j = 0; j < shape_.keys[static_cast<std::size_t>(b)]; ++j) {
                    auto const at =
                        locate(index(memory_.base()), fast_divider(larger(shape_.page_size, 1)), key_extent_[0], b, j);
                    put(at.outer, at.token);
                }
        };
        fill(keys_, key_rows_, shape_.kv_heads, every_key);
        fill(values_, key_rows_, shape_.kv_heads, every_key);
        if (shape_.sink_logits) {
            auto const heads = static_cast<std::size_t>(shape_.heads);
            sink_logits_ = memory_.template take<float>(heads);
            float* const logits = memory_.template at<float>(sink_logits_);
            random_source source(shape_.seed * 31 + 4);
            for (std::size_t h = 0; h < heads; ++h) logits[h] = static_cast<float>(3 * source.normal());
            logits[heads / 2] = -std::numeric_limits<float>::infinity();
        }
        poison(output_, query_rows_ * static_cast<std::size_t>(shape_.heads));
        float* const lse = memory_.at<float>(lse_);
        for (std::size_t i = 0; i < query_rows_ * static_cast<std::size_t>(shape_.heads); ++i)
            lse[i] = std::numeric_limits<float>::quiet_NaN();
    }

    input_shape const& shape() const { return shape_; }
    arena& memory() { return memory_; }
    random_source& random() { return random_; }
    batch_shape extents() { return params().shape(); }

    attend_params<T> params() { return params(memory_.base()); }
    attend_params<T> params(void* base) const {
        attend_params<T> p;
        p.queries = view<T const>(base, queries_, query_extent_, shape_.heads);
        p.keys = view<T const>(base, keys_, key_extent_, shape_.kv_heads);
        p.values = view<T const>(base, values_, key_extent_, shape_.kv_heads);
        p.output = view<T>(base, output_, query_extent_, shape_.heads);
        auto lse = packed_view(at<float>(base, lse_), {query_extent_[0], query_extent_[1], std::int64_t{shape_.heads}});
        p.lse = natural_lse{lse};
        p.kv = index(base);
        if (shape_.ragged_queries)
            p.rows = {at<std::int32_t const>(base, row_start_), static_cast<std::int32_t>(shape_.queries.size()),
                      larger(max_queries_, 1)};
        if (list_count_ > 0) p.selection = selection(base);
        p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape_.head_dim)));
        if (shape_.sink_logits) p.sink_logits = at<float const>(base, sink_logits_);
        return p;
    }

    /// Adds random lists: each block with probability `density` (at most `capacity`), list heads as sharing says.
    void add_selection(std::int32_t block_size, std::int32_t query_block, sharing share, std::int32_t capacity,
                       double density) {
        auto const batch = static_cast<std::int32_t>(shape_.keys.size());
        std::int32_t const heads = list_heads_of(share, shape_.heads, shape_.kv_heads);
        list_extent_[0] = batch, list_extent_[1] = heads;
        list_extent_[2] = query_blocks_of(max_queries_, query_block), list_extent_[3] = capacity;
        list_count_ = static_cast<std::size_t>(list_extent_[0] * list_extent_[1] * list_extent_[2]);
        block_size_ = block_size, query_block_ = query_block;
        blocks_ = memory_.template take<std::int32_t>(list_count_ * static_cast<std::size_t>(capacity));
        counts_ = memory_.template take<std::int32_t>(list_count_);
        for (std::size_t list = 0; list < list_count_; ++list) {
            std::size_t const b = list / static_cast<std::size_t>(list_extent_[1] * list_extent_[2]);
            std::int32_t const n = ceil_div(shape_.keys[b], block_size);
            std::int32_t* const ids =
                memory_.template at<std::int32_t>(blocks_) + list * static_cast<std::size_t>(capacity);
            std::int32_t count = 0;
            for (std::int32_t id = 0; id < n && count < capacity; ++id)
                if (random_.uniform() < density) ids[count++] = id;
            // What stands behind the count is never read: make it hurt if it is.
            for (std::int32_t i = count; i < capacity; ++i) ids[i] = 0x7ffffff;
            memory_.template at<std::int32_t>(counts_)[list] = count;
        }
    }
    block_selection_buffer selection_buffer() { return buffer(memory_.base()); }

    /// Element of a tensor in host memory: (request, position in it, head, channel).
    T& query(std::int32_t b, std::int32_t i, std::int32_t head, std::int32_t channel) {
        auto const [outer, token] = query_location(b, i);
        auto const v = view<T>(memory_.base(), queries_, query_extent_, shape_.heads);
        return v(outer, token, head, channel);
    }
    T& key(std::int32_t b, std::int32_t j, std::int32_t head, std::int32_t channel) {
        return cell(keys_, b, j, head, channel);
    }
    T& value(std::int32_t b, std::int32_t j, std::int32_t head, std::int32_t channel) {
        return cell(values_, b, j, head, channel);
    }
    /// Page table in host memory (block_table: [request, table stride]; page_list: by start).
    std::int32_t* pages() { return memory_.template at<std::int32_t>(pages_); }
    std::int32_t* key_lengths() { return memory_.template at<std::int32_t>(lengths_); }

    /// Output and lse as the oracle packs them: [outer, token, head, channel]; `base`: a host copy of the memory.
    std::vector<double> output(void* base) const {
        auto const v = view<T>(base, output_, query_extent_, shape_.heads);
        std::vector<double> result;
        for (std::int64_t o = 0; o < v.extent[0]; ++o)
            for (std::int64_t t = 0; t < v.extent[1]; ++t)
                for (std::int64_t h = 0; h < v.extent[2]; ++h)
                    for (std::int64_t c = 0; c < v.extent[3]; ++c) result.push_back(to_float(v(o, t, h, c)));
        return result;
    }
    std::vector<double> output() { return output(memory_.base()); }
    std::vector<double> lse(void* base) const {
        float const* const from = at<float>(base, lse_);
        return {from, from + query_rows_ * static_cast<std::size_t>(shape_.heads)};
    }
    std::vector<double> lse() { return lse(memory_.base()); }

private:
    template <class U>
    static U* at(void* base, std::size_t offset) {
        return reinterpret_cast<U*>(static_cast<char*>(base) + offset);
    }

    std::int32_t rows_of(std::int32_t b) const {
        return shape_.queries[shape_.ragged_queries ? static_cast<std::size_t>(b) : 0];
    }
    std::pair<std::int32_t, std::int32_t> query_location(std::int32_t b, std::int32_t i) {
        if (!shape_.ragged_queries) return {b, i};
        return {0, memory_.template at<std::int32_t>(row_start_)[b] + i};
    }

    void place_queries(std::int32_t batch) {
        if (shape_.ragged_queries) {
            row_start_ = memory_.template take<std::int32_t>(static_cast<std::size_t>(batch) + 1);
            auto* const start = memory_.template at<std::int32_t>(row_start_);
            start[0] = 2;  // the first request need not begin at row 0
            for (std::int32_t b = 0; b < batch; ++b)
                start[b + 1] = start[b] + shape_.queries[static_cast<std::size_t>(b)];
            query_extent_[0] = 1, query_extent_[1] = start[batch] + 3;
        } else {
            query_extent_[0] = batch, query_extent_[1] = max_queries_;
        }
        query_rows_ = static_cast<std::size_t>(query_extent_[0] * query_extent_[1]);
        auto const elements = query_rows_ * static_cast<std::size_t>(shape_.heads * shape_.head_dim);
        queries_ = memory_.template take<T>(elements);
        output_ = memory_.template take<T>(elements);
        lse_ = memory_.template take<float>(query_rows_ * static_cast<std::size_t>(shape_.heads));
    }

    void place_keys(std::int32_t batch) {
        auto const n = static_cast<std::size_t>(batch);
        lengths_ = memory_.template take<std::int32_t>(n);
        key_start_ = memory_.template take<std::int32_t>(n + 1);
        last_ = memory_.template take<std::int32_t>(n);
        for (std::size_t b = 0; b < n; ++b) memory_.template at<std::int32_t>(lengths_)[b] = shape_.keys[b];
        bool const paged = shape_.layout == kv_layout::block_table || shape_.layout == kv_layout::page_list;
        std::int32_t total = 0;
        if (shape_.layout == kv_layout::contiguous) {
            key_extent_[0] = batch, key_extent_[1] = max_keys_ + shape_.spare_keys;
        } else if (shape_.layout == kv_layout::ragged) {
            total = 3;
            for (std::size_t b = 0; b <= n; ++b) {
                memory_.template at<std::int32_t>(key_start_)[b] = total;
                if (b < n) total += shape_.keys[b];
            }
            key_extent_[0] = 1, key_extent_[1] = total + 2;
        } else {
            table_stride_ = ceil_div(max_keys_, shape_.page_size) + 1;
            for (std::size_t b = 0; b <= n; ++b) {
                memory_.template at<std::int32_t>(key_start_)[b] = total;
                if (b == n) break;
                std::int32_t const used = ceil_div(shape_.keys[b], shape_.page_size);
                memory_.template at<std::int32_t>(last_)[b] =
                    used == 0 ? 0 : shape_.keys[b] - (used - 1) * shape_.page_size;
                total += used;
            }
            key_extent_[0] = total + shape_.spare_keys + 1, key_extent_[1] = shape_.page_size;
        }
        if (paged) place_pages(batch, total);
        key_rows_ = static_cast<std::size_t>(key_extent_[0] * key_extent_[1]);
        auto const elements = key_rows_ * static_cast<std::size_t>(shape_.kv_heads * shape_.head_dim);
        keys_ = memory_.template take<T>(elements);
        values_ = memory_.template take<T>(elements);
    }

    void place_pages(std::int32_t batch, std::int32_t total) {
        std::vector<std::int32_t> ids;
        for (std::int32_t i = 0; i < key_extent_[0]; ++i) ids.push_back(i);
        for (std::size_t i = ids.size(); i > 1; --i)
            std::swap(ids[i - 1], ids[static_cast<std::size_t>(random_.below(static_cast<std::int32_t>(i)))]);
        bool const table = shape_.layout == kv_layout::block_table;
        auto const entries = static_cast<std::size_t>(table ? batch * table_stride_ : total);
        pages_ = memory_.template take<std::int32_t>(entries + 1);
        auto* const start = memory_.template at<std::int32_t>(key_start_);
        for (std::size_t i = 0; i <= entries; ++i) pages()[i] = -7;  // what no length reaches is never read
        for (std::int32_t b = 0; b < batch; ++b)
            for (std::int32_t e = 0; e < start[b + 1] - start[b]; ++e)
                pages()[table ? b * table_stride_ + e : start[b] + e] = ids[static_cast<std::size_t>(start[b] + e)];
    }

    kv_index index(void* base) const {
        kv_index kv;
        kv.layout = shape_.layout;
        bool const optional = shape_.layout == kv_layout::ragged || shape_.layout == kv_layout::page_list;
        if (shape_.lengths || !optional) kv.length = at<std::int32_t const>(base, lengths_);
        kv.start = optional ? at<std::int32_t const>(base, key_start_) : nullptr;
        if (shape_.layout == kv_layout::block_table || shape_.layout == kv_layout::page_list)
            kv.pages = at<std::int32_t const>(base, pages_);
        if (shape_.layout == kv_layout::page_list) kv.last_page_length = at<std::int32_t const>(base, last_);
        kv.table_stride = table_stride_;
        kv.max_length = larger(max_keys_, shape_.layout == kv_layout::contiguous ? 0 : 1);
        return kv;
    }

    /// [outer, token, head, channel] over packed memory in either order.
    template <class U>
    tensor_view<U, 4> view(void* base, std::size_t offset, std::int64_t const (&extent)[2], std::int32_t heads) const {
        tensor_view<U, 4> v;
        v.data = at<U>(base, offset);
        std::int64_t const d = shape_.head_dim;
        v.extent[0] = extent[0], v.extent[1] = extent[1], v.extent[2] = heads, v.extent[3] = d;
        v.stride[0] = extent[1] * heads * d, v.stride[3] = 1;
        v.stride[1] = shape_.head_major ? d : heads * d;
        v.stride[2] = shape_.head_major ? extent[1] * d : d;
        return v;
    }

    void poison(std::size_t offset, std::size_t rows) {
        T* const data = memory_.template at<T>(offset);
        auto const nan = from_float<T>(std::numeric_limits<float>::quiet_NaN());
        for (std::size_t i = 0; i < rows * static_cast<std::size_t>(shape_.head_dim); ++i) data[i] = nan;
    }

    /// Poisons a tensor, then draws the rows that `every` names. Numbers follow (request, position), not memory, so
    /// that the same seed gives the same request in every layout.
    template <class F>
    void fill(std::size_t offset, std::size_t rows, std::int32_t heads, F const& every) {
        poison(offset, rows * static_cast<std::size_t>(heads));
        random_source source(shape_.seed * 31 + (offset == queries_ ? 1 : offset == keys_ ? 2 : 3));
        auto const& extent = offset == queries_ ? query_extent_ : key_extent_;
        auto const v = view<T>(memory_.base(), offset, extent, heads);
        every([&](std::int32_t outer, std::int32_t token) {
            for (std::int32_t h = 0; h < heads; ++h)
                for (std::int32_t c = 0; c < shape_.head_dim; ++c)
                    v(outer, token, h, c) =
                        from_float<T>(shape_.values == draw::integers ? static_cast<float>(source.between(-4, 4))
                                                                      : static_cast<float>(source.normal()));
        });
    }

    T& cell(std::size_t offset, std::int32_t b, std::int32_t j, std::int32_t head, std::int32_t channel) {
        auto const where =
            locate(index(memory_.base()), fast_divider(larger(shape_.page_size, 1)), key_extent_[0], b, j);
        return view<T>(memory_.base(), offset, key_extent_, shape_.kv_heads)(where.outer, where.token, head, channel);
    }

    block_selection_buffer buffer(void* base) const {
        block_selection_buffer s;
        s.blocks = packed_view(at<std::int32_t>(base, blocks_), list_extent_);
        s.counts = packed_view(at<std::int32_t>(base, counts_), {list_extent_[0], list_extent_[1], list_extent_[2]});
        s.block_size = block_size_, s.query_block = query_block_;
        return s;
    }
    block_selection selection(void* base) const { return buffer(base); }

    input_shape shape_;
    random_source random_;
    arena memory_;
    std::int32_t max_queries_ = 0, max_keys_ = 0;
    std::int64_t query_extent_[2] = {}, key_extent_[2] = {}, list_extent_[4] = {};
    std::size_t query_rows_ = 0, key_rows_ = 0, list_count_ = 0;
    std::size_t queries_ = 0, keys_ = 0, values_ = 0, output_ = 0, lse_ = 0;
    std::size_t row_start_ = 0, lengths_ = 0, key_start_ = 0, last_ = 0, pages_ = 0, blocks_ = 0, counts_ = 0;
    std::size_t sink_logits_ = 0;
    std::int64_t table_stride_ = 0;
    std::int32_t block_size_ = 0, query_block_ = 1;
};

/// Pruning of the same queries and keys; the caller adds the selection.
template <class T>
prune_params<T> prune_params_of(attend_params<T> const& a, prune_method const& method) {
    prune_params<T> p;
    p.queries = a.queries;
    p.keys = a.keys;
    p.kv = a.kv;
    p.rows = a.rows;
    p.method = method;
    p.mask = a.mask;
    return p;
}

}  // namespace winnow::testing
