// Lines up what a chunk attends to: cached tokens in physical order, then the chunk; keys and queries rotated on the way.
//
// Softmax does not care about the order of keys, and RoPE carries their positions, so nothing is sorted. A key is rotated
// anew for every chunk: positions move whenever something falls out of the cache.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/stage/cascade_rows.cuh"
#include "winnow/stage/rotate_rows.cuh"

namespace winnow {

/// What a block's threads share.
template <class T>
struct cascade_gather_storage {
    cascade_turns turns;
    cascade_counters counters;
    T const* source[cascade_gather_rows];  ///< first head of the block's
    std::int64_t source_head[cascade_gather_rows];
};

/// One of three kinds of rows, for a set of heads.
template <class T>
struct cascade_gather_part {
    std::int32_t rows;        ///< of the request
    std::int32_t first_head;  ///< of the set
    fast_divider heads;       ///< in the set
    T* target;                ///< row 0, first head
    std::int64_t target_row, target_head;
    bool rotates;
};

/// Part `index`: sets of key heads, then all values, then all queries.
template <class T>
WINNOW_DEVICE cascade_gather_part<T> gather_part(cascade_attend_arguments<T> const& a, cascade_chunk const& chunk,
                                                 std::int32_t b, std::int32_t cached, std::int32_t index) {
    std::int32_t const channels = a.shape.head_dim;
    std::int64_t const head_stride = std::int64_t{a.shape.max_keys} * channels;
    if (index > a.key_sets) {
        std::int64_t const row = std::int64_t{a.shape.heads} * channels;
        std::int64_t const first = std::int64_t{chunk.outer} * a.params.queries.extent[1] + chunk.first_row;
        return {chunk.tokens, 0, a.heads, a.turned_queries + first * row, row, channels, true};
    }
    bool const keys = index < a.key_sets;
    std::int32_t const first = keys ? index * a.set_heads.divisor : 0;
    return {cached + chunk.tokens,
            first,
            keys ? a.set_heads : a.kv_heads,
            (keys ? a.linear_keys : a.linear_values) + a.linear_row(b, first) * channels,
            channels,
            head_stride,
            keys && !a.rotary.rotation.empty()};
}

/// Where row `row` of a part comes from and which position it has.
template <class T>
WINNOW_DEVICE void find_row(cascade_attend_arguments<T> const& a, cascade_chunk const& chunk,
                            cascade_gather_part<T> const& part, std::int32_t index, std::int32_t cached,
                            std::int32_t row, std::int32_t at, cascade_gather_storage<T>& shared) {
    cascade_attend_params<T> const& p = a.params;
    bool const original = p.positions == cascade_positions::original;
    bool const queries = index > a.key_sets, keys = index < a.key_sets;
    std::int32_t const token = queries ? row : row - cached;
    if (token < 0) {
        cascade_entry const entry = entry_at(p.cache.layout, shared.counters, row);
        std::int64_t const channels = a.shape.head_dim;
        T const* const rows =
            keys ? p.cache.keys(chunk.sequence, part.first_head) : p.cache.values(chunk.sequence, part.first_head);
        shared.source[at] = rows + entry.row * channels;
        shared.source_head[at] = p.cache.stored_rows() * channels;
        std::int32_t position = entry.position;
        if (original && entry.row >= p.cache.layout.sinks)
            position = p.cache.origins(chunk.sequence,
                                       p.cache.token_head_of(part.first_head))[entry.row - p.cache.layout.sinks];
        shared.turns.position[at] = position;
        return;
    }
    tensor_view<T const, 4> const& from = queries ? p.queries : keys ? p.keys : p.values;
    shared.source[at] = from.data + from.offset(chunk.outer, chunk.first_row + token, part.first_head);
    shared.source_head[at] = from.stride[2];
    shared.turns.position[at] = (original ? static_cast<std::int32_t>(shared.counters.seen) : cached) + token;
}

/// Block (group of rows, part, request). Heads whose tokens have the same positions share a block and its sines.
template <class T>
__global__ void __launch_bounds__(cascade_gather_threads)
    cascade_gather(cascade_attend_arguments<T> const __grid_constant__ a) {
    __shared__ cascade_gather_storage<T> shared;
    std::int32_t const thread = threadIdx.x, index = blockIdx.y, b = blockIdx.z;
    cascade_chunk const chunk = a.chunk(b);
    bool const reports = blockIdx.x == 0 && index == 0 && thread == 0;
    if (chunk.sequence < 0) {
        if (reports) a.lengths[b] = 0;
        return;
    }
    load_counters(shared.counters, a.params.cache.counters(chunk.sequence));
    __syncthreads();
    std::int32_t const cached = live_tokens(a.params.cache.layout, shared.counters);
    if (reports) a.lengths[b] = cached + chunk.tokens;
    auto const part = gather_part(a, chunk, b, cached, index);
    std::int32_t const pairs = a.rotary.rotation.pairs(a.shape.head_dim);
    std::int32_t const per_block = cascade_gather_rows_of(pairs), first = blockIdx.x * per_block;
    std::int32_t const rows = smaller(part.rows - first, per_block);
    if (rows <= 0) return;
    if (thread < rows) find_row(a, chunk, part, index, cached, first + thread, thread, shared);
    vector_columns const columns{a.shape.head_dim / vector_channels, part.rotates ? pairs / vector_channels : 0};
    if (part.rotates)
        fill_rotations<cascade_gather_threads>(a.rotary, columns, rows, shared.turns.position, shared.turns.turns,
                                               shared.turns.rotation);
    __syncthreads();

    // head_dim is a power of two and rotary_dim a multiple of 16: a head has head_dim / 16 columns of two vectors.
    std::int32_t const shift = 31 - __clz(columns.count());
    std::int32_t const items = (rows * part.heads.divisor) << shift;
    for (std::int32_t i = thread; i < items; i += cascade_gather_threads) {
        std::int32_t const column = i & (columns.count() - 1), pair_row = i >> shift;
        std::int32_t const row = part.heads.quotient(pair_row), head = pair_row - row * part.heads.divisor;
        T const* const from = shared.source[row] + head * shared.source_head[row];
        T* const to = part.target + (first + row) * part.target_row + head * part.target_head;
        move_pair(a.rotary, columns, shared.turns.rotation, row, column, from, to, part.rotates);
    }
}

}  // namespace winnow
