// Inserts one token a request, a decode step's, in one kernel: a warp decides for a set of tokens, a lane for a sub-cache
// (see cascade_single), and the block moves the rows of all heads.
//
// A block has a request, so that nobody else reads what it writes: counters, and scores where heads share tokens.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_insert.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/stage/cascade_rows.cuh"
#include "winnow/stage/rotate_rows.cuh"

namespace winnow {

/// What a block's threads share.
struct cascade_insert_storage {
    static constexpr int sets = cascade_insert_token_threads / 32;   ///< sets of tokens at a time, a warp for each
    std::uint64_t turns[4 * cascade_max_vectors];                    ///< see fill_turns
    cascade_move moves[sets][max_cascade_levels];                    ///< of each sub-cache; target < 0: none
    float2 rotation[vector_channels][cascade_insert_token_threads];  ///< a column is its thread's alone
};

/// What a lane knows of its sub-cache once the token has been decided on.
struct cascade_decision {
    std::int64_t seen;     ///< tokens before this one
    std::int32_t reached;  ///< sub-caches that are offered one: the same for all sets. 1 for a sink
    std::int32_t next_count, next_head;
    bool counts;  ///< the two change
};

/// A warp decides for set `token_head` of tokens, and only looks at the counters where there is no such set. Scores and
/// origins go to their places.
template <class T>
WINNOW_DEVICE cascade_decision decide_token(cascade_insert_arguments<T> const& a, cascade_insert_storage& shared,
                                            cascade_chunk const& chunk, std::int32_t token_head) {
    cascade_cache<T> const& cache = a.params.cache;
    cascade_layout const& layout = cache.layout;
    cascade_counters const& counters = *a.places.counters(chunk.sequence);
    std::int32_t const lane = threadIdx.x % 32, sinks = layout.sinks;
    std::int64_t const seen = larger<std::int64_t>(counters.seen, 0);
    bool const exists = token_head < cache.token_heads(), to_sink = seen < sinks;
    bool const here = lane < layout.levels && !to_sink;
    cascade_single const level = single_of(layout, counters, lane < layout.levels ? lane : 0);
    std::int32_t const last = __ffs(__ballot_sync(~0u, !here || !level.evicts)) - 1;  // takes it, or it is lost behind
    std::int32_t const reached = to_sink ? 1 : smaller(last + 1, layout.levels);
    bool const offered = lane < reached;
    cascade_decision const decision{seen, reached, level.next_count, level.next_head, here && offered};
    if (!exists) return decision;

    float* const scores = a.places.scores(chunk.sequence, token_head);
    std::int32_t* const origins = a.places.origins(chunk.sequence, token_head);
    bool const given = a.params.scores.data != nullptr;
    float const token_score = given ? a.params.scores(chunk.outer, chunk.first_row, token_head) : 0.0f;
    float const resident = here && !level.appends ? scores[level.target - sinks] : 0.0f;
    cascade_move leaving{-1, level.oldest, 0.0f, 0};
    if (here && level.evicts)
        leaving.score = scores[level.oldest - sinks], leaving.origin = origins[level.oldest - sinks];
    cascade_move move{level.target, __shfl_up_sync(~0u, leaving.source, 1), __shfl_up_sync(~0u, leaving.score, 1),
                      __shfl_up_sync(~0u, leaving.origin, 1)};
    if (lane == 0) move.source = a.places.rows, move.score = token_score, move.origin = static_cast<std::int32_t>(seen);
    if (to_sink) move.target = static_cast<std::int32_t>(seen);
    bool const takes = offered && (to_sink || level.appends || beats(move.score, resident));
    if (takes && !to_sink) scores[move.target - sinks] = move.score, origins[move.target - sinks] = move.origin;
    if (!takes) move.target = -1;
    if (lane < max_cascade_levels) shared.moves[threadIdx.x / 32][lane] = move;
    return decision;
}

/// Two vectors of a row that moves.
struct cascade_pair_place {
    std::int32_t head;  ///< of those that move at a time
    std::int32_t move;
    bool key;  ///< of keys, or of values
    std::int32_t column;
};

/// Block (request).
template <class T>
__global__ void __launch_bounds__(cascade_insert_token_threads)
    cascade_insert_token(cascade_insert_arguments<T> const __grid_constant__ a) {
    __shared__ cascade_insert_storage shared;
    constexpr int threads = cascade_insert_token_threads, vector_bytes = vector_channels * sizeof(T);
    static_assert(threads >= max_cascade_levels * cascade_max_vectors, "all that moves of one head is held at a time");
    static_assert(vector_bytes == sizeof(uint4));
    cascade_cache<T> const& cache = a.params.cache;
    std::int32_t const thread = threadIdx.x, warp = thread / 32;
    cascade_chunk const chunk = a.chunk(blockIdx.x);
    if (chunk.tokens == 0) return;
    std::int32_t const pairs = a.rotary.rotation.pairs(cache.head_dim), rows = a.places.rows;
    vector_columns const columns{cache.head_dim / vector_channels, pairs / vector_channels};

    cascade_decision first{};
    bool const each = cache.heads == cascade_heads::per_kv_head;
    std::int32_t const shift = 31 - __clz(columns.count());
    for (std::int32_t set = 0; set < cache.token_heads(); set += cascade_insert_storage::sets) {
        cascade_decision const decision = decide_token(a, shared, chunk, set + warp);
        if (set == 0) first = decision;
        std::int32_t const reached = decision.reached;
        if (set == 0 && cache.has_rotated() && pairs > 0)  // warps that have nothing to decide, where there are any
            fill_turns<threads>(a.rotary, columns, threads - 1 - thread, shared.turns);
        __syncthreads();
        std::int32_t const first_head = each ? set : 0;
        std::int32_t const heads = each ? smaller(cache.kv_heads - set, cascade_insert_storage::sets) : cache.kv_heads;
        std::int32_t const items_of_head = reached << (shift + 1), at_a_time = threads / items_of_head;
        cascade_pair_place at;
        at.head = thread / items_of_head;
        std::int32_t const inside = thread - at.head * items_of_head;
        at.move = inside >> (shift + 1), at.key = ((inside >> shift) & 1) == 0, at.column = inside & ((1 << shift) - 1);
        std::int32_t const low = columns.first(at.column) * vector_channels;
        std::int32_t const high = columns.second(at.column) * vector_channels;
        for (std::int32_t head = at.head; head - at.head < heads; head += at_a_time) {
            std::int32_t const kv_head = first_head + head;
            bool const exists = at.head < at_a_time && head < heads;
            cascade_move const move = shared.moves[exists && each ? head : 0][at.move];
            bool const moves = exists && move.target >= 0;
            T* to = nullptr;
            vector_pair pair{};
            if (moves) {
                auto const& chunk_rows = at.key ? a.params.keys : a.params.values;
                to = at.key ? a.places.keys(chunk.sequence, kv_head) : a.places.values(chunk.sequence, kv_head);
                T const* const from = move.source < rows
                                          ? to + std::int64_t{move.source} * cache.head_dim
                                          : chunk_rows.data + chunk_rows.offset(chunk.outer, chunk.first_row, kv_head);
                pair.first = *reinterpret_cast<uint4 const*>(from + low);
                pair.second = *reinterpret_cast<uint4 const*>(from + high);
                to += std::int64_t{move.target} * cache.head_dim;
            }
            bool const copies = moves && at.key && cache.has_rotated(), turns = copies && at.column < columns.rotary;
            if (turns) {  // while the row is under way; one copy of the code, which has to come from memory as well
                bool const by_index = a.params.positions == cascade_positions::original;
                std::int32_t const position = by_index ? move.origin : move.target;
#pragma unroll 1
                for (int k = 0; k < vector_channels; ++k)
                    shared.rotation[k][thread] =
                        rotation_by(half_turns(shared.turns[k * columns.rotary + at.column], position));
            }
            __syncthreads();  // all sources of these heads have been read
            if (!moves) continue;
            *reinterpret_cast<uint4*>(to + low) = pair.first;
            *reinterpret_cast<uint4*>(to + high) = pair.second;
            if (!copies) continue;
            if (turns) {
                auto const turn = [&](int k) { return shared.rotation[k][thread]; };
                if (a.rotary.rotation.pairing == rope_pairing::halves)
                    rotate_halves<T>(pair.first, pair.second, turn);
                else
                    rotate_adjacent<T>(pair.first, pair.second, turn);
            }
            T* const copy = a.places.rotated(chunk.sequence, kv_head) + std::int64_t{move.target} * cache.head_dim;
            *reinterpret_cast<uint4*>(copy + low) = pair.first;
            *reinterpret_cast<uint4*>(copy + high) = pair.second;
        }
        __syncthreads();  // nobody reads these moves any more
    }
    if (warp > 0) return;
    cascade_counters& counters = *a.places.counters(chunk.sequence);  // which all have read
    if (thread == 0) counters.seen = first.seen + 1;
    if (first.counts) counters.count[thread] = first.next_count, counters.head[thread] = first.next_head;
}

}  // namespace winnow
