// Inserts a chunk into the caches: decides which token ends up in which row, then moves the rows, each once.
//
// Decisions take one block per request and set of tokens, sub-cache after sub-cache (core/cascade_insert.hpp). Rows that
// move inside the cache are staged first: a row may be a source and a target.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_insert.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/kernel/cascade_turn.cuh"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/cascade_rows.cuh"
#include "winnow/tile/block_sum.cuh"

namespace winnow {

/// What a block's threads share. Lists of short chunks lie here, since a decode step waits for every access.
template <int Threads>
struct cascade_decide_storage {
    cascade_counters before, after;
    block_sum_storage<Threads, std::int32_t> sums;
    cascade_offer offered[2 * cascade_decide_tokens];
    cascade_offer winner[cascade_decide_tokens + 1];
    std::int32_t appended[cascade_decide_tokens];
};

/// Lists the offers that `level` appends, and returns how many there are. All threads call; ends with a barrier.
template <int Threads>
WINNOW_DEVICE std::int32_t list_appends(cascade_level const& level, cascade_layout const& layout, std::int32_t index,
                                        std::int64_t seen, std::int32_t* appended,
                                        cascade_decide_storage<Threads>& shared) {
    std::int32_t found = 0;
    for (std::int32_t base = 0; base < level.offers; base += Threads) {
        std::int32_t const k = base + static_cast<std::int32_t>(threadIdx.x);
        bool const appends =
            k < level.offers && level.appends_offer(k, layout.accepts(index, seen + level.offered[k].step));
        auto const sum = block_sum<Threads>(shared.sums, appends ? 1 : 0);
        if (appends) appended[found + sum.before] = k;
        found += sum.all;
    }
    __syncthreads();
    return found;
}

/// Block (set of tokens, request): fills the list of moves, and the counters after the chunk. There are few blocks, so one
/// a multiprocessor will do: without that bound ptxas keeps 128 threads to 40 registers, spills, and takes 4 % more
/// instructions.
template <class T, cascade_decide_threads Threads>
__global__ void __launch_bounds__(static_cast<int>(Threads), 1)
    cascade_decide(cascade_insert_arguments<T> const __grid_constant__ a) {
    constexpr int threads = static_cast<int>(Threads);
    __shared__ cascade_decide_storage<threads> shared;
    ptx::let_later_grid_start();
    std::int32_t const thread = threadIdx.x, token_head = blockIdx.x, b = blockIdx.y;
    cascade_cache<T> const& cache = a.params.cache;
    cascade_layout const& layout = cache.layout;
    cascade_chunk const chunk = a.chunk(b);
    cascade_lists lists = a.lists(b, token_head);
    if (chunk.tokens == 0) {
        if (thread == 0) *lists.move_count = 0;
        return;
    }
    std::int64_t pitch = a.max_tokens;
    if (chunk.tokens <= cascade_decide_tokens) {
        lists.offered = shared.offered, lists.winner = shared.winner, lists.appended = shared.appended;
        pitch = cascade_decide_tokens;
    }
    load_counters(shared.before, cache.counters(chunk.sequence));
    load_counters(shared.after, cache.counters(chunk.sequence));
    __syncthreads();
    std::int64_t const seen = larger<std::int64_t>(shared.before.seen, 0);
    std::int32_t const rows = layout.rows();
    std::int32_t const* const origins = cache.origins(chunk.sequence, token_head);
    float const* const slot_scores = cache.scores(chunk.sequence, token_head);
    auto const move_of = [&](std::int32_t target, cascade_offer const& from) {
        std::int32_t const token = from.source - rows;
        return cascade_move{target, from.source, from.score,
                            token >= 0 ? static_cast<std::int32_t>(seen + token) : origins[from.source - layout.sinks]};
    };

    // Tokens of the chunk: sinks first, the rest is offered to sub-cache 0.
    std::int32_t const sinks =
        static_cast<std::int32_t>(smaller<std::int64_t>(larger<std::int64_t>(layout.sinks - seen, 0), chunk.tokens));
    std::int32_t offers = chunk.tokens - sinks, moves = sinks;
    for (std::int32_t u = thread; u < chunk.tokens; u += threads) {
        float const score =
            a.params.scores.data == nullptr ? 0.0f : a.params.scores(chunk.outer, chunk.first_row + u, token_head);
        cascade_offer const offer{u, rows + u, score};
        if (u < sinks)
            lists.moves[u] = move_of(static_cast<std::int32_t>(seen) + u, offer);
        else
            lists.offered[u - sinks] = offer;
    }
    __syncthreads();
    for (std::int32_t i = 0; i < layout.levels && offers > 0; ++i) {
        cascade_level level = level_of(layout, shared.before, i, slot_scores);
        level.offered = lists.offered + (i & 1) * pitch;
        level.offers = offers;
        level.appended = lists.appended;
        level.winner = lists.winner;
        level.appends = list_appends(level, layout, i, seen, lists.appended, shared);
        for (std::int32_t g = thread; g <= level.appends; g += threads) lists.winner[g] = level.winner_of(g);
        __syncthreads();
        std::int32_t const evicted = level.evicted(), first = level.first_moved();
        cascade_offer* const next = lists.offered + ((i + 1) & 1) * pitch;
        for (std::int32_t x = thread; x < evicted; x += threads) next[x] = level.passed_on(x);
        std::int32_t const end = level.count + level.appends;
        for (std::int32_t x = first + thread; x < end; x += threads)
            lists.moves[moves + x - first] = move_of(level.first_row + level.slot(x), level.entry(x));
        if (thread == 0) {
            shared.after.count[i] = level.next_count();
            shared.after.head[i] = level.next_head();
        }
        moves += larger(end - first, 0);
        offers = evicted;
        __syncthreads();  // the lists have been read
    }
    if (thread != 0) return;
    *lists.move_count = moves;
    if (token_head > 0) return;
    shared.after.seen = seen + chunk.tokens;
    a.counters[b] = shared.after;
}

/// Passes over the moves.
enum class cascade_pass : std::int32_t {
    stage,   ///< rows of the cache that go elsewhere, to the workspace
    place,   ///< all rows to their places, with scores, origins and counters
    at_once  ///< both, and rotated copies, through registers: for so few moves that one block holds them all
};

/// A vector of a row that moves.
struct cascade_vector {
    std::int32_t row;      ///< of the block
    bool key;              ///< of keys, or of values
    std::int32_t channel;  ///< first one
};

/// Block (group of moves, KV head, request).
template <class T, cascade_pass Pass>
__global__ void __launch_bounds__(cascade_move_threads)
    cascade_move_rows(cascade_insert_arguments<T> const __grid_constant__ a) {
    constexpr int rows_of_block = Pass == cascade_pass::at_once ? cascade_moves_at_once : cascade_move_rows_of_block;
    ptx::let_later_grid_start();
    ptx::wait_for_earlier_grids();
    std::int32_t const thread = threadIdx.x, first = blockIdx.x * rows_of_block, kv_head = blockIdx.y, b = blockIdx.z;
    cascade_cache<T> const& cache = a.params.cache;
    cascade_chunk const chunk = a.chunk(b);
    if (chunk.tokens == 0) return;
    std::int32_t const token_head = cache.token_head_of(kv_head), sinks = cache.layout.sinks;
    cascade_lists const lists = a.lists(b, token_head);
    if (Pass != cascade_pass::stage && first == 0 && kv_head == 0)
        load_counters(*cache.counters(chunk.sequence), a.counters + b);
    std::int32_t const rows = smaller<std::int32_t>(*lists.move_count - first, rows_of_block);
    if (rows <= 0) return;

    std::int64_t const channels = cache.head_dim;
    std::int32_t const shift = 31 - __clz(cache.head_dim / 8), items = rows << (shift + 1);
    auto const vector_of = [&](std::int32_t i) {
        return cascade_vector{i >> (shift + 1), ((i >> shift) & 1) == 0, (i & ((1 << shift) - 1)) * 8};
    };
    auto const cached = [&](cascade_vector const& v, std::int32_t row) {
        T* const rows = v.key ? cache.keys(chunk.sequence, kv_head) : cache.values(chunk.sequence, kv_head);
        return reinterpret_cast<uint4*>(rows + row * channels + v.channel);
    };
    auto const staged = [&](cascade_vector const& v) {
        std::int64_t const row = (std::int64_t{b} * cache.kv_heads + kv_head) * a.max_moves + first + v.row;
        return reinterpret_cast<uint4*>(a.staged + (row * 2 + !v.key) * channels + v.channel);
    };
    auto const given = [&](cascade_vector const& v, std::int32_t token) {
        auto const& from = v.key ? a.params.keys : a.params.values;
        return reinterpret_cast<uint4 const*>(from.data + from.offset(chunk.outer, chunk.first_row + token, kv_head) +
                                              v.channel);
    };
    auto const token_of = [&](cascade_move const& move) { return move.source - cache.layout.rows(); };

    if constexpr (Pass == cascade_pass::at_once) {
        constexpr int most = cascade_moves_at_once * 2 * cascade_max_vectors / cascade_move_threads;
        uint4 held[most];
        WINNOW_UNROLL
        for (int n = 0; n < most; ++n) {
            std::int32_t const i = thread + n * cascade_move_threads;
            if (i >= items) break;
            cascade_vector const v = vector_of(i);
            cascade_move const move = lists.moves[v.row];
            held[n] = token_of(move) < 0 ? *cached(v, move.source) : *given(v, token_of(move));
        }
        __syncthreads();  // every source has been read
        WINNOW_UNROLL
        for (int n = 0; n < most; ++n) {
            std::int32_t const i = thread + n * cascade_move_threads;
            if (i >= items) break;
            cascade_vector const v = vector_of(i);
            *cached(v, lists.moves[v.row].target) = held[n];
        }
        if (cache.has_rotated()) {
            __shared__ cascade_turns turns;
            std::int32_t const per_turn = cascade_gather_rows_of(a.rotary.rotation.pairs(cache.head_dim));
            for (std::int32_t begin = 0; begin < rows; begin += per_turn) {
                __syncthreads();  // keys are in their places, and nobody reads the last rotations any more
                turn_moves(a, chunk, kv_head, lists.moves + begin, smaller(rows - begin, per_turn), turns);
            }
        }
    } else {
        for (std::int32_t i = thread; i < items; i += cascade_move_threads) {
            cascade_vector const v = vector_of(i);
            cascade_move const move = lists.moves[first + v.row];
            std::int32_t const token = token_of(move);
            if constexpr (Pass == cascade_pass::stage) {
                if (token < 0) *staged(v) = *cached(v, move.source);
            } else {
                *cached(v, move.target) = token < 0 ? *staged(v) : *given(v, token);
            }
        }
    }
    bool const speaks = cache.heads == cascade_heads::per_kv_head || kv_head == 0;  // for its set of tokens
    if (Pass == cascade_pass::stage || !speaks || thread >= rows) return;
    cascade_move const move = lists.moves[first + thread];
    if (move.target < sinks) return;
    cache.scores(chunk.sequence, token_head)[move.target - sinks] = move.score;
    cache.origins(chunk.sequence, token_head)[move.target - sinks] = move.origin;
}

}  // namespace winnow
