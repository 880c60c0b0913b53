// Attention that each key gets from a chunk, exactly: a second pass over queries and keys, key by key.
//
//   sum[j] = sum_q beta^(S - 1 - q) exp(scale q . k_j - lse_q),  over the rows q that see key j
//
// A block owns a tile of keys as rows of its products, in registers; queries stream through shared memory, and each
// thread adds up a few keys in fp32: one store a key, no atomics, and always the same order of additions.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/kernel/cascade_columns.cuh"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/tile/gemm.cuh"
#include "winnow/tile/online_softmax.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// Launch bounds as plain integers, as in attend_bounds.
template <int HeadDim>
struct cascade_score_bounds {
    static constexpr int threads = cascade_score_tile_of(HeadDim).threads();
    static constexpr int min_blocks = cascade_score_tile_of(HeadDim).min_blocks;
};

/// Shared memory of one block. The tile of keys goes through the space of the queries on its way to registers.
template <class T, int HeadDim>
struct cascade_score_storage {
    static constexpr cascade_score_tile tile = cascade_score_tile_of(HeadDim);
    static constexpr int rows = larger(2 * tile.queries, tile.keys());
    alignas(1024) T tiles[rows * HeadDim];
    alignas(8) float offset[2][tile.queries];  ///< of the exponent of each query, base 2; -inf: does not count
};

/// The part of a chunk that a block scores.
struct cascade_score_work {
    cascade_chunk chunk;
    std::int32_t keys;         ///< of the request
    std::int32_t first_key;    ///< of the tile
    std::int32_t first_token;  ///< token of the chunk that the tile's first key is; below 0 for cached ones
    std::int32_t first_query;  ///< that counts and sees a key of the tile
    std::int32_t first_head;
};

/// A step: a tile of queries of one head. Steps run through the queries, then through the heads.
struct cascade_score_step {
    std::int32_t head;
    std::int32_t query;

    WINNOW_DEVICE void advance(cascade_score_work const& w, std::int32_t queries) {
        query += queries;
        if (query >= w.chunk.tokens) query = w.first_query, ++head;
    }
};

/// Starts the copy of `Rows` rows into a swizzled tile; zeros for those behind the first `count`. Whole tiles, which
/// are nearly all, take the branch without a test for each row.
template <int Rows, int HeadDim, int Threads, class T>
WINNOW_DEVICE void fetch_tile(std::uint32_t tile, T const* rows, std::int64_t stride, std::int32_t count) {
    constexpr int chunks = HeadDim / 8, rows_per_pass = Threads / chunks;
    static_assert(Threads % chunks == 0 && Rows % rows_per_pass == 0, "every pass covers whole rows");
    int const chunk = threadIdx.x % chunks, first = threadIdx.x / chunks;
    T const* from = rows + first * stride + chunk * 8;
    if (count >= Rows) {
        WINNOW_UNROLL
        for (int pass = 0; pass < Rows / rows_per_pass; ++pass, from += rows_per_pass * stride)
            ptx::copy_async_16(tile + swizzled<HeadDim>(pass * rows_per_pass + first, chunk), from);
        return;
    }
    for (int row = first; row < Rows; row += rows_per_pass, from += rows_per_pass * stride)
        ptx::copy_async_16(tile + swizzled<HeadDim>(row, chunk), row < count ? from : rows, row < count);
}

/// Offsets of the exponents of a step's queries.
template <int Queries, class T>
WINNOW_DEVICE void step_offsets(float (&offset)[Queries], cascade_attend_arguments<T> const& a,
                                cascade_score_work const& w, cascade_score_step step) {
    int const t = threadIdx.x;
    if (t < Queries) offset[t] = query_offset(a, w.chunk, step.head, step.query + t);
}

