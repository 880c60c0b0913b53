// The rotated copy of keys after an insertion: each key that has moved, rotated by its new row (kernel/cascade_decode.cuh
// says why) or by the index of its token.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/cascade_rows.cuh"
#include "winnow/stage/rotate_rows.cuh"

namespace winnow {

/// Rotates the keys of the first `rows` <= cascade_gather_rows_of() moves of one head, which are in their places. All
/// threads of the block call.
template <class T>
WINNOW_DEVICE void turn_moves(cascade_insert_arguments<T> const& a, cascade_chunk const& chunk, std::int32_t kv_head,
                              cascade_move const* moves, std::int32_t rows, cascade_turns& turns) {
    cascade_cache<T> const& cache = a.params.cache;
    std::int32_t const thread = threadIdx.x, pairs = a.rotary.rotation.pairs(cache.head_dim);
    if (thread < rows) {
        bool const by_index = a.params.positions == cascade_positions::original;
        turns.position[thread] = by_index ? moves[thread].origin : moves[thread].target;
    }
    vector_columns const columns{cache.head_dim / vector_channels, pairs / vector_channels};
    if (pairs > 0)
        fill_rotations<cascade_move_threads>(a.rotary, columns, rows, turns.position, turns.turns, turns.rotation);
    __syncthreads();
    std::int32_t const shift = 31 - __clz(columns.count());
    T const* const from = cache.keys(chunk.sequence, kv_head);
    T* const to = cache.rotated(chunk.sequence, kv_head);
    for (std::int32_t i = thread; i < rows << shift; i += cascade_move_threads) {
        std::int32_t const row = i >> shift, column = i & (columns.count() - 1);
        std::int64_t const at = std::int64_t{moves[row].target} * cache.head_dim;
        move_pair(a.rotary, columns, turns.rotation, row, column, from + at, to + at, pairs > 0);
    }
}

/// Block (group of moves, KV head, request).
template <class T>
__global__ void __launch_bounds__(cascade_move_threads)
    cascade_turn_rows(cascade_insert_arguments<T> const __grid_constant__ a) {
    __shared__ cascade_turns turns;
    ptx::let_later_grid_start();
    ptx::wait_for_earlier_grids();
    cascade_chunk const chunk = a.chunk(blockIdx.z);
    if (chunk.tokens == 0) return;
    cascade_lists const lists = a.lists(blockIdx.z, a.params.cache.token_head_of(blockIdx.y));
    std::int32_t const per_block = cascade_gather_rows_of(a.rotary.rotation.pairs(a.params.cache.head_dim));
    std::int32_t const first = blockIdx.x * per_block, rows = smaller(*lists.move_count - first, per_block);
    if (rows > 0) turn_moves(a, chunk, blockIdx.y, lists.moves + first, rows, turns);
}

}  // namespace winnow
