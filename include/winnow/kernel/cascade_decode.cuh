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

/// Copies one row of `heads` heads, rotated where `rotates` is true.
template <class T>
WINNOW_DEVICE void copy_heads(rotary_arguments const& rotary, vector_columns const& columns, cascade_turns const& turns,
                              T const* from, std::int64_t from_head, T* to, std::int64_t to_head, std::int32_t heads,
                              bool rotates) {
    std::int32_t const shift = 31 - __clz(columns.count());
    for (std::int32_t i = threadIdx.x; i < heads << shift; i += cascade_gather_threads) {
        std::int32_t const column = i & (columns.count() - 1), head = i >> shift;
        move_pair(rotary, columns, turns.rotation, 0, column, from + head * from_head, to + head * to_head, rotates);
    }
}

/// Block (segment, request): rotates the queries for it. The last segment is the new token, which goes to the row behind
/// the slots.
template <class T>
__global__ void __launch_bounds__(cascade_gather_threads)
    cascade_segments(cascade_attend_arguments<T> const __grid_constant__ a) {
    __shared__ cascade_turns turns;
    __shared__ cascade_counters counters;
    ptx::let_later_grid_start();
    cascade_attend_params<T> const& p = a.params;
    cascade_cache<T> const& cache = p.cache;
    std::int32_t const index = blockIdx.x, b = blockIdx.y, segments = gridDim.x;
    std::int32_t const part = b * segments + index, tiles = a.shape.kv_heads * a.splits.head_groups;
    if (index == 0)
        for (std::int32_t i = threadIdx.x; i < tiles; i += cascade_gather_threads)
            a.arrived[std::int64_t{b} * tiles + i] = 0;
    cascade_chunk const chunk = a.chunk(b);
    if (chunk.tokens == 0) return;
    load_counters(counters, a.places.counters(chunk.sequence));
    __syncthreads();
    bool const token = index == segments - 1;
    if (threadIdx.x == 0) {
        std::int32_t const cached = live_tokens(cache.layout, counters);
        std::int32_t const origin = token ? 0 : segment_at(cache.layout, counters, index).row_origin;
        // The token's own key is rotated by its position, and so is the query for it.
        turns.position[0] =
            p.positions == cascade_positions::original ? static_cast<std::int32_t>(counters.seen) : cached + origin;
    }
    __syncthreads();
    bool const rotates = !a.rotary.rotation.empty();
    vector_columns const columns{a.shape.head_dim / vector_channels,
                                 a.rotary.rotation.pairs(a.shape.head_dim) / vector_channels};
    if (rotates) {
        fill_rotations<cascade_gather_threads>(a.rotary, columns, 1, turns.position, turns.turns, turns.rotation);
        __syncthreads();
    }
    std::int64_t const channels = a.shape.head_dim, row = a.places.rows * channels;
    std::int64_t const head = a.places.head_elements;
    copy_heads(a.rotary, columns, turns, p.queries.data + p.queries.offset(chunk.outer, chunk.first_row),
               p.queries.stride[2], a.turned_queries + std::int64_t{part} * a.shape.heads * channels, channels,
               a.shape.heads, rotates);
    if (!token) return;
    copy_heads(a.rotary, columns, turns, p.keys.data + p.keys.offset(chunk.outer, chunk.first_row), p.keys.stride[2],
               a.places.rotated(chunk.sequence, 0) + row, head, a.shape.kv_heads, rotates);
    copy_heads(a.rotary, columns, turns, p.values.data + p.values.offset(chunk.outer, chunk.first_row),
               p.values.stride[2], a.places.values(chunk.sequence, 0) + row, head, a.shape.kv_heads, false);
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