template <class T, int HeadDim>
__global__ void __launch_bounds__(cascade_score_bounds<HeadDim>::threads, cascade_score_bounds<HeadDim>::min_blocks)
    cascade_score(cascade_attend_arguments<T> const __grid_constant__ a) {
    constexpr cascade_score_tile tile = cascade_score_tile_of(HeadDim);
    constexpr int column_tiles = tile.columns / 8, row_bytes = HeadDim * static_cast<int>(sizeof(T));
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<cascade_score_storage<T, HeadDim>*>(raw);
    std::int32_t const b = blockIdx.z;

    cascade_score_work w{a.chunk(b),
                         a.lengths[b],
                         static_cast<std::int32_t>(blockIdx.x) * tile.keys(),
                         0,
                         0,
                         static_cast<std::int32_t>(blockIdx.y) * a.heads_per_block};
    if (w.first_key >= w.keys || w.chunk.tokens == 0) return;
    w.first_token = w.first_key - (w.keys - w.chunk.tokens);
    w.first_query = larger(w.chunk.tokens - a.params.scorer.counted(w.chunk.tokens), larger(w.first_token, 0));
    std::int32_t const kv_head = w.first_head / a.shape.group(), end_head = w.first_head + a.heads_per_block;

    std::uint32_t const tiles = ptx::shared_address(shared.tiles);
    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    std::uint32_t keys[tile.row_tiles][HeadDim / 16][4];
    fetch_tile<tile.keys(), HeadDim, tile.threads()>(
        tiles, a.linear_keys + (a.linear_row(b, kv_head) + w.first_key) * HeadDim, HeadDim, w.keys - w.first_key);
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
    __syncthreads();
    load_rows<HeadDim, tile.row_tiles>(keys, tiles + warp * tile.warp_keys() * row_bytes);
    __syncthreads();  // queries take the place of the keys

    float const c = a.params.scale * log2_e;
    auto const fetch = [&](cascade_score_step step, int buffer) {
        T const* const rows = a.q.data + a.q.offset(w.chunk.outer, w.chunk.first_row + step.query, step.head);
        fetch_tile<tile.queries, HeadDim, tile.threads()>(tiles + buffer * tile.queries * row_bytes, rows,
                                                          a.q.stride[1], w.chunk.tokens - step.query);
        ptx::copy_async_commit();
        step_offsets(shared.offset[buffer], a, w, step);
    };
    float sum[tile.row_tiles][2] = {};
    cascade_score_step now{w.first_head, w.first_query}, next = now;
    fetch(now, 0);
    for (int buffer = 0; now.head < end_head; now = next, buffer ^= 1) {
        next.advance(w, tile.queries);
        ptx::copy_async_wait<0>();
        __syncthreads();  // queries of this step are there; nobody reads those of the last one any more
        if (next.head < end_head) fetch(next, buffer ^ 1);
        // Query at which this lane's first key is seen, counted from the step's first query.
        std::int32_t const seen_from = w.first_token + warp * tile.warp_keys() + lane / 4 - now.query;
        bool const masked = w.first_token + tile.keys() - 1 > now.query;
        std::int32_t const columns = smaller<std::int32_t>(w.chunk.tokens - now.query, tile.queries);
        // Unrolled, ptxas interleaves the blocks of columns and runs out of registers.
#pragma unroll 1
        for (int column = 0; column < columns; column += tile.columns) {
            float score[tile.row_tiles][column_tiles][4];
            score_rows<T, HeadDim, tile.row_tiles, column_tiles>(score, keys,
                                                                 tiles + (buffer * tile.queries + column) * row_bytes);
            if (masked) hide_queries(score, seen_from - column, {0, tile.columns});
            add_probabilities<0>(sum, score, shared.offset[buffer] + column, c);
        }
        if (next.head == now.head) continue;
        float* const to = a.sums + (std::int64_t{b} * a.shape.heads + now.head) * a.shape.max_keys;
        WINNOW_UNROLL
        for (int i = 0; i < tile.row_tiles; ++i) WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) {
            std::int32_t const key = w.first_key + warp * tile.warp_keys() + 16 * i + 8 * h + lane / 4;
            float const all = row_sum(sum[i][h]);
            if (lane % 4 == 0 && key < w.keys) to[key] = all;
            sum[i][h] = 0.0f;
        }
    }
}

}  // namespace winnow
