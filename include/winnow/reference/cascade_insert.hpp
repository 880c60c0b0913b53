// Insertion into a cascading cache one token after the other, as it is defined: the oracle of cascade_insert.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "winnow/core/cascade_params.hpp"
#include "winnow/core/status.hpp"
#include "winnow/op/cascade.hpp"
#include "winnow/reference/append.hpp"

namespace winnow::reference {

/// Tokens that an insertion lost for good, by their index in the sequence, over all requests and sets of tokens.
struct cascade_losses {
    std::vector<std::int32_t> dropped;   ///< that fell out of the last sub-cache
    std::vector<std::int32_t> defeated;  ///< that lost a fight
};

/// A token on its way: rows of keys and values of the heads that share it, score and index.
template <class T>
struct cascade_token {
    std::vector<T> rows;      ///< [kv_head, keys and values, channel]
    float score = 0;          ///< what it fights with
    std::int32_t origin = 0;  ///< index in the sequence
};

/// The cache of one sequence and set of tokens, taken out of its memory and put back.
template <class T>
class cascade_set {
public:
    /// Reads what the cache holds.
    cascade_set(cascade_cache<T> const& cache, std::int32_t sequence, std::int32_t token_head)
        : cache_(cache), sequence_(sequence), token_head_(token_head), counters(*cache.counters(sequence)) {
        auto const rows = static_cast<std::size_t>(cache.layout.rows());
        for (std::size_t row = 0; row < rows; ++row) tokens_.push_back(load(static_cast<std::int32_t>(row)));
    }
    /// Writes it back, but for the counters.
    void store() const {
        for (std::size_t row = 0; row < tokens_.size(); ++row) save(static_cast<std::int32_t>(row));
    }
    /// Inserts one token: the definition, step by step.
    void insert(cascade_token<T> token, cascade_losses* losses) {
        cascade_layout const& layout = cache_.layout;
        std::int64_t const t = counters.seen++;
        if (t < layout.sinks) {
            at(-1, static_cast<std::int32_t>(t)) = std::move(token);
            return;
        }
        for (std::int32_t i = 0; i < layout.levels; ++i) {
            std::int32_t &count = counters.count[i], &head = counters.head[i], size = layout.size[i];
            bool const eager = layout.eager_fill && t <= layout.slots() + layout.sinks;
            if (eager || (t - layout.sinks) % layout.accept.period[i] == 0) {
                if (count < size) {
                    at(i, (head + count) % size) = std::move(token);
                    ++count;
                    return;
                }
                std::swap(token, at(i, head));  // the oldest goes on
                head = (head + 1) % size;
                continue;
            }
            if (count == 0) {  // an empty sub-cache takes what comes
                at(i, head) = std::move(token);
                count = 1;
                return;
            }
            cascade_token<T>& newest = at(i, (head - 1 + count) % count);
            // A NaN loses against every number; two NaN are a tie.
            bool const wins = newest.score != newest.score || token.score >= newest.score;
            if (wins) std::swap(token, newest);
            if (losses) losses->defeated.push_back(token.origin);
            return;
        }
        if (losses) losses->dropped.push_back(token.origin);
    }

private:
    cascade_cache<T> cache_;
    std::int32_t sequence_, token_head_;
    std::vector<cascade_token<T>> tokens_;

public:
    cascade_counters counters;  ///< as they are after the tokens inserted so far

private:
    /// Token in a slot of a sub-cache; level -1: a sink.
    cascade_token<T>& at(std::int32_t level, std::int32_t slot) {
        std::int32_t const first = level < 0 ? 0 : cache_.layout.sinks + cache_.layout.slots_before(level);
        return tokens_[static_cast<std::size_t>(first + slot)];
    }
    template <class F>
    void for_each_head(F const& f) const {
        for (std::int32_t h = 0; h < cache_.kv_heads; ++h)
            if (cache_.token_head_of(h) == token_head_) f(h);
    }
    cascade_token<T> load(std::int32_t row) const {
        cascade_token<T> token;
        auto const channels = static_cast<std::int64_t>(cache_.head_dim);
        for_each_head([&](std::int32_t h) {
            for (T const* from : {cache_.keys(sequence_, h), cache_.values(sequence_, h)})
                token.rows.insert(token.rows.end(), from + row * channels, from + (row + 1) * channels);
        });
        if (std::int32_t const slot = row - cache_.layout.sinks; slot >= 0) {
            token.score = cache_.scores(sequence_, token_head_)[slot];
            token.origin = cache_.origins(sequence_, token_head_)[slot];
        }
        return token;
    }
    void save(std::int32_t row) const {
        cascade_token<T> const& token = tokens_[static_cast<std::size_t>(row)];
        auto from = token.rows.begin();
        auto const channels = static_cast<std::int64_t>(cache_.head_dim);
        for_each_head([&](std::int32_t h) {
            for (T* const to : {cache_.keys(sequence_, h), cache_.values(sequence_, h)})
                for (std::int64_t c = 0; c < channels; ++c) to[row * channels + c] = *from++;
        });
        if (std::int32_t const slot = row - cache_.layout.sinks; slot >= 0) {
            cache_.scores(sequence_, token_head_)[slot] = token.score;
            cache_.origins(sequence_, token_head_)[slot] = token.origin;
        }
    }
};

/// Makes the rotated copy of a sequence's keys anew: each row that holds a token, rotated by its number or by the index of
/// its token.
template <class T>
void rotate_rows(cascade_insert_params<T> const& p, std::int32_t sequence) {
    cascade_cache<T> const& cache = p.cache;
    cascade_counters const& counters = *cache.counters(sequence);
    for (std::int32_t h = 0; h < cache.kv_heads; ++h)
        for (std::int32_t i = 0; i < live_tokens(cache.layout, counters); ++i) {
            std::int32_t const row = entry_at(cache.layout, counters, i).row, slot = row - cache.layout.sinks;
            bool const by_index = p.positions == cascade_positions::original && slot >= 0;
            T const* const from = cache.keys(sequence, h) + std::int64_t{row} * cache.head_dim;
            std::vector<double> channels;
            for (std::int32_t c = 0; c < cache.head_dim; ++c)
                channels.push_back(static_cast<double>(to_float(from[c])));
            rotate(p.rotation, by_index ? cache.origins(sequence, cache.token_head_of(h))[slot] : row, channels);
            T* const to = cache.rotated(sequence, h) + std::int64_t{row} * cache.head_dim;
            for (std::int32_t c = 0; c < cache.head_dim; ++c)
                to[c] = from_float<T>(static_cast<float>(channels[static_cast<std::size_t>(c)]));
        }
}

/// Computes `p` on host pointers: checks it, then changes the caches. What is lost is told where asked for.
template <class T>
status cascade_insert(cascade_insert_params<T> const& p, cascade_losses* losses = nullptr) {
    if (auto s = check(p); !s) return s;
    cascade_cache<T> const& cache = p.cache;
    for (std::int32_t b = 0; b < p.batch(); ++b) {
        cascade_chunk const chunk = chunk_of(p.rows, p.sequence, cache.sequences, p.max_tokens(), b);
        if (chunk.tokens == 0) continue;
        cascade_counters after{};
        for (std::int32_t token_head = 0; token_head < cache.token_heads(); ++token_head) {
            cascade_set<T> set(cache, chunk.sequence, token_head);
            for (std::int32_t u = 0; u < chunk.tokens; ++u) {
                cascade_token<T> token;
                for (std::int32_t h = 0; h < cache.kv_heads; ++h) {
                    if (cache.token_head_of(h) != token_head) continue;
                    for (auto const* from : {&p.keys, &p.values})
                        for (std::int32_t c = 0; c < cache.head_dim; ++c)
                            token.rows.push_back((*from)(chunk.outer, chunk.first_row + u, h, c));
                }
                if (p.scores.data != nullptr) token.score = p.scores(chunk.outer, chunk.first_row + u, token_head);
                token.origin = static_cast<std::int32_t>(set.counters.seen);
                set.insert(std::move(token), losses);
            }
            set.store();
            after = set.counters;
        }
        *cache.counters(chunk.sequence) = after;
        if (cache.has_rotated()) rotate_rows(p, chunk.sequence);
    }
    return {};
}

}  // namespace winnow::reference
