// Cascading caches, and chunks of tokens for them, in one block of memory: for the host or a copy on a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "support/random_input.hpp"
#include "winnow/op/cascade.hpp"

namespace winnow::testing {

/// What to build. All tokens of a step are drawn anew.
struct cascade_shape {
    cascade_layout layout = even_cascade(2, 12, 3);
    std::int32_t heads = 2, kv_heads = 1, head_dim = 64;
    cascade_heads token_heads = cascade_heads::per_kv_head;
    std::int32_t batch = 1;
    std::int32_t max_tokens = 16;             ///< of one request and step
    bool ragged = false;                      ///< [1, row, ...] with offsets; needed for different lengths
    std::vector<std::int32_t> sequence = {};  ///< of each request; empty: its own
    std::int32_t sequences = 0;               ///< 0: the batch
    bool scored = true, lse = true, head_major = false;
    rope rotation = {};
    cascade_positions positions = cascade_positions::cached;
    cascade_scorer scorer = {};
    cascade_keys stored = cascade_keys::unrotated;
    std::uint64_t seed = 1;
};

/// Caches start empty; whatever nobody has written holds NaN.
template <class T>
class cascade_input {
public:
    explicit cascade_input(cascade_shape shape) : shape_(std::move(shape)), random_(shape_.seed) {
        rows_ = static_cast<std::int64_t>(shape_.batch) * shape_.max_tokens + (shape_.ragged ? 5 : 0);
        auto const n = static_cast<std::size_t>(rows_ * shape_.head_dim);
        queries_ = memory_.take<T>(n * static_cast<std::size_t>(shape_.heads));
        output_ = memory_.take<T>(n * static_cast<std::size_t>(shape_.heads));
        keys_ = memory_.take<T>(n * static_cast<std::size_t>(shape_.kv_heads));
        values_ = memory_.take<T>(n * static_cast<std::size_t>(shape_.kv_heads));
        lse_ = memory_.take<float>(static_cast<std::size_t>(rows_ * shape_.heads));
        scores_ = memory_.take<float>(static_cast<std::size_t>(rows_ * shape_.kv_heads));
        start_ = memory_.take<std::int32_t>(static_cast<std::size_t>(shape_.batch) + 1);
        sequence_ = memory_.take<std::int32_t>(shape_.sequence.size() + 1);
        cache_ = memory_.take<char>(cascade_bytes(cache(nullptr)));
        std::memset(memory_.base(), 0xff, memory_.size());
        for (std::size_t i = 0; i < shape_.sequence.size(); ++i)
            memory_.at<std::int32_t>(sequence_)[i] = shape_.sequence[i];
        auto const c = cache(memory_.base());
        for (std::int32_t s = 0; s < c.sequences; ++s) *c.counters(s) = {};
        draw_step(std::vector<std::int32_t>(static_cast<std::size_t>(shape_.batch), shape_.max_tokens));
    }

    cascade_shape const& shape() const { return shape_; }
    arena& memory() { return memory_; }
    random_source& random() { return random_; }

    /// New tokens, so many of each request; outputs are poisoned.
    void draw_step(std::vector<std::int32_t> tokens) {
        tokens_ = std::move(tokens);
        char* const base = memory_.base();
        std::memset(base, 0xff, start_);
        auto* const start = memory_.at<std::int32_t>(start_);
        start[0] = 2;  // the first request need not begin at row 0
        for (std::size_t b = 0; b < tokens_.size(); ++b) start[b + 1] = start[b] + tokens_[b];
        auto const p = attend(base);
        auto const draw = [&](auto const& view) {
            for (std::int32_t b = 0; b < shape_.batch; ++b)
                for (std::int32_t t = 0; t < tokens_[static_cast<std::size_t>(b)]; ++t)
                    for (std::int64_t h = 0; h < view.extent[2]; ++h)
                        for (std::int64_t c = 0; c < view.extent[3]; ++c)
                            const_cast<T&>(view(shape_.ragged ? 0 : b, shape_.ragged ? start[b] + t : t, h, c)) =
                                from_float<T>(static_cast<float>(random_.normal()));
        };
        draw(p.queries), draw(p.keys), draw(p.values);
    }
    /// Random scores instead of what attention would write: from a few values, so that many are equal.
    void draw_scores(std::int32_t values) {
        auto const p = attend(memory_.base());
        for (std::int64_t o = 0; o < p.scores.extent[0]; ++o)
            for (std::int64_t t = 0; t < p.scores.extent[1]; ++t)
                for (std::int64_t s = 0; s < p.scores.extent[2]; ++s)
                    p.scores(o, t, s) = static_cast<float>(random_.below(values)) / 8.0f - 1.0f;
    }

