// Attention of one token over a cache that holds a rotated copy of its keys: rows as they lie, cut where they lie.
//
// A block takes a fixed range of rows of one KV head, whatever runs they belong to (cascade_segment), so that blocks are
// equal and as many as fit a large part at once. Runs differ in their queries alone (kernel/cascade_decode.cuh says why):
// a step is multiplied by the query of each run that has rows in it, which is one but where a ring begins or a sub-cache
// ends. Rows are fetched before the kernel in front, which turns the queries, has ended. The last block merges the splits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/policy/attend_tile.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/atomic.cuh"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/cascade_rows.cuh"
#include "winnow/stage/key_walk.cuh"
#include "winnow/stage/merge_key_warps.cuh"
#include "winnow/stage/merge_pieces.cuh"
#include "winnow/tile/gemm.cuh"
#include "winnow/tile/online_softmax.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// Launch bounds as plain integers, see attend_bounds.
template <int HeadDim>
struct cascade_token_bounds {
    static constexpr int threads = attend_tile_of({HeadDim, attend_rows::decode}).threads();
    static constexpr int min_blocks = attend_tile_of({HeadDim, attend_rows::decode}).min_blocks;
};

/// Rows of a run: [begin, end) of the cache; may be empty.
struct cascade_run {
    std::int32_t begin, end;
};

/// Shared memory of one block.
template <class T, int HeadDim>
struct cascade_token_storage {
    static constexpr attend_tile tile = attend_tile_of({HeadDim, attend_rows::decode});
    static constexpr bool widens = false;
    alignas(1024) T query[tile.rows * HeadDim];
    alignas(1024) T key[tile.stages * tile.keys * HeadDim];
    alignas(1024) T value[tile.stages * tile.keys * HeadDim];
    static constexpr int places = 2;  ///< one is read while the next is written
    key_step<T, tile.keys> step[places];
    cascade_counters counters;
    cascade_run run[2 * max_cascade_levels + 2];
    float lane_sum[2][tile.threads()];  ///< softmax sums, see softmax_step
    float maximum[tile.key_warps][16];
    float sum[tile.key_warps][16];
    alignas(16) merge_pieces_storage<tile.key_warps> merge;

    WINNOW_HOST_DEVICE static constexpr std::size_t scratch_bytes() { return sizeof(key) + sizeof(value); }
    /// The tiles of keys and values as floats, when nobody uses them any more.
    WINNOW_DEVICE float* scratch() { return reinterpret_cast<float*>(key); }
};

/// What a block works on.
struct cascade_token_work {
    std::int32_t batch;
    std::int32_t kv_head;
    std::int32_t first_head;  ///< query head
    std::int32_t heads;
    std::int32_t split;
};

/// Writes one head's finished channels: to the output, or as a partial result. As attend_row_writer.
template <class T>
struct cascade_token_writer {
    cascade_attend_arguments<T> const& a;
    cascade_token_work const& w;
    bool whole;  ///< no split is missing
    std::int32_t head = 0;

    WINNOW_DEVICE bool select(int row) {
        head = w.first_head + row;
        return row < w.heads;
    }
    WINNOW_DEVICE std::int64_t partial_index() const {
        return (std::int64_t{w.batch} * a.shape.heads + head) * a.splits.count + w.split;
    }
    WINNOW_DEVICE float add_sink(float) const { return 1.0f; }
    WINNOW_DEVICE void channels(int channel, float x, float y) const {
        if (whole) {
            T* const at = a.params.output.data + a.params.output.offset(w.batch, 0, head);
            *reinterpret_cast<std::uint32_t*>(at + channel) = ptx::pack<T>(x, y);
        } else {
            *reinterpret_cast<float2*>(a.partial_output + partial_index() * a.shape.head_dim + channel) =
                make_float2(x, y);
        }
    }
    /// `lse` in base 2.
    WINNOW_DEVICE void log_sum_exp(float lse) const {
        if (!whole)
            a.partial_lse[partial_index()] = lse;
        else if (!a.lse.empty())
            a.lse.values(w.batch, 0, head) = a.lse.base == lse_base::natural ? lse * ln_2 : lse;
    }
};

/// Notes the runs of a request, an empty one for each if it is padding; the new token is the last. All threads call; ends
/// with a barrier.
template <class T>
WINNOW_DEVICE void find_runs(cascade_run* runs, cascade_counters& counters, cascade_attend_arguments<T> const& a,
                             cascade_chunk const& chunk) {
    if (chunk.tokens > 0) load_counters(counters, a.places.counters(chunk.sequence));
    __syncthreads();
    std::int32_t const index = threadIdx.x;
    if (index < a.segments) {
        cascade_run run{0, 0};
        if (chunk.tokens > 0 && index < a.segments - 1) {
            cascade_segment const segment = segment_at(a.params.cache.layout, counters, index);
            run = {segment.first_row, segment.first_row + segment.rows};
        } else if (chunk.tokens > 0) {
            run = {a.places.rows, a.places.rows + 1};
        }
        runs[index] = run;
    }
    __syncthreads();
}

