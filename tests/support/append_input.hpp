// Inputs of append in one block of memory: rows, caches of several orders full of noise, slots that lead astray, and
// the comparison of all that memory with the oracle.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/random_input.hpp"
#include "support/tolerance.hpp"
#include "winnow/op/append.hpp"
#include "winnow/reference/append.hpp"

namespace winnow::testing {

/// Order of a cache in memory. Pages have a gap behind them, which nobody may write.
enum class cache_order : std::int32_t {
    token_major,  ///< NHD: [page, token, head, channel], keys and values apart
    head_major,   ///< HND: [page, head, token, channel], keys and values apart
    combined,     ///< [2, page, token, head, channel]
    interleaved   ///< [page, 2, token, head, channel]
};

/// What to build.
struct append_shape {
    std::int64_t rows = 1, kv_heads = 1, head_dim = 64;
    std::int64_t value_dim = -1;  ///< -1: head_dim; 0: keys only
    std::int64_t heads = 0;       ///< of the queries; 0: none
    std::int64_t page_size = 16;
    cache_order order = cache_order::token_major;
    bool fused = false;   ///< queries, keys and values lie in one row, as a fused projection leaves them
    bool astray = false;  ///< about every third slot is negative or beyond the cache
    rope rotation = {};
    bool table = false;                        ///< frequencies from a table instead of rotation.theta
    std::vector<std::int32_t> positions = {};  ///< taken in turn; empty: 0, 1, 2, ...
    std::uint64_t seed = 1;
};

/// All of it in one arena; `params(base)` as in attend_input. Rows are normal numbers with a rotation, and every bit
/// pattern without one; caches are every bit pattern.
template <class T>
class append_input {
public:
    explicit append_input(append_shape shape) : shape_(std::move(shape)), random_(shape_.seed) {
        auto& s = shape_;
        if (s.value_dim < 0) s.value_dim = s.head_dim;
        pages_ = ceil_div(s.rows, s.page_size) + 2;
        row_ = (s.heads + s.kv_heads) * s.head_dim + s.kv_heads * s.value_dim + vector_gap;
        std::int64_t const wide = larger(s.head_dim, s.value_dim);
        page_ = s.page_size * s.kv_heads * wide + vector_gap;
        fused_ = take(s.rows * row_);
        queries_ = take(s.rows * s.heads * s.head_dim);
        keys_ = take(s.rows * s.kv_heads * s.head_dim);
        values_ = take(s.rows * s.kv_heads * s.value_dim);
        cache_ = take(2 * pages_ * page_);
        auto const count = static_cast<std::size_t>(s.rows);
        slot_ = memory_.template take<std::int64_t>(count);
        position_ = memory_.template take<std::int32_t>(count);
        auto const pairs = static_cast<std::size_t>(s.head_dim / 2);
        table_ = memory_.template take<float>(pairs);
        bool const normal = !s.rotation.empty() || s.table;
        for (std::size_t i = fused_ / sizeof(T); i < cache_ / sizeof(T); ++i)
            element(i) = normal ? from_float<T>(static_cast<float>(random_.normal())) : noise();
        for (std::int64_t i = 0; i < 2 * pages_ * page_; ++i)
            element(cache_ / sizeof(T) + static_cast<std::size_t>(i)) = noise();
        for (std::size_t i = 0; i < pairs; ++i)  // some spread of frequencies that no theta gives
            memory_.template at<float>(table_)[i] =
                static_cast<float>(std::exp(-12.0 * static_cast<double>(i) / static_cast<double>(pairs)) *
                                   (0.9 + 0.1 * random_.uniform()));
        draw_slots();
        for (std::size_t i = 0; i < count; ++i)
            positions()[i] = s.positions.empty() ? static_cast<std::int32_t>(i) : s.positions[i % s.positions.size()];
    }

    append_shape const& shape() const { return shape_; }
    arena& memory() { return memory_; }
    std::int64_t slots_of_cache() const { return pages_ * shape_.page_size; }
    std::int64_t* slots() { return memory_.template at<std::int64_t>(slot_); }
    std::int32_t* positions() { return memory_.template at<std::int32_t>(position_); }
    T* first_key() { return memory_.template at<T>(keys_); }

    append_params<T> params() { return params(memory_.base()); }
    append_params<T> params(void* base) const {
        auto const& s = shape_;
        append_params<T> p;
        auto const rows = [&](std::size_t apart, std::int64_t in_row, std::int64_t heads, std::int64_t channels) {
            tensor_view<T, 3> view = packed_view(at<T>(base, apart), {s.rows, heads, channels});
            if (s.fused) view.data = at<T>(base, fused_) + in_row, view.stride[0] = row_;
            return view;
        };
        std::int64_t const queries = s.heads * s.head_dim, keys = s.kv_heads * s.head_dim;
        p.keys = rows(keys_, queries, s.kv_heads, s.head_dim);
        p.key_cache = cache(base, 0, s.head_dim);
        if (s.value_dim > 0) {
            p.values = rows(values_, queries + keys, s.kv_heads, s.value_dim);
            p.value_cache = cache(base, 1, s.value_dim);
        }
        if (s.heads > 0) p.queries = rows(queries_, 0, s.heads, s.head_dim);
        p.slot = at<std::int64_t>(base, slot_);
        p.rotation = s.rotation;
        if (s.table) p.rotation.inverse_frequency = at<float>(base, table_);
        if (!p.rotation.empty()) p.position = at<std::int32_t>(base, position_);
        return p;
    }

