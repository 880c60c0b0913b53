// What the cascade operators are asked to do: the cache in the caller's memory, a chunk of tokens, scores.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/partial.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/core/tensor_view.hpp"
#include "winnow/core/workspace.hpp"

namespace winnow {

/// Which heads agree on the tokens that they keep.
enum class cascade_heads : std::int32_t {
    per_kv_head,  ///< each KV head keeps its own
    shared        ///< all KV heads of a sequence keep the same
};

/// What a cache stores of keys.
enum class cascade_keys : std::int32_t {
    unrotated,    ///< rotated anew for every chunk
    with_rotated  ///< and a rotated copy, which decode steps read where it lies; half as much memory again
};

/// Positions that keys and queries are rotated by.
enum class cascade_positions : std::int32_t {
    cached,   ///< index among the cached tokens from oldest to newest: never beyond sinks + slots + chunk
    original  ///< index in the sequence, as if nothing had been dropped
};

/// How the scores of the query heads that share tokens become one.
enum class cascade_reduction : std::int32_t {
    max,    ///< the highest
    mean,   ///< the average
    median  ///< the middle one; of an even number the lower of the two
};

/// Reduces `of(0)`, ..., `of(count - 1)`.
template <class Of>
WINNOW_HOST_DEVICE constexpr auto reduce_heads(cascade_reduction reduction, std::int32_t count, Of const& of) {
    auto result = of(0);
    if (reduction == cascade_reduction::median) {
        for (std::int32_t i = 0; i < count; ++i) {
            auto const x = of(i);
            std::int32_t lower = 0;
            for (std::int32_t j = 0; j < count; ++j) lower += of(j) < x || (of(j) == x && j < i) ? 1 : 0;
            if (lower == (count - 1) / 2) result = x;
        }
        return result;
    }
    for (std::int32_t i = 1; i < count; ++i)
        result = reduction == cascade_reduction::mean ? result + of(i) : larger(result, of(i));
    return reduction == cascade_reduction::mean ? result / static_cast<float>(count) : result;
}

/// Every query row of a chunk counts: exact scores.
struct all_queries {};

/// Only the last Count rows of a chunk count: an estimate, whose cost does not grow with the chunk.
template <std::int32_t Count>
struct last_queries {
    static_assert(Count > 0, "some rows must count");
};

/// How tokens are scored: the attention that they get, summed over query rows with weights beta^(rows that follow), one
/// query head at a time, then reduced over heads. Old scores fade by beta^rows.
struct cascade_scorer {
    std::int32_t rows = 0;  ///< last rows of a chunk that count; 0: all
    double beta = 0.9999;   ///< in (0, 1]; half of a score is forgotten after ln(1/2) / ln(beta) tokens
    cascade_reduction reduction = cascade_reduction::max;  ///< over heads

    constexpr cascade_scorer() = default;
    /// Exact, or an estimate: `{all_queries{}, beta, reduction}`.
    WINNOW_HOST_DEVICE constexpr cascade_scorer(all_queries, double beta_ = 0.9999,
                                                cascade_reduction reduction_ = cascade_reduction::max)
        : beta(beta_), reduction(reduction_) {}
    /// The estimate: `{last_queries<128>{}, beta, reduction}`.
    template <std::int32_t Count>
    WINNOW_HOST_DEVICE constexpr cascade_scorer(last_queries<Count>, double beta_ = 0.9999,
                                                cascade_reduction reduction_ = cascade_reduction::max)
        : rows(Count), beta(beta_), reduction(reduction_) {}

    /// Rows of a chunk of `tokens` that count.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t counted(std::int32_t tokens) const {
        return rows > 0 ? smaller(rows, tokens) : tokens;
    }
};

/// Alignment of every part of a sequence's memory: a multiple of a row of keys, so that all of them lie on one grid.
inline constexpr std::int64_t cascade_alignment = 512;

/// Caches of some sequences, in memory that the caller owns: cascade_bytes(cache) bytes, aligned to
/// workspace_alignment. A sequence whose counters are zero is empty, whatever else its memory holds: zero all of it
/// once, or reset each sequence before its first use. Keys are stored unrotated.
///
/// A sequence's memory is one piece of sequence_bytes(): copying it copies the sequence (fork).
template <class T>
struct cascade_cache {
    void* memory = nullptr;                            ///< device pointer (for reference::, host)
    cascade_layout layout = {};                        ///< sinks and sub-caches, the same for all sequences
    std::int32_t sequences = 0;                        ///< sequences that there is memory for
    std::int32_t kv_heads = 0;                         ///< key/value heads
    std::int32_t head_dim = 0;                         ///< channels of a head
    cascade_heads heads = cascade_heads::per_kv_head;  ///< which of them agree on tokens
    cascade_keys stored = cascade_keys::unrotated;     ///< what is stored of keys