/// Notes where key `t` of step `step` lies: thread t < keys of a step. `keys`, `values`: row 0 of the head.
template <class T, int HeadDim>
WINNOW_DEVICE void locate_rows(cascade_token_storage<T, HeadDim>& shared, std::int32_t segments, T const* keys,
                               T const* values, std::int32_t step, std::int32_t t) {
    constexpr attend_tile tile = cascade_token_storage<T, HeadDim>::tile;
    std::int32_t const first = step * tile.keys, row = first + t;
    std::int32_t covered = 0;
    bool held = false;
#pragma unroll 2
    for (std::int32_t i = 0; i < segments; ++i) {
        cascade_run const run = shared.run[i];
        covered += larger(smaller(run.end, first + tile.keys) - larger(run.begin, first), 0);
        held |= row >= run.begin && row < run.end;
    }
    key_step<T, tile.keys>& out = shared.step[step % cascade_token_storage<T, HeadDim>::places];
    bool const plain = covered == tile.keys;
    if (t == 0) out.plain = plain;
    if (t == 0 || !plain) {
        std::int64_t const at = std::int64_t{row} * HeadDim;
        out.row[t] = held ? key_row<T>{keys + at, values + at} : key_row<T>{nullptr, nullptr};
    }
}

/// Brings a run's queries of the block's heads into shared memory; zeros for rows behind them. Not by cp.async, whose groups
/// are those of keys.
template <class T, int HeadDim>
WINNOW_DEVICE void load_run_query(cascade_token_storage<T, HeadDim>& shared, cascade_attend_arguments<T> const& a,
                                  cascade_token_work const& w, std::int32_t run) {
    constexpr attend_tile tile = cascade_token_storage<T, HeadDim>::tile;
    constexpr int chunks = HeadDim / 8, each = tile.rows * chunks / tile.threads();
    T const* const from =
        a.turned_queries + ((std::int64_t{w.batch} * a.segments + run) * a.shape.heads + w.first_head) * HeadDim;
    uint4 part[each];
    WINNOW_UNROLL
    for (int i = 0; i < each; ++i) {
        int const at = threadIdx.x + i * tile.threads();
        part[i] = at / chunks < w.heads ? reinterpret_cast<uint4 const*>(from)[at] : make_uint4(0, 0, 0, 0);
    }
    WINNOW_UNROLL
    for (int i = 0; i < each; ++i) {
        int const at = threadIdx.x + i * tile.threads();
        char* const to = reinterpret_cast<char*>(shared.query) + swizzled<HeadDim>(at / chunks, at % chunks);
        *reinterpret_cast<uint4*>(to) = part[i];
    }
}

/// Products of a step for the scores to come: [batch, head, row of the cache]; -inf where no token is.
template <class T, int KeyTiles>
WINNOW_DEVICE void store_products(cascade_attend_arguments<T> const& a, cascade_token_work const& w,
                                  float const (&score)[KeyTiles][4], std::int32_t first_row) {
    std::int32_t const lane = threadIdx.x % 32, row = first_row + 2 * (lane % 4), last = a.places.rows;
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) {
        std::int32_t const head = lane / 4 + 8 * h;
        if (head >= w.heads) continue;
        float* const to =
            a.sums + (std::int64_t{w.batch} * a.shape.heads + w.first_head + head) * a.shape.max_keys + row;
        WINNOW_UNROLL
        for (int n = 0; n < KeyTiles; ++n) WINNOW_UNROLL
        for (int e = 0; e < 2; ++e)
            if (row + 8 * n + e <= last) to[8 * n + e] = score[n][2 * h + e];
    }
}