    cascade_cache<T> cache(void* base) const {
        cascade_cache<T> c;
        c.memory = base == nullptr ? nullptr : static_cast<char*>(base) + cache_;
        c.layout = shape_.layout;
        c.sequences = shape_.sequences > 0 ? shape_.sequences : shape_.batch;
        c.kv_heads = shape_.kv_heads;
        c.head_dim = shape_.head_dim;
        c.heads = shape_.token_heads;
        c.stored = shape_.stored;
        return c;
    }
    cascade_attend_params<T> attend(void* base) const {
        cascade_attend_params<T> p;
        p.queries = view<T const>(base, queries_, shape_.heads);
        p.keys = view<T const>(base, keys_, shape_.kv_heads);
        p.values = view<T const>(base, values_, shape_.kv_heads);
        p.output = view<T>(base, output_, shape_.heads);
        p.cache = cache(base);
        if (shape_.ragged) {
            std::int32_t most = 0;
            for (std::int32_t const n : tokens_) most = larger(most, n);
            p.rows = {at<std::int32_t>(base, start_), shape_.batch, larger(most, 1)};
        }
        if (!shape_.sequence.empty()) p.sequence = at<std::int32_t>(base, sequence_);
        std::int64_t const outer = p.queries.extent[0], tokens = p.queries.extent[1];
        if (shape_.lse)
            p.lse = natural_lse{packed_view(at<float>(base, lse_), {outer, tokens, std::int64_t{shape_.heads}})};
        p.scale = 0.125f;
        p.rotation = shape_.rotation;
        p.positions = shape_.positions;
        if (shape_.scored)
            p.scores = packed_view(at<float>(base, scores_), {outer, tokens, std::int64_t{p.cache.token_heads()}});
        p.scorer = shape_.scorer;
        return p;
    }
    cascade_insert_params<T> insert(void* base) const { return insert_part(attend(base)); }

    /// True if byte `at` of the memory belongs to the rotated copy of keys, or to a row for the token of a decode step:
    /// what an oracle need not have to the bit.
    bool loose(std::size_t at) {
        auto const c = cache(memory_.base());
        if (!c.has_rotated()) return false;
        char const* const byte = memory_.base() + at;
        auto const row = static_cast<std::int64_t>(c.head_dim * static_cast<std::int64_t>(sizeof(T)));
        for (std::int32_t s = 0; s < c.sequences; ++s) {
            auto const inside = [&](void const* begin, std::int64_t bytes) {
                auto const from = static_cast<char const*>(begin);
                return byte >= from && byte < from + bytes;
            };
            if (inside(c.rotated(s, 0), c.row_bytes())) return true;
            for (std::int32_t h = 0; h < c.kv_heads; ++h)
                if (inside(c.values(s, h) + std::int64_t{c.layout.rows()} * c.head_dim, row)) return true;
        }
        return false;
    }
    /// The rotated copies of all rows that hold a token, and zeros for the others.
    static std::vector<double> rotated_keys(cascade_cache<T> const& c) {
        std::vector<double> result;
        for (std::int32_t s = 0; s < c.sequences; ++s)
            for (std::int32_t h = 0; h < c.kv_heads; ++h)
                for (std::int32_t i = 0; i < c.layout.rows(); ++i) {
                    bool const live = i < live_tokens(c.layout, *c.counters(s));
                    std::int32_t const row = live ? entry_at(c.layout, *c.counters(s), i).row : 0;
                    for (std::int32_t d = 0; d < c.head_dim; ++d)
                        result.push_back(
                            live ? static_cast<double>(to_float(c.rotated(s, h)[std::int64_t{row} * c.head_dim + d]))
                                 : 0.0);
                }
        return result;
    }