    /// Sets of tokens that a sequence keeps.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t token_heads() const {
        return heads == cascade_heads::shared ? 1 : kv_heads;
    }
    /// The set that a KV head keeps.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t token_head_of(std::int32_t kv_head) const {
        return heads == cascade_heads::shared ? 0 : kv_head;
    }
    /// True if there is a rotated copy of keys.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool has_rotated() const { return stored == cascade_keys::with_rotated; }
    /// Rows of one head: sinks, slots, and where decode steps read keys as they lie, one for the token that is not in
    /// the cache yet.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t stored_rows() const {
        return layout.rows() + (has_rotated() ? 1 : 0);
    }
    /// Bytes of the keys of a sequence, of its values, and of its rotated keys.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t row_bytes() const {
        return round_up(std::int64_t{kv_heads} * stored_rows() * head_dim * static_cast<std::int64_t>(sizeof(T)),
                        cascade_alignment);
    }
    /// Bytes of the scores of a sequence, and of its origins.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t slot_bytes() const {
        return round_up(std::int64_t{token_heads()} * layout.slots() * 4, cascade_alignment);
    }
    /// Bytes of one sequence.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t sequence_bytes() const {
        return counter_bytes + (has_rotated() ? 3 : 2) * row_bytes() + 2 * slot_bytes();
    }
    /// The same in rows of one head.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t sequence_rows() const {
        return sequence_bytes() / (head_dim * static_cast<std::int64_t>(sizeof(T)));
    }
    /// Counters of a sequence, at the start of its memory.
    [[nodiscard]] WINNOW_HOST_DEVICE cascade_counters* counters(std::int32_t sequence) const {
        return reinterpret_cast<cascade_counters*>(static_cast<char*>(memory) + sequence * sequence_bytes());
    }
    /// Keys of a sequence and head: [row, channel], packed.
    [[nodiscard]] WINNOW_HOST_DEVICE T* keys(std::int32_t sequence, std::int32_t kv_head) const {
        return at<T>(sequence, counter_bytes) + std::int64_t{kv_head} * stored_rows() * head_dim;
    }
    /// Values of a sequence and head: [row, channel], packed.
    [[nodiscard]] WINNOW_HOST_DEVICE T* values(std::int32_t sequence, std::int32_t kv_head) const {
        return at<T>(sequence, counter_bytes + row_bytes()) + std::int64_t{kv_head} * stored_rows() * head_dim;
    }
    /// Scores of a set of tokens: [slot].
    [[nodiscard]] WINNOW_HOST_DEVICE float* scores(std::int32_t sequence, std::int32_t token_head) const {
        return at<float>(sequence, counter_bytes + 2 * row_bytes()) + std::int64_t{token_head} * layout.slots();
    }
    /// Indices in the sequence, from 0 and modulo 2^32, of a set of tokens: [slot].
    [[nodiscard]] WINNOW_HOST_DEVICE std::int32_t* origins(std::int32_t sequence, std::int32_t token_head) const {
        return at<std::int32_t>(sequence, counter_bytes + 2 * row_bytes() + slot_bytes()) +
               std::int64_t{token_head} * layout.slots();
    }
    /// The rotated copy of keys(), if there is one.
    [[nodiscard]] WINNOW_HOST_DEVICE T* rotated(std::int32_t sequence, std::int32_t kv_head) const {
        return at<T>(sequence, counter_bytes + 2 * row_bytes() + 2 * slot_bytes()) +
               std::int64_t{kv_head} * stored_rows() * head_dim;
    }

    static constexpr std::int64_t counter_bytes = cascade_alignment;  ///< what the counters take

private:
    static_assert(sizeof(cascade_counters) <= cascade_alignment, "the counters fit their place");
    template <class U>
    [[nodiscard]] WINNOW_HOST_DEVICE U* at(std::int32_t sequence, std::int64_t offset) const {
        return reinterpret_cast<U*>(static_cast<char*>(memory) + sequence * sequence_bytes() + offset);
    }
};

/// Bytes of the caches' memory, exactly.
template <class T>
constexpr std::size_t cascade_bytes(cascade_cache<T> const& cache) {
    return static_cast<std::size_t>(cache.sequences) * static_cast<std::size_t>(cache.sequence_bytes());
}

/// One request of a batch: its sequence in the cache, and its rows in the chunk's tensors.
struct cascade_chunk {
    std::int32_t sequence;   ///< below 0: padding, without tokens
    std::int32_t outer;      ///< index on axis 0
    std::int32_t first_row;  ///< index on axis 1
    std::int32_t tokens;     ///< of the chunk
};

