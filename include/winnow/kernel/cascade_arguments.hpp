// What the kernels of cascade_attend and cascade_insert are told: params, and where their workspace lies.
#pragma once

#include <cmath>
#include <cstdint>

#include "winnow/core/cascade_insert.hpp"
#include "winnow/core/cascade_params.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/partial.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/policy/cascade_policy.hpp"

namespace winnow {

/// Where a cache's parts lie, as cascade_cache says it, with the sums over sub-caches done once: a decode step's kernels
/// would spend a good part of their time on them.
template <class T>
struct cascade_places {
    char* memory = nullptr;
    std::int64_t sequence_bytes = 0;
    std::int64_t head_elements = 0;  ///< between two heads' rows
    std::int64_t values_offset = 0;  ///< bytes from a sequence's memory to its values
    std::int64_t scores_offset = 0;
    std::int64_t origins_offset = 0;
    std::int64_t rotated_offset = 0;
    std::int32_t rows = 0;   ///< sinks and slots
    std::int32_t slots = 0;  ///< of all sub-caches

    cascade_places() = default;
    /// Of a cache that has memory.
    explicit cascade_places(cascade_cache<T> const& cache)
        : memory(static_cast<char*>(cache.memory)), sequence_bytes(cache.sequence_bytes()),
          head_elements(std::int64_t{cache.stored_rows()} * cache.head_dim), values_offset(offset(cache.values(0, 0))),
          scores_offset(offset(cache.scores(0, 0))), origins_offset(offset(cache.origins(0, 0))),
          rotated_offset(cache.has_rotated() ? offset(cache.rotated(0, 0)) : 0), rows(cache.layout.rows()),
          slots(cache.layout.slots()) {}

    WINNOW_HOST_DEVICE cascade_counters* counters(std::int32_t sequence) const {
        return at<cascade_counters>(sequence, 0);
    }
    WINNOW_HOST_DEVICE T* keys(std::int32_t sequence, std::int32_t kv_head) const {
        return at<T>(sequence, counter_bytes) + kv_head * head_elements;
    }
    WINNOW_HOST_DEVICE T* values(std::int32_t sequence, std::int32_t kv_head) const {
        return at<T>(sequence, values_offset) + kv_head * head_elements;
    }
    WINNOW_HOST_DEVICE T* rotated(std::int32_t sequence, std::int32_t kv_head) const {
        return at<T>(sequence, rotated_offset) + kv_head * head_elements;
    }
    WINNOW_HOST_DEVICE float* scores(std::int32_t sequence, std::int32_t token_head) const {
        return at<float>(sequence, scores_offset) + std::int64_t{token_head} * slots;
    }
    WINNOW_HOST_DEVICE std::int32_t* origins(std::int32_t sequence, std::int32_t token_head) const {
        return at<std::int32_t>(sequence, origins_offset) + std::int64_t{token_head} * slots;
    }

private:
    static constexpr std::int64_t counter_bytes = cascade_cache<T>::counter_bytes;

    std::int64_t offset(void const* part) const { return static_cast<char const*>(part) - memory; }
    template <class U>
    WINNOW_HOST_DEVICE U* at(std::int32_t sequence, std::int64_t part) const {
        return reinterpret_cast<U*>(memory + sequence * sequence_bytes + part);
    }
};

/// Arguments of the kernels around the attention of a chunk. Linear keys and values are what attention reads: cached
/// tokens in physical order, then the chunk.
template <class T>
struct cascade_attend_arguments {
    cascade_attend_params<T> params;
    batch_shape shape;
    rotary_arguments rotary;
    T* linear_keys;             ///< [batch, kv_head, max_keys, channel]
    T* linear_values;           ///< the same
    T* turned_queries;          ///< extents of queries, packed; with segments [batch, segment, head, channel]
    std::int32_t* lengths;      ///< [batch] cached tokens and the chunk's
    float* sums;                ///< [batch, head, max_keys] attention that each key gets; with segments products by row
    tensor_view<T const, 4> q;  ///< queries as attention reads them
    lse_view lse;               ///< what attention wrote
    double log2_beta;
    std::int32_t key_sets;         ///< sets of KV heads with positions of their own: 1 or kv_heads
    std::int32_t heads_per_block;  ///< query heads that a block scores
    fast_divider set_heads;        ///< KV heads of a set
    fast_divider kv_heads;
    fast_divider heads;
    std::int32_t segments = 0;   ///< runs of rows that a decode step attends to; 0: keys are lined up
    cascade_splits splits = {};  ///< of such a step
    cascade_places<T> places = {};
    std::int32_t group = 1;           ///< query heads of a KV head
    std::int32_t heads_of_set = 1;    ///< query heads that share a set of tokens
    fast_divider head_groups = {};    ///< of the splits
    float* partial_output = nullptr;  ///< fp32 [batch, head, split, channel]
    float* partial_lse = nullptr;     ///< fp32 base 2 [batch, head, split]
    std::int32_t* arrived = nullptr;  ///< [batch, KV head, group of its query heads] splits that are done

    [[nodiscard]] WINNOW_HOST_DEVICE constexpr cascade_chunk chunk(std::int32_t b) const {
        return chunk_of(params.rows, params.sequence, params.cache.sequences, shape.max_queries, b);
    }
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t linear_row(std::int32_t b, std::int32_t kv_head) const {
        return (std::int64_t{b} * shape.kv_heads + kv_head) * shape.max_keys;
    }
};

/// Where the workspace of an insertion lies: for every request and set of tokens.
struct cascade_lists {
    cascade_offer* offered;  ///< [2, tokens] of a sub-cache and the next one
    cascade_offer* winner;   ///< [tokens + 1]
    std::int32_t* appended;  ///< [tokens]
    cascade_move* moves;     ///< [max_moves]
    std::int32_t* move_count;
};

/// Arguments of the kernels of an insertion.
template <class T>
struct cascade_insert_arguments {
    cascade_insert_params<T> params;
    std::int32_t max_tokens;
    std::int32_t max_moves;
    cascade_offer* offered;      ///< [batch, token head, 2, max_tokens]
    cascade_offer* winner;       ///< [batch, token head, max_tokens + 1]
    std::int32_t* appended;      ///< [batch, token head, max_tokens]
    cascade_move* moves;         ///< [batch, token head, max_moves]
    std::int32_t* move_count;    ///< [batch, token head]
    cascade_counters* counters;  ///< [batch] after the chunk
    T* staged;                   ///< [batch, kv_head, max_moves, keys and values, channel]
    rotary_arguments rotary;     ///< of the copy of keys
    cascade_places<T> places;

    [[nodiscard]] WINNOW_HOST_DEVICE constexpr cascade_chunk chunk(std::int32_t b) const {
        return chunk_of(params.rows, params.sequence, params.cache.sequences, max_tokens, b);
    }
    /// Lists of one request and set of tokens.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr cascade_lists lists(std::int32_t b, std::int32_t token_head) const {
        std::int64_t const i = std::int64_t{b} * params.cache.token_heads() + token_head;
        return {offered + i * 2 * max_tokens, winner + i * (std::int64_t{max_tokens} + 1), appended + i * max_tokens,
                moves + i * max_moves, move_count + i};
    }
};

}  // namespace winnow
