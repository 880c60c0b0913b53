// The kernels around the attention of one token over a cache that holds a rotated copy of its keys, so that nothing is
// lined up.
//
// A cached key is rotated by its row, which does not change while it stays there. In a run of rows whose positions
// ascend with them (cascade_segment) row and position differ by one number, so rotating the query by
// (its position + that number) makes all differences right: a query for each segment instead of a pass over the keys.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/kernel/cascade_columns.cuh"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/cascade_rows.cuh"
#include "winnow/stage/rotate_rows.cuh"

namespace winnow {

/// Block (segment, request): rotates the queries for it; the last segment is the new token. Two more take the token's key and
/// value to the row behind the slots.
template <class T>
__global__ void __launch_bounds__(cascade_gather_threads)
    cascade_segments(cascade_attend_arguments<T> const __grid_constant__ a) {
    __shared__ cascade_turns turns;
    __shared__ cascade_counters counters;
    constexpr int threads = cascade_gather_threads;
    ptx::let_later_grid_start();
    cascade_attend_params<T> const& p = a.params;
    std::int32_t const index = blockIdx.x, b = blockIdx.y, thread = threadIdx.x;
    std::int32_t const part = b * a.segments + index, tiles = a.shape.kv_heads * a.splits.head_groups;
    if (index == 0) {
#pragma unroll 1
        for (std::int32_t i = thread; i < tiles; i += threads) a.arrived[std::int64_t{b} * tiles + i] = 0;
    }
    cascade_chunk const chunk = a.chunk(b);
    if (chunk.tokens == 0) return;
    load_counters(counters, a.places.counters(chunk.sequence));
    bool const is_key = index == a.segments, is_value = index > a.segments;
    bool const rotates = !is_value && !a.rotary.rotation.empty();
    vector_columns const columns{a.shape.head_dim / vector_channels,
                                 a.rotary.rotation.pairs(a.shape.head_dim) / vector_channels};
    if (rotates) fill_turns<threads>(a.rotary, columns, threads - 1 - thread, turns.turns);  // others wait for counters
    __syncthreads();
    if (thread == 0) {
        cascade_layout const& layout = p.cache.layout;
        // The token's own key is rotated by its position, and so is the query for it.
        std::int32_t const origin = index < a.segments - 1 ? segment_at(layout, counters, index).row_origin : 0;
        turns.position[0] = p.positions == cascade_positions::original ? static_cast<std::int32_t>(counters.seen)
                                                                       : live_tokens(layout, counters) + origin;
    }
    __syncthreads();
    if (rotates) {
        turn_positions<threads>(a.rotary, 1, turns.position, turns.turns, turns.rotation);
        __syncthreads();
    }
    tensor_view<T const, 4> const& source = is_value ? p.values : is_key ? p.keys : p.queries;
    std::int64_t const channels = a.shape.head_dim, row = a.places.rows * channels;
    T const* const from = source.data + source.offset(chunk.outer, chunk.first_row);
    T* const to = is_value ? a.places.values(chunk.sequence, 0) + row
                  : is_key ? a.places.rotated(chunk.sequence, 0) + row
                           : a.turned_queries + std::int64_t{part} * a.shape.heads * channels;
    std::int64_t const from_head = source.stride[2], to_head = is_key || is_value ? a.places.head_elements : channels;
    std::int32_t const heads = is_key || is_value ? a.shape.kv_heads : a.shape.heads;
    std::int32_t const shift = 31 - __clz(columns.count());
#pragma unroll 1
    for (std::int32_t i = thread; i < heads << shift; i += threads) {
        std::int32_t const column = i & (columns.count() - 1), head = i >> shift;
        move_pair(a.rotary, columns, turns.rotation, 0, column, from + head * from_head, to + head * to_head, rotates);
    }
}

/// Attention that `heads` <= cascade_token_heads query heads from `first_head` on give to this thread's key, in a column of
/// `probability`. Trips to memory are for many heads at a time. All threads call, `reads` says whose products there are.
template <class T>
WINNOW_DEVICE void load_probabilities(float (&probability)[cascade_token_heads][cascade_token_threads],
                                      float (&offset)[cascade_token_heads], cascade_attend_arguments<T> const& a,
                                      cascade_chunk const& chunk, std::int32_t first_head, std::int32_t heads,
                                      float const* products, bool reads) {
    constexpr int at_a_time = 8;
    float product[at_a_time];
    auto const load = [&](std::int32_t begin) {
        WINNOW_UNROLL
        for (int i = 0; i < at_a_time; ++i)
            product[i] = reads && begin + i < heads ? products[std::int64_t{begin + i} * a.shape.max_keys] : 0.0f;
    };
    load(0);
    std::int32_t const thread = threadIdx.x;
    if (thread < heads) offset[thread] = query_offset(a, chunk, first_head + thread, 0);
    __syncthreads();
    float const c = a.params.scale * log2_e;
    for (std::int32_t begin = 0; begin < heads; begin += at_a_time) {
        WINNOW_UNROLL
        for (int i = 0; i < at_a_time; ++i)
            if (begin + i < heads)
                probability[begin + i][thread] = ptx::exp2_fast(fmaf(product[i], c, offset[begin + i]));
        if (begin + at_a_time < heads) load(begin + at_a_time);
    }
}

/// Scores from the products that attention has left: one thread per slot, and one for the token. Block (group of rows,
/// set of tokens, request).
template <class T>
__global__ void __launch_bounds__(cascade_token_threads, cascade_token_blocks)
    cascade_score_token(cascade_attend_arguments<T> const __grid_constant__ a) {
    __shared__ cascade_counters counters;
    __shared__ float offset[cascade_token_heads];
    __shared__ float probability[cascade_token_heads][cascade_token_threads];
    ptx::let_later_grid_start();
    cascade_attend_params<T> const& p = a.params;
    cascade_cache<T> const& cache = p.cache;
    std::int32_t const b = blockIdx.z, token_head = blockIdx.y, sinks = cache.layout.sinks;
    std::int32_t const row = sinks + blockIdx.x * cascade_token_threads + threadIdx.x, token = a.places.rows;
    cascade_chunk const chunk = a.chunk(b);
    if (chunk.tokens > 0) load_counters(counters, a.places.counters(chunk.sequence));
    __syncthreads();
    bool const held = chunk.tokens > 0 && row < token && holds_token(cache.layout, counters, row);
    float* const old = a.places.scores(larger(chunk.sequence, 0), token_head) + row - sinks;
    float const before = held ? *old : 0.0f;  // nobody else writes it
    float const fade = exp2f(static_cast<float>(a.log2_beta));
    ptx::wait_for_earlier_grids();
    if (chunk.tokens == 0) return;
    bool const scored = held || row == token;
    std::int32_t const heads = a.heads_of_set, first_head = token_head * heads;
    float const* const products = a.sums + (std::int64_t{b} * a.shape.heads + first_head) * a.shape.max_keys + row;
    if (heads <= cascade_token_heads)
        load_probabilities(probability, offset, a, chunk, first_head, heads, products, scored);
    if (!scored) return;
    float const score = reduce_heads(p.scorer.reduction, heads, [&](std::int32_t head) {
        if (heads <= cascade_token_heads) return probability[head][threadIdx.x];
        float const product = products[std::int64_t{head} * a.shape.max_keys];
        return ptx::exp2_fast(fmaf(product, p.scale * log2_e, query_offset(a, chunk, first_head + head, 0)));
    });
    if (row == token)
        p.scores(chunk.outer, chunk.first_row, token_head) = score;
    else
        *old = fmaf(before, fade, score);
}

}  // namespace winnow
