// Attention for sm_80 and newer: cp.async, ldmatrix and mma.sync; a thread block per tile of rows and key split.
//
// One step: wait for keys | start values, scores | start the next keys, softmax | wait for values, accumulate. Where a tile
// has room for more steps, as many are under way at a time. The last block of a decode tile merges its splits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/policy/attend_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/attend_arguments.cuh"
#include "winnow/stage/attend_work.cuh"
#include "winnow/stage/key_walk.cuh"
#include "winnow/stage/merge_key_warps.cuh"
#include "winnow/stage/merge_pieces.cuh"
#include "winnow/stage/rotate_tile.cuh"
#include "winnow/tile/gemm.cuh"
#include "winnow/tile/online_softmax.cuh"
#include "winnow/tile/swizzle.hpp"
#include "winnow/tile/widen.cuh"

namespace winnow {

/// Launch bounds as plain integers: nvcc 13.0 aborts on the call inside __launch_bounds__.
template <int HeadDim, attend_rows Rows, class KV>
struct attend_bounds {
    static constexpr attend_tile tile = attend_tile_of({HeadDim, Rows}, sizeof(KV));
    static constexpr int threads = tile.threads(), min_blocks = tile.min_blocks;
    /// Steps whose keys are located: those under way, and the next. A power of two, or slots would be found by division.
    static constexpr int places = tile.stages > 1 ? 4 : 2;
    /// Registers of a thread that merging splits may fill with their channels.
    static constexpr int merge_registers = smaller(65536 / (threads * min_blocks) - 40, 128);
};

/// Shared memory of one block. Kernels are templates on the row class and not on the tile itself: nvcc 13.0 cannot name
/// an aggregate template argument in the host stub of a kernel.
template <class T, int HeadDim, attend_rows Rows, class KV = T>
struct attend_storage {
    static constexpr attend_tile tile = attend_tile_of({HeadDim, Rows}, sizeof(KV));
    static constexpr bool widens = !std::is_same_v<T, KV>;  ///< output lies as accumulate_widened leaves it
    alignas(1024) T query[tile.rows * HeadDim];
    alignas(1024) KV key[tile.stages * tile.keys * HeadDim];
    alignas(1024) KV value[tile.stages * tile.keys * HeadDim];
    key_step<KV, tile.keys> step[attend_bounds<HeadDim, Rows, KV>::places];
    attend_work work;  ///< here and not in registers: the accumulators need them all
    key_walk walk;
    row_limits limits[tile.rows];
    float lane_sum[tile.warp_rows() / 8][tile.threads()];  ///< softmax sums, see softmax_step
    float maximum[tile.key_warps][16];
    float sum[tile.key_warps][16];
    alignas(16) merge_pieces_storage<tile.threads() / 32> merge;