/// Block (KV head and group of its query heads, split, request).
template <class T, int HeadDim>
__global__ void __launch_bounds__(cascade_token_bounds<HeadDim>::threads, cascade_token_bounds<HeadDim>::min_blocks)
    cascade_attend_token(cascade_attend_arguments<T> const __grid_constant__ a) {
    using storage = cascade_token_storage<T, HeadDim>;
    constexpr attend_tile tile = storage::tile;
    constexpr int stages = tile.stages, key_tiles = tile.warp_keys() / 8;
    constexpr std::uint32_t row_bytes = HeadDim * sizeof(T), stage_bytes = tile.keys * row_bytes;
    static_assert(tile.keys <= tile.threads(), "every thread locates one key at most");
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<storage*>(raw);
    ptx::let_later_grid_start();

    cascade_token_work w;
    w.batch = blockIdx.z, w.split = blockIdx.y;
    w.kv_head = a.head_groups.quotient(blockIdx.x);
    std::int32_t const in_group = (blockIdx.x - w.kv_head * a.splits.head_groups) * a.splits.tile_heads;
    w.first_head = w.kv_head * a.group + in_group;
    w.heads = smaller(a.splits.tile_heads, a.group - in_group);
    cascade_chunk const chunk = a.chunk(w.batch);
    std::int32_t const rows = a.places.rows + 1, begin = w.split * a.splits.steps;
    std::int32_t const end = smaller(begin + a.splits.steps, ceil_div(rows, tile.keys));
    find_runs(shared.run, shared.counters, a, chunk);

    std::int32_t const sequence = larger(chunk.sequence, 0);
    T const* const key_rows = a.places.rotated(sequence, w.kv_head);
    T const* const value_rows = a.places.values(sequence, w.kv_head);
    std::uint32_t const query_tile = ptx::shared_address(shared.query);
    std::uint32_t const key_tile = ptx::shared_address(shared.key), value_tile = ptx::shared_address(shared.value);
    auto const locate = [&](std::int32_t step, std::int32_t thread) {
        if (step < end && thread < tile.keys)
            locate_rows<T, HeadDim>(shared, a.segments, key_rows, value_rows, step, thread);
    };
    auto const fetch = [&](std::int32_t step) {
        if (step < end) {
            std::uint32_t const at = step % stages * stage_bytes;
            key_step<T, tile.keys> const& rows_of_step = shared.step[step % storage::places];
            fetch_rows<HeadDim, tile.threads()>(key_tile + at, HeadDim, rows_of_step, &key_row<T>::key);
            fetch_rows<HeadDim, tile.threads()>(value_tile + at, HeadDim, rows_of_step, &key_row<T>::value);
        }
        ptx::copy_async_commit();
    };
    if (end * tile.keys >= rows) ptx::wait_for_earlier_grids();  // the token's row has just been written
    softmax_rows state[1];
    float output[1][HeadDim / 8][4];
    WINNOW_UNROLL
    for (int d = 0; d < HeadDim / 8; ++d) WINNOW_UNROLL
    for (int e = 0; e < 4; ++e) output[0][d][e] = 0.0f;
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) shared.lane_sum[h][threadIdx.x] = 0.0f;
    float const c = a.params.scale * log2_e;
    std::int32_t const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    std::int32_t run = 0, held = -1;  // the first that may have rows in the step; whose queries are there

    // The first rounds only fetch: code for them alone would have to come from memory.
#pragma unroll 1
    for (std::int32_t step = begin - stages; step < end; ++step) {
        locate(step + stages, threadIdx.x);
        if (step >= begin) {
            if (step == begin) ptx::wait_for_earlier_grids();
            ptx::copy_async_wait<stages - 1>();
            __syncthreads();  // rows of this step are there
            std::int32_t const first_row = step * tile.keys, warp_row = first_row + warp * tile.warp_keys();
            std::uint32_t const at = step % stages * stage_bytes + warp * tile.warp_keys() * row_bytes;
            float score[1][key_tiles][4];
            WINNOW_UNROLL
            for (int n = 0; n < key_tiles; ++n) WINNOW_UNROLL
            for (int e = 0; e < 4; ++e) score[0][n][e] = minus_infinity;
#pragma unroll 1
            for (std::int32_t i = run; i < a.segments; ++i) {
                cascade_run const rows_of_run = shared.run[i];
                if (rows_of_run.end <= first_row) run = i + 1;
                if (rows_of_run.begin >= first_row + tile.keys) break;
                if (rows_of_run.end <= larger(rows_of_run.begin, first_row)) continue;
                if (i != held) {
                    __syncthreads();  // nobody reads the last queries any more
                    load_run_query(shared, a, w, i);
                    held = i;
                    __syncthreads();
                }
                float product[1][key_tiles][4];
                score_tile<T, HeadDim, 1, key_tiles>(product, query_tile, key_tile + at);
                std::int32_t const row = warp_row + 2 * (lane % 4);
                WINNOW_UNROLL
                for (int n = 0; n < key_tiles; ++n) WINNOW_UNROLL
                for (int e = 0; e < 4; ++e) {
                    std::int32_t const key = row + 8 * n + e % 2;
                    if (key >= rows_of_run.begin && key < rows_of_run.end) score[0][n][e] = product[0][n][e];
                }
            }
            if (a.params.takes_scores()) store_products(a, w, score[0], warp_row);
            std::uint32_t probability[1][key_tiles][2];
            softmax_step<tile.threads()>(state[0], &shared.lane_sum[0][threadIdx.x], score[0], output[0], c);
            round_probabilities<T>(probability[0], score[0]);
            accumulate_tile<T, HeadDim, 1, key_tiles>(output, probability, value_tile + at);
        }
        __syncthreads();  // nobody reads the rows any more; those of the step `stages` on are located
        fetch(step + stages);
    }

    cascade_token_writer<T> writer{a, w, a.splits.count == 1};
    merge_key_warps<HeadDim>(shared, state[0], output[0], c, 1.0f, w.heads, writer);
    if (writer.whole) return;
    __syncthreads();  // the block's part is written
    if (threadIdx.x == 0) {
        std::int64_t const tile_index = std::int64_t{w.batch} * gridDim.x + blockIdx.x;
        shared.merge.last = ptx::count_arrival(a.arrived + tile_index) == a.splits.count - 1;
    }
    __syncthreads();
    if (!shared.merge.last) return;
    writer.whole = true;
#pragma unroll 1
    for (int row = warp; row < w.heads; row += tile.key_warps)
        if (writer.select(row)) merge_row<HeadDim, 112>(shared.merge.weight[warp], writer, a.splits.count);
}

}  // namespace winnow