    /// Fresh slots, no two the same.
    void draw_slots() {
        std::int64_t const count = slots_of_cache(), most = std::numeric_limits<std::int64_t>::max();
        std::vector<std::int64_t> order(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
        for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.bits() % i]);
        std::int64_t const astray[] = {-1, count, -most - 1, -count, most, count + 1, -2};
        for (std::size_t i = 0; i < static_cast<std::size_t>(shape_.rows); ++i)
            slots()[i] = shape_.astray && random_.below(3) == 0 ? astray[random_.bits() % std::size(astray)] : order[i];
    }

    /// What is wrong with `found`, a copy of this memory after one append to it; empty: nothing. Every byte must be
    /// what the oracle makes of it, but rotated channels, which may be off by `bound_of`.
    std::string mismatch(char const* found) {
        arena expected = memory_;
        auto const p = params(expected.base());
        reference::append_result exact;
        if (auto s = reference::append(p, &exact); !s) return std::string("oracle: ") + s.field + " " + s.rule;
        std::string wrong;
        auto const in = params();
        auto const accept = [&](char const* what, T* element, T const* old, std::int64_t row, double value, T x, T y) {
            auto const offset = static_cast<std::size_t>(reinterpret_cast<char*>(element) - expected.base());
            T const& there = *reinterpret_cast<T const*>(found + offset);
            double const off = std::fabs(static_cast<double>(to_float(there)) - value);
            double const most = bound_of(p.position[row], value, to_float(x), to_float(y));
            if (!(off <= most) && wrong.empty())
                wrong = std::string(what) + " of row " + std::to_string(row) + ", position " +
                        std::to_string(p.position[row]) + ": found " + std::to_string(to_float(there)) + ", exact " +
                        std::to_string(value) + ", allowed " + std::to_string(most) + ", unrotated " +
                        std::to_string(to_float(*old));
            *element = there;
        };
        auto const head = [&](char const* what, T* to, T const* from, std::int64_t row, double const* values) {
            std::int32_t const pairs = p.rotation.pairs(static_cast<std::int32_t>(shape_.head_dim));
            for (std::int32_t i = 0; i < pairs; ++i) {
                auto const c = channels_of(p.rotation.pairing, pairs, i);
                for (std::int32_t const at : {c.first, c.second})
                    accept(what, to + at, from + at, row, values[at], from[c.first], from[c.second]);
            }
        };
        for (std::int64_t row = 0; row < shape_.rows && !p.rotation.empty(); ++row) {
            auto const at = place_of(p.slot[row], p.key_cache.extent[0], p.key_cache.extent[1]);
            for (std::int64_t h = 0; h < shape_.kv_heads && at.page >= 0; ++h)
                head("key", &p.key_cache(at.page, at.token, h, 0), &in.keys(row, h, 0), row,
                     exact.keys.data() + (row * shape_.kv_heads + h) * shape_.head_dim);
            for (std::int64_t h = 0; h < shape_.heads; ++h)
                head("query", &p.queries(row, h, 0), &in.queries(row, h, 0), row,
                     exact.queries.data() + (row * shape_.heads + h) * shape_.head_dim);
        }
        if (!wrong.empty()) return wrong;
        for (std::size_t i = 0; i < expected.size(); ++i)
            if (expected.base()[i] != found[i]) return "byte " + std::to_string(i) + " " + region(i);
        return {};
    }

    /// How far a rotated channel may be from exact. Angle: rounded to fp32 half turns (pi * 2^-25), position * 2^-51 by
    /// theta's frequency, as much again in the oracle. Sine and cosine: 2^-24. Product and fma: 2^-24 each. Together
    /// below 2^-21 + position * 2^-50, of |x| + |y|. Then one rounding to T.
    static double bound_of(std::int32_t position, double exact, double x, double y) {
        double const turned =
            (std::fabs(x) + std::fabs(y)) * (0x1p-21 + std::fabs(static_cast<double>(position)) * 0x1p-50);
        return turned + (std::fabs(exact) + turned) * unit_roundoff<T> + 0x1p-25;  // the last: fp16 subnormals
    }

private:
    static constexpr std::int64_t vector_gap = 8;  // a vector of 16 bytes

    std::size_t take(std::int64_t count) { return memory_.template take<T>(static_cast<std::size_t>(count)); }
    T& element(std::size_t i) { return memory_.template at<T>(0)[i]; }
    T noise() {
        T x;
        x.bits = static_cast<std::uint16_t>(random_.bits());
        return x;
    }
    template <class U>
    static U* at(void* base, std::size_t offset) {
        return reinterpret_cast<U*>(static_cast<char*>(base) + offset);
    }
    tensor_view<T, 4> cache(void* base, std::int64_t which, std::int64_t channels) const {
        auto const& s = shape_;
        std::int64_t const wide = larger(s.head_dim, s.value_dim);
        bool const by_head = s.order == cache_order::head_major, inter = s.order == cache_order::interleaved;
        tensor_view<T, 4> view;
        view.data = at<T>(base, cache_) + which * (inter ? page_ : pages_ * page_);
        std::int64_t const extent[] = {pages_, s.page_size, s.kv_heads, channels};
        std::int64_t const stride[] = {inter ? 2 * page_ : page_, by_head ? wide : s.kv_heads * wide,
                                       by_head ? s.page_size * wide : wide, 1};
        std::copy_n(extent, 4, view.extent);
        std::copy_n(stride, 4, view.stride);
        return view;
    }
    std::string region(std::size_t byte) const {
        return byte >= slot_ ? "of the slots or behind" : byte >= cache_ ? "of the caches" : "of the rows";
    }

    append_shape shape_;
    random_source random_;
    arena memory_;
    std::int64_t pages_ = 0, row_ = 0, page_ = 0;
    std::size_t fused_ = 0, queries_ = 0, keys_ = 0, values_ = 0, cache_ = 0, slot_ = 0, position_ = 0, table_ = 0;
};

}  // namespace winnow::testing
