// One token at a time over a cache that holds a rotated copy of its keys, so that nothing is lined up.
//
// A cached key is rotated by its row, which does not change while it stays there. In a run of rows whose positions
// ascend with them (cascade_segment) row and position differ by one number, so rotating the query by
// (its position + that number) makes all differences right: a query for each segment instead of a pass over the keys.
// Attention then takes each segment as a request of its own, and the partial results are merged.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/kernel/cascade_columns.cuh"
#include "winnow/kernel/cascade_reduce.cuh"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/ptx/mma_sync.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/cascade_rows.cuh"
#include "winnow/stage/rotate_rows.cuh"
#include "winnow/tile/probe_keys.cuh"

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

/// Block (segment, request): rotates the queries for it and says where it lies. The last segment is the new token,
/// which goes to the row behind the slots.
template <class T>
__global__ void __launch_bounds__(cascade_gather_threads)
    cascade_segments(cascade_attend_arguments<T> const __grid_constant__ a) {
    __shared__ cascade_turns turns;
    __shared__ cascade_counters counters;
    cascade_attend_params<T> const& p = a.params;
    cascade_cache<T> const& cache = p.cache;
    std::int32_t const index = blockIdx.x, b = blockIdx.y, segments = gridDim.x;
    std::int32_t const part = b * segments + index;
    cascade_chunk const chunk = a.chunk(b);
    if (chunk.tokens == 0) {
        if (threadIdx.x == 0) a.segment_lengths[part] = a.lengths[b] = 0, a.segment_rows[part] = 0;
        return;
    }
    load_counters(counters, cache.counters(chunk.sequence));
    __syncthreads();
    std::int32_t const cached = live_tokens(cache.layout, counters);
    bool const token = index == segments - 1;
    cascade_segment const segment =
        token ? cascade_segment{cache.layout.rows(), 1, cached, 0} : segment_at(cache.layout, counters, index);
    if (threadIdx.x == 0) {
        a.segment_lengths[part] = segment.rows;
        a.segment_rows[part] = static_cast<std::int32_t>(chunk.sequence * cache.sequence_rows()) + segment.first_row;
        if (token) a.lengths[b] = cached + 1;
        // The token's own key is rotated by its position, and so is the query for it.
        turns.position[0] = p.positions == cascade_positions::original ? static_cast<std::int32_t>(counters.seen)
                                                                       : cached + segment.row_origin;
    }
    __syncthreads();
    bool const rotates = !a.rotary.rotation.empty();
    vector_columns const columns{a.shape.head_dim / vector_channels,
                                 a.rotary.rotation.pairs(a.shape.head_dim) / vector_channels};
    if (rotates) {
        fill_rotations<cascade_gather_threads>(a.rotary, columns, 1, turns.position, turns.turns, turns.rotation);
        __syncthreads();
    }
    std::int64_t const channels = a.shape.head_dim, row = cache.layout.rows() * channels;
    std::int64_t const head = cache.stored_rows() * channels;
    copy_heads(a.rotary, columns, turns, p.queries.data + p.queries.offset(chunk.outer, chunk.first_row),
               p.queries.stride[2], a.turned_queries + std::int64_t{part} * a.shape.heads * channels, channels,
               a.shape.heads, rotates);
    if (!token) return;
    copy_heads(a.rotary, columns, turns, p.keys.data + p.keys.offset(chunk.outer, chunk.first_row), p.keys.stride[2],
               cache.rotated(chunk.sequence, 0) + row, head, a.shape.kv_heads, rotates);
    copy_heads(a.rotary, columns, turns, p.values.data + p.values.offset(chunk.outer, chunk.first_row),
               p.values.stride[2], cache.values(chunk.sequence, 0) + row, head, a.shape.kv_heads, false);
}

/// Attention that each key gets from one token, by tensor cores: a warp has 16 keys as rows of its products, eight heads
/// of their group as columns. A product sums over channels, whose order is free (tile/probe_keys.cuh), so keys and queries
/// go from memory to registers by 16 bytes. Block (group of rows, KV head, segment of a request).
template <class T, int HeadDim>
__global__ void __launch_bounds__(cascade_token_threads, cascade_token_blocks)
    cascade_score_token(cascade_attend_arguments<T> const __grid_constant__ a) {
    ptx::let_later_grid_start();
    ptx::wait_for_earlier_grids();
    std::int32_t const part = blockIdx.z, kv_head = blockIdx.y, b = part / a.segments, index = part - b * a.segments;
    std::int32_t const rows = a.segment_lengths[part], lane = threadIdx.x % 32;
    std::int32_t const first = blockIdx.x * cascade_token_keys + threadIdx.x / 32 * cascade_token_warp_keys;
    if (first >= rows) return;
    cascade_attend_params<T> const& p = a.params;
    T const* const keys = p.cache.rotated(0, kv_head) + std::int64_t{a.segment_rows[part]} * HeadDim;
    uint4 key[2][HeadDim / 32];
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) {
        std::int32_t const row = first + lane / 4 + 8 * h;
        load_key<T, HeadDim>(key[h], row < rows ? keys + std::int64_t{row} * HeadDim : nullptr);
    }
    cascade_chunk const chunk = a.chunk(b);
    cascade_counters const& counters = *p.cache.counters(chunk.sequence);
    std::int32_t const place =
        first + (index == a.segments - 1 ? a.lengths[b] - 1 : segment_at(p.cache.layout, counters, index).first);
    float const c = p.scale * log2_e;
    for (std::int32_t begin = 0; begin < a.shape.group(); begin += 8) {
        std::int32_t const head = kv_head * a.shape.group() + begin, heads = smaller(a.shape.group() - begin, 8);
        uint4 query[HeadDim / 32];
        load_key<T, HeadDim>(query,
                             lane / 4 < heads
                                 ? a.turned_queries + (std::int64_t{part} * a.shape.heads + head + lane / 4) * HeadDim
                                 : nullptr);
        float product[4] = {};
        WINNOW_UNROLL
        for (int j = 0; j < HeadDim / 32; ++j) {
            std::uint32_t const one[4] = {key[0][j].x, key[1][j].x, key[0][j].y, key[1][j].y};
            std::uint32_t const two[4] = {key[0][j].z, key[1][j].z, key[0][j].w, key[1][j].w};
            ptx::multiply_add<T>(product, one, query[j].x, query[j].y);
            ptx::multiply_add<T>(product, two, query[j].z, query[j].w);
        }
        WINNOW_UNROLL
        for (int e = 0; e < 2; ++e) {
            std::int32_t const column = 2 * (lane % 4) + e;
            if (column >= heads) continue;
            float const offset = query_offset(a, chunk, head + column, 0);
            float* const to =
                a.sums + (std::int64_t{b} * a.shape.heads + head + column) * a.shape.max_keys + place + lane / 4;
            WINNOW_UNROLL
            for (int h = 0; h < 2; ++h)
                if (first + lane / 4 + 8 * h < rows) to[8 * h] = ptx::exp2_fast(fmaf(product[2 * h + e], c, offset));
        }
    }
    if (p.cache.heads != cascade_heads::per_kv_head) return;
    // All heads that share these tokens are here: no kernel of its own for their scores.
    __syncwarp();
    if (lane < cascade_token_warp_keys && first + lane < rows) reduce_key(a, chunk, b, kv_head, place + lane);
}

}  // namespace winnow