    /// Any tensor as doubles, in the order of its axes.
    template <class View>
    static std::vector<double> values_of(View const& v) {
        std::vector<double> result;
        constexpr int rank = sizeof(v.extent) / sizeof(v.extent[0]);
        for (std::int64_t a = 0; a < v.extent[0]; ++a)
            for (std::int64_t b = 0; b < v.extent[1]; ++b)
                for (std::int64_t c = 0; c < v.extent[2]; ++c) {
                    if constexpr (rank == 3)
                        result.push_back(static_cast<double>(v(a, b, c)));
                    else
                        for (std::int64_t d = 0; d < v.extent[3]; ++d)
                            result.push_back(static_cast<double>(to_float(v(a, b, c, d))));
                }
        return result;
    }
    /// Scores of all slots, NaN where no token was ever put.
    static std::vector<double> slot_scores(cascade_cache<T> const& c) {
        std::vector<double> result;
        for (std::int32_t s = 0; s < c.sequences; ++s)
            for (std::int32_t h = 0; h < c.token_heads(); ++h)
                for (std::int32_t i = 0; i < c.layout.slots(); ++i)
                    result.push_back(static_cast<double>(c.scores(s, h)[i]));
        return result;
    }

private:
    template <class U>
    static U* at(void* base, std::size_t offset) {
        return reinterpret_cast<U*>(static_cast<char*>(base) + offset);
    }
    template <class U>
    tensor_view<U, 4> view(void* base, std::size_t offset, std::int32_t heads) const {
        std::int64_t const d = shape_.head_dim, tokens = shape_.ragged ? rows_ : tokens_[0];
        tensor_view<U, 4> v = packed_view(
            at<U>(base, offset), {shape_.ragged ? 1 : std::int64_t{shape_.batch}, tokens, std::int64_t{heads}, d});
        if (shape_.head_major) v.stride[1] = d, v.stride[2] = tokens * d;
        return v;
    }

    cascade_shape shape_;
    random_source random_;
    arena memory_;
    std::vector<std::int32_t> tokens_ = std::vector<std::int32_t>(static_cast<std::size_t>(shape_.batch), 1);
    std::int64_t rows_ = 0;
    std::size_t queries_ = 0, output_ = 0, keys_ = 0, values_ = 0, lse_ = 0, scores_ = 0, start_ = 0, sequence_ = 0,
                cache_ = 0;
};

/// A random layout: up to five sub-caches of up to `most` slots each, any acceptance.
inline cascade_layout random_cascade(random_source& random, std::int32_t most) {
    cascade_layout layout;
    layout.sinks = random.below(6);
    layout.levels = random.between(1, 5);
    for (std::int32_t i = 0; i < layout.levels; ++i) layout.size[i] = random.between(1, most);
    if (random.below(2) == 0)
        for (std::int32_t i = 1; i < layout.levels; ++i) layout.size[i] = layout.size[0];
    switch (random.below(6)) {
    case 0:
    case 1:
        break;
    case 2:
        layout.accept = powers_of<3>{};
        break;
    case 3:
        layout.accept = arithmetic{};
        break;
    case 4:
        layout.accept = always_first<2>{};
        break;
    default:
        for (auto& period : layout.accept.period) period = random.between(1, 7);
    }
    layout.eager_fill = random.below(3) > 0;
    return layout;
}

}  // namespace winnow::testing