    WINNOW_HOST_DEVICE static constexpr std::size_t scratch_bytes() { return sizeof(key) + sizeof(value); }
    /// The tiles of keys and values as floats, when nobody uses them any more.
    WINNOW_DEVICE float* scratch() { return reinterpret_cast<float*>(key); }
};

/// Shared memory of one block with what turning takes.
template <class T, int HeadDim, attend_rows Rows, class KV, key_rotation Rotation>
struct attend_block_storage : attend_storage<T, HeadDim, Rows, KV> {};
template <class T, int HeadDim, attend_rows Rows>
struct attend_block_storage<T, HeadDim, Rows, T, key_rotation::streaming> : attend_storage<T, HeadDim, Rows> {
    alignas(1024) rotation_storage<HeadDim, Rows> rotation;  // host and device agree on its place only at a boundary
};

/// Copies the tile's queries into shared memory, zeros for rows that do not exist, and notes what each row sees. For thread
/// `thread` of `threads` that call.
template <class T, int HeadDim, attend_rows Rows, class KV>
WINNOW_DEVICE void load_queries(attend_storage<T, HeadDim, Rows, KV>& shared, attend_arguments<T> const& a,
                                attend_work const& w, int thread, int threads) {
    constexpr attend_tile tile = attend_tile_of({HeadDim, Rows});
    attend_params<T> const& p = a.params;
    constexpr int chunks = HeadDim / 8;
    std::uint32_t const target = ptx::shared_address(shared.query);
    T const* const base = p.queries.data + p.queries.offset(w.request.outer, w.request.first_row, w.first_head);
#pragma unroll 1
    for (int i = thread; i < tile.rows * chunks; i += threads) {
        int const row = i / chunks, chunk = i % chunks;
        int const token = a.tile_heads.quotient(row), head = row - token * a.schedule.tile_heads;
        bool const exists = token < w.rows.count && head < w.heads;
        std::int64_t const offset =
            exists ? row_of(a.schedule, w, token) * p.queries.stride[1] + head * p.queries.stride[2] + chunk * 8 : 0;
        ptx::copy_async_16(target + swizzled<HeadDim>(row, chunk), base + offset, exists);
    }
#pragma unroll 1
    for (int row = thread; row < tile.rows; row += threads)
        shared.limits[row] = limits_of(looking_of(a, w, row), w.request.keys, p.window);
}

/// Finishes two rows, `row` and `row` + 8 of the tile, and corrects them. Afterwards their sum is 1 and their maximum gives
/// the lse, as if these were the results of attention.
template <int Stride, class T, int OutputTiles>
WINNOW_DEVICE void correct_rows(attend_row_writer<T>& writer, softmax_rows& state, float* lane_sum,
                                float (&output)[OutputTiles][4], float c, int row) {
    int const lane = threadIdx.x % 32;
    WINNOW_UNROLL
    for (int h = 0; h < 2; ++h) {
        float const sum = row_sum(lane_sum[h * Stride]);
        if (!writer.select(row + 8 * h)) continue;
        float lse = sum == 0.0f ? minus_infinity : state.maximum[h] * c + ptx::log2_fast(sum);
        row_correction const r = writer.correction(sum == 0.0f ? 0.0f : 1.0f / sum, lse);
        WINNOW_UNROLL
        for (int d = 0; d < OutputTiles; ++d) r.apply(8 * d + 2 * (lane % 4), output[d][2 * h], output[d][2 * h + 1]);
        lane_sum[h * Stride] = lane % 4 == 0 ? 1.0f : 0.0f;
        state.maximum[h] = __fdividef(lse, c);
    }
}

/// Turns the keys of a step, and queries where they have just come or where the walk reaches the window. Needs a barrier
/// before and behind. A function of its own: inside the loop its addresses made ptxas spill 60 bytes a thread.
template <class T, int HeadDim, attend_rows Rows>
__device__ __noinline__ void rotate_step(attend_block_storage<T, HeadDim, Rows, T, key_rotation::streaming>& shared,
                                         attend_arguments<T> const& a, std::int32_t step) {
    constexpr attend_tile tile = attend_tile_of({HeadDim, Rows});
    constexpr std::int32_t step_granules = tile.keys / granule_keys;
    granule_sequence const& g = shared.walk.sequence;
    std::int32_t const window_step = ceil_div(g.sinks + g.listed, step_granules);
    query_frame const wanted = step >= window_step ? query_frame::window : query_frame::before_window;
    if (shared.rotation.frame != wanted) {
        if (shared.rotation.frame != query_frame::none) {
            load_queries<T, HeadDim, Rows, T>(shared, a, shared.work, threadIdx.x, tile.threads());
            ptx::copy_async_commit();
            ptx::copy_async_wait<0>();
            __syncthreads();
        }
        rotate_queries(shared.query, shared.rotation, a, shared.work, wanted);
    }
    T* const keys = shared.key + step % tile.stages * tile.keys * HeadDim;
    rotate_keys(keys, shared.rotation, a, shared.walk, step);
    if (threadIdx.x == 0) shared.rotation.frame = wanted;  // behind the barrier of rotate_keys
}

template <class T, int HeadDim, attend_rows Rows, class KV = T, key_rotation Rotation = key_rotation::none>
__global__ void __launch_bounds__(attend_bounds<HeadDim, Rows, KV>::threads,
                                  attend_bounds<HeadDim, Rows, KV>::min_blocks)
    attend_sm80(attend_arguments<T> const __grid_constant__ a) {
    constexpr attend_tile tile = attend_tile_of({HeadDim, Rows}, sizeof(KV));
    constexpr int row_tiles = tile.warp_rows() / 16, key_tiles = tile.warp_keys() / 8;
    constexpr bool widens = !std::is_same_v<T, KV>;  // keys and values are stored in fewer bits
    extern __shared__ __align__(1024) unsigned char raw[];
    static_assert(sizeof(attend_block_storage<T, HeadDim, Rows, KV, Rotation>) <=
                      attend_shared_bytes({HeadDim, Rows}, Rotation),
                  "plans rely on the bound");
    auto& shared = *reinterpret_cast<attend_block_storage<T, HeadDim, Rows, KV, Rotation>*>(raw);
    attend_params<T> const& p = a.params;

    // One warp finds the walk, the others load queries meanwhile.
    constexpr int walk_threads = 32;
    if constexpr (Rows == attend_rows::decode)
        if (threadIdx.x >= tile.threads() - 32) prefetch_list(a, blockIdx.x, blockIdx.z);
    {
        std::int32_t const age = Rows == attend_rows::decode ? age_of(a, blockIdx.z) : -1;  // comes with the lengths
        attend_work const work = work_of<T>(a, blockIdx.x, blockIdx.y, blockIdx.z);
        if (work.rows.count <= 0) return;
        // Pruning may still be running: only who reads what it writes waits here, and all wait before they write.
        if constexpr (Rows == attend_rows::decode)
            if (threadIdx.x < walk_threads && refreshes_at(a.step, age)) ptx::wait_for_earlier_grids();
        if (threadIdx.x == 0) {
            shared.work = work;
            begin_walk(shared.walk, a, work);
            if constexpr (Rotation == key_rotation::streaming) align_window(shared.walk.sequence, tile.keys);
        }
        if (threadIdx.x >= walk_threads)
            load_queries<T, HeadDim, Rows, KV>(shared, a, work, threadIdx.x - walk_threads,
                                               tile.threads() - walk_threads);
    }
    __syncthreads();
    attend_work const& w = shared.work;
    key_walk const& walk = shared.walk;
    step_range const steps = steps_of(a.schedule, walk, w.split, tile.keys);
    std::int32_t const begin = steps.begin, end = steps.end;

    attend_row_writer<T> writer{a, w};
    bool const merges = Rows == attend_rows::decode && a.arrived != nullptr;  // the splits, in the block that is last
    std::int32_t const pieces = merges ? pieces_of(a, walk) : 1;
    if (begin >= end) ptx::copy_async_wait_all();  // queries that nobody needs
    if (merges) {
        if (w.split >= pieces) return;
        writer.whole = pieces == 1;
    } else if (a.partial() && begin >= end) {  // the merge does not read the channels of an empty split
        for (int row = threadIdx.x; row < tile.rows; row += tile.threads())
            if (writer.select(row)) writer.log_sum_exp(minus_infinity);
        return;
    }

    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int const row_warp = warp % tile.row_warps, key_warp = warp / tile.row_warps;
    std::uint32_t const query_tile =
        ptx::shared_address(shared.query) + row_warp * tile.warp_rows() * HeadDim * sizeof(T);
    std::uint32_t const key_tile = ptx::shared_address(shared.key), value_tile = ptx::shared_address(shared.value);

    // Copies are in groups, one for a step's keys and one for its values, empty behind the last step. Of the groups that
    // follow the one that a step waits for, 2 (stages - 1) have been started.
    constexpr int stages = tile.stages, later_groups = 2 * (stages - 1);
    constexpr int places = attend_bounds<HeadDim, Rows, KV>::places;
    constexpr std::uint32_t stage_bytes = tile.keys * HeadDim * sizeof(KV), warp_bytes = stage_bytes / tile.key_warps;
    auto const place_of_step = [&](std::int32_t step) -> key_step<KV, tile.keys>& {
        return shared.step[step % places];
    };
    auto const locate_keys = [&](std::int32_t step, int thread) {
        if (step < end) locate_step(place_of_step(step), walk, step, p, a.page_size, thread);
    };
    auto const fetch_keys = [&](std::int32_t step) {
        if (step < end)
            fetch_rows<HeadDim, tile.threads()>(key_tile + step % stages * stage_bytes, p.keys.stride[1],
                                                place_of_step(step), &key_row<KV>::key);
        ptx::copy_async_commit();
    };
    auto const fetch_values = [&](std::int32_t step) {
        if (step < end)
            fetch_rows<HeadDim, tile.threads()>(value_tile + step % stages * stage_bytes, p.values.stride[1],
                                                place_of_step(step), &key_row<KV>::value);
        ptx::copy_async_commit();
    };
    if (begin < end) {
        if constexpr (Rotation == key_rotation::streaming) begin_rotation(shared.rotation, a, w, walk);
        if constexpr (stages == 1) {
            locate_keys(begin, threadIdx.x);
            __syncthreads();
            fetch_keys(begin);
        } else {
            static_assert(stages * tile.keys == tile.threads(), "every thread locates one key");
            locate_keys(begin + threadIdx.x / tile.keys, threadIdx.x % tile.keys);
            __syncthreads();
#pragma unroll 1
            for (int s = 0; s < stages; ++s) {  // code that runs once costs its way from memory: a loop
                fetch_keys(begin + s);
                fetch_values(begin + s);
            }
        }
        if constexpr (widens) {
            ptx::copy_async_wait<later_groups>();  // queries came with the first keys
            __syncthreads();
            order_queries<HeadDim, tile.threads()>(shared.query);
        }
    }
    softmax_rows state[row_tiles];
    float output[row_tiles][HeadDim / 8][4];
    WINNOW_UNROLL
    for (int i = 0; i < row_tiles; ++i) WINNOW_UNROLL
    for (int d = 0; d < HeadDim / 8; ++d) WINNOW_UNROLL
    for (int e = 0; e < 4; ++e) output[i][d][e] = 0.0f;
    WINNOW_UNROLL
    for (int i = 0; i < 2 * row_tiles; ++i) shared.lane_sum[i][threadIdx.x] = 0.0f;
    bool const capped = p.soft_cap > 0.0f;
    float score_scale = p.scale, value_scale = 1.0f;
    if constexpr (widens) score_scale *= p.scales.of_keys(w.kv_head), value_scale = p.scales.of_values(w.kv_head);
    float const c = capped ? log2_e : score_scale * log2_e;
    float const inverse_cap = capped ? 1.0f / p.soft_cap : 0.0f;

    for (std::int32_t step = begin; step < end; ++step) {
        key_step<KV, tile.keys> const& now = place_of_step(step);
        ptx::copy_async_wait<later_groups>();
        __syncthreads();  // keys of this step are there; nobody reads the last step's values any more
        if constexpr (Rotation == key_rotation::streaming) {
            rotate_step<T, HeadDim, Rows>(shared, a, step);
            __syncthreads();
        }
        if (stages == 1 || step > begin) fetch_values(step + stages - 1);
        locate_keys(step + stages, threadIdx.x);

        float score[row_tiles][key_tiles][4];
        std::uint32_t const keys = key_tile + step % stages * stage_bytes + key_warp * warp_bytes;
        if constexpr (widens)
            score_widened<T, HeadDim, key_tiles>(score[0], query_tile, keys);
        else
            score_tile<T, HeadDim, row_tiles, key_tiles>(score, query_tile, keys);

        ptx::copy_async_wait<later_groups>();
        __syncthreads();  // values are there; nobody reads the keys any more; the step `stages` on is located
        fetch_keys(step + stages);
        if (capped) {
            WINNOW_UNROLL
            for (int i = 0; i < row_tiles; ++i) WINNOW_UNROLL
            for (int n = 0; n < key_tiles; ++n) WINNOW_UNROLL
            for (int e = 0; e < 4; ++e)
                score[i][n][e] = soft_capped(score[i][n][e], score_scale, p.soft_cap, inverse_cap);
        }
        std::uint32_t probability[row_tiles][key_tiles][2];
        bool masked = false;
        WINNOW_UNROLL
        for (int i = 0; i < (tile.keys + 31) / 32; ++i) masked |= now.masked[i] != 0;
        if (masked) {
            WINNOW_UNROLL
            for (int i = 0; i < row_tiles; ++i) {
                row_limits const* const limits = shared.limits + row_warp * tile.warp_rows() + 16 * i + lane / 4;
                mask_scores(score[i], now.granule + key_warp * key_tiles, limits[0], limits[8], p.window.sinks);
            }
        }
        WINNOW_UNROLL
        for (int i = 0; i < row_tiles; ++i) {
            softmax_step<tile.threads()>(state[i], &shared.lane_sum[2 * i][threadIdx.x], score[i], output[i], c);
            round_probabilities<T>(probability[i], score[i]);
        }
        std::uint32_t const values = value_tile + step % stages * stage_bytes + key_warp * warp_bytes;
        if constexpr (widens)
            accumulate_widened<T, HeadDim, key_tiles>(output[0], probability[0], values);
        else
            accumulate_tile<T, HeadDim, row_tiles, key_tiles>(output, probability, values);
    }
    if constexpr (Rows == attend_rows::decode) ptx::wait_for_earlier_grids();

    if constexpr (tile.key_warps == 1) {
        if (writer.corrects()) {  // before and not while rows are written, which would take registers from all launches
            WINNOW_UNROLL
            for (int i = 0; i < row_tiles; ++i)
                correct_rows<tile.threads()>(writer, state[i], &shared.lane_sum[2 * i][threadIdx.x], output[i], c,
                                             row_warp * tile.warp_rows() + 16 * i + lane / 4);
        }
        WINNOW_UNROLL
        for (int i = 0; i < row_tiles; ++i) {
            WINNOW_UNROLL
            for (int h = 0; h < 2; ++h) {
                float const sum = row_sum(shared.lane_sum[2 * i + h][threadIdx.x]);
                if (!writer.select(row_warp * tile.warp_rows() + 16 * i + lane / 4 + 8 * h)) continue;
                float lse = sum == 0.0f ? minus_infinity : state[i].maximum[h] * c + ptx::log2_fast(sum);
                float const inverse = (sum == 0.0f ? 0.0f : 1.0f / sum) * writer.add_sink(lse);
                WINNOW_UNROLL
                for (int d = 0; d < HeadDim / 8; ++d)
                    writer.channels(8 * d + 2 * (lane % 4), output[i][d][2 * h] * inverse,
                                    output[i][d][2 * h + 1] * inverse);
                if (lane % 4 == 0) writer.log_sum_exp(lse);
            }
        }
    } else {
        merge_key_warps<HeadDim>(shared, state[0], output[0], c, value_scale, w.rows.count * a.schedule.tile_heads,
                                 writer);
    }
    if constexpr (Rows == attend_rows::decode)
        if (merges)
            merge_pieces<HeadDim, attend_bounds<HeadDim, Rows, KV>::merge_registers>(shared.merge, a, w, pieces);
}

}  // namespace winnow
