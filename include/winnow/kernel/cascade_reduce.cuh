// From the attention that each head gives a key to the score of its token, and to the average that a slot keeps.
//
//   score of a slot <- beta^S score + reduce over heads of sums,   score of a new token = reduce over heads of sums
#pragma once

#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/ptx/grid_dependency.cuh"

namespace winnow {

/// Key `key` of a request, for the heads that share set `token_head` of tokens. One thread.
template <class T>
WINNOW_DEVICE void reduce_key(cascade_attend_arguments<T> const& a, cascade_chunk const& chunk, std::int32_t b,
                              std::int32_t token_head, std::int32_t key) {
    std::int32_t const cached = a.lengths[b] - chunk.tokens;
    cascade_cache<T> const& cache = a.params.cache;
    std::int32_t const heads = a.shape.heads / cache.token_heads();
    float const* const sums = a.sums + (std::int64_t{b} * a.shape.heads + token_head * heads) * a.shape.max_keys + key;
    auto const of = [&](std::int32_t head) { return sums[std::int64_t{head} * a.shape.max_keys]; };
    float const score = reduce_heads(a.params.scorer.reduction, heads, of);
    if (key >= cached) {
        a.params.scores(chunk.outer, chunk.first_row + key - cached, token_head) = score;
        return;
    }
    std::int32_t const row = entry_at(cache.layout, *cache.counters(chunk.sequence), key).row;
    if (row < cache.layout.sinks) return;
    float* const old = cache.scores(chunk.sequence, token_head) + row - cache.layout.sinks;
    *old = fmaf(*old, exp2f(static_cast<float>(a.log2_beta * chunk.tokens)), score);
}

/// One thread per key. Block (group of keys, set of tokens, request).
template <class T>
__global__ void __launch_bounds__(cascade_reduce_threads)
    cascade_reduce(cascade_attend_arguments<T> const __grid_constant__ a) {
    ptx::let_later_grid_start();
    ptx::wait_for_earlier_grids();
    std::int32_t const key = blockIdx.x * cascade_reduce_threads + threadIdx.x, b = blockIdx.z;
    cascade_chunk const chunk = a.chunk(b);
    if (key < a.lengths[b] && chunk.tokens > 0) reduce_key(a, chunk, b, blockIdx.y, key);
}

}  // namespace winnow