/// Request `b`; bad lengths and sequences are clamped or dropped.
WINNOW_HOST_DEVICE constexpr cascade_chunk chunk_of(query_index const& rows, std::int32_t const* sequence,
                                                    std::int32_t sequences, std::int32_t max_tokens, std::int32_t b) {
    std::int32_t const s = sequence == nullptr ? b : sequence[b];
    cascade_chunk chunk{s >= 0 && s < sequences ? s : -1, b, 0, max_tokens};
    if (rows.start != nullptr) {
        chunk.outer = 0;
        chunk.first_row = rows.start[b];
        chunk.tokens = smaller(larger(rows.start[b + 1] - rows.start[b], 0), max_tokens);
    }
    if (chunk.sequence < 0) chunk.tokens = 0;
    return chunk;
}

/// Attention of a chunk of tokens over the cache and over itself: row m sees every cached token and tokens 0 .. m of the
/// chunk. T is bf16 or fp16. Keys and values of the chunk are not in the cache yet: cascade_insert puts them there
/// afterwards. A request whose sequence is padding gives output 0 and lse -inf.
template <class T>
struct cascade_attend_params {
    tensor_view<T const, 4> queries =
        {};                             ///< [batch, token, head, channel]; ragged: [1, row, head, channel] with `rows`
    tensor_view<T const, 4> keys = {};  ///< [batch | 1, token, kv_head, channel] of the same tokens, not rotated
    tensor_view<T const, 4> values = {};  ///< axes of keys, own strides
    query_index rows = {};                ///< chunks of different lengths; default one row range per batch entry
    cascade_cache<T> cache =
        {};  ///< read, but for scores of slots where `scores` is given, and where there is a rotated
             ///< copy the row behind the slots
    std::int32_t const* sequence = nullptr;  ///< [batch] sequence of each request, no two alike; outside
                                             ///< [0, sequences): padding. Null: sequence = request
    tensor_view<T, 4> output = {};           ///< axes of queries
    lse_view lse = {};                       ///< [batch, token, head]; optional
    float scale = 0;                         ///< of the scores, usually 1 / sqrt(head_dim); must be > 0
    rope rotation = {};                      ///< of keys and queries; default none
    cascade_positions positions = cascade_positions::cached;  ///< what they are rotated by
    tensor_view<float, 3> scores =
        {};                      ///< [batch, token, token head] of the chunk's tokens, written; optional: without
                                 ///< them nothing is scored and the cache stays as it is
    cascade_scorer scorer = {};  ///< how tokens are scored

    /// Extents that plans are made from; max_keys counts the cache and the chunk.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr batch_shape shape() const {
        batch_shape s = shape_of<T>(queries, rows, keys, {});
        s.max_keys = cache.layout.rows() + s.max_queries;
        return s;
    }
    /// True if tokens are to be scored.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool takes_scores() const { return scores.data != nullptr; }
};

/// Puts the tokens of a chunk, one after the other, into the cache.
template <class T>
struct cascade_insert_params {
    tensor_view<T const, 4> keys = {};       ///< [batch | 1, token, kv_head, channel], not rotated
    tensor_view<T const, 4> values = {};     ///< axes of keys, own strides
    query_index rows = {};                   ///< as in cascade_attend_params
    cascade_cache<T> cache = {};             ///< changed in place
    std::int32_t const* sequence = nullptr;  ///< as in cascade_attend_params
    tensor_view<float const, 3> scores =
        {};  ///< [batch, token, token head], as cascade_attend writes them; optional: without them all are 0
    rope rotation = {};  ///< with a rotated copy of keys: what cascade_attend is given, always the same
    cascade_positions positions = cascade_positions::cached;  ///< likewise

    /// Requests.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t batch() const {
        return rows.start != nullptr ? rows.batch : static_cast<std::int32_t>(keys.extent[0]);
    }
    /// Tokens of one request at most.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t max_tokens() const {
        return rows.start != nullptr ? rows.max_length : static_cast<std::int32_t>(keys.extent[1]);
    }
};

/// Whole sequences, chunk by chunk: attend, score where the layout selects, insert.
template <class T>
struct cascade_prefill_params {
    tensor_view<T const, 4> queries = {};                     ///< [batch, token, head, channel]
    tensor_view<T const, 4> keys = {};                        ///< [batch, token, kv_head, channel], not rotated
    tensor_view<T const, 4> values = {};                      ///< axes of keys, own strides
    cascade_cache<T> cache = {};                              ///< where the sequences go on; empty for new ones
    std::int32_t const* sequence = nullptr;                   ///< as in cascade_attend_params
    tensor_view<T, 4> output = {};                            ///< axes of queries
    lse_view lse = {};                                        ///< [batch, token, head]; optional
    float scale = 0;                                          ///< as in cascade_attend_params
    rope rotation = {};                                       ///< of keys and queries; default none
    cascade_positions positions = cascade_positions::cached;  ///< what they are rotated by
    cascade_scorer scorer = {};                               ///< how tokens are scored
    std::int32_t chunk = 4096;                                ///< tokens of a chunk; the last one may be shorter
};

}  // namespace winnow
