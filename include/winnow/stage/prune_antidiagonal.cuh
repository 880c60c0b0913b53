// Scores chunks by antidiagonals: sums of scores over squares of `stride` query rows and `stride` keys, of which each row
// and each key enters once.
//
//   sum(i, j) = sum_r q_{s i + s - 1 - r} . k_{left + s j + r},   score(chunk) = max over groups i and squares j
//
// A group's rows lie in shared memory by residues: eight groups' rows of residue 0, then of residue 1, and so on. A sum
// is s products into the same accumulators.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/stage/prune_walk.cuh"
#include "winnow/tile/probe_keys.cuh"

namespace winnow {

/// Groups of eight rows whose sums are under way: keys are loaded once for all of them, and each takes 4 registers.
inline constexpr int antidiagonal_batch = 8;

/// Brings rows [first_row, first_row + count) of a unit into shared memory, one by one; zeros for rows that the query
/// block does not have. Needs a barrier before and behind.
template <class T, int HeadDim>
__device__ __noinline__ void hold_single_rows(prune_score_storage<HeadDim>& shared, unsigned char* queries,
                                              prune_row_set const& set, std::int32_t first_row, std::int32_t count) {
    constexpr int chunks = HeadDim / 8;
    prune_query_source const& from = shared.source;
#pragma unroll 1
    for (std::int32_t i = threadIdx.x; i < count * chunks; i += blockDim.x) {
        std::int32_t const local = i / chunks, chunk = i % chunks;
        prune_single_row const row = single_row_of(set, first_row + local);
        bool const exists = row.position >= from.span.first && row.position <= from.span.last;
        T const* const at =
            static_cast<T const*>(from.data) + row.position * from.row_stride + row.head * from.head_stride + chunk * 8;
        uint4 const v = exists ? *reinterpret_cast<uint4 const*>(at) : make_uint4(0, 0, 0, 0);
        hold_chunk<HeadDim, product_unit::warp>(queries, count, local, chunk, v);
        if (chunk == 0)
            shared.looking[local] = looking_position(from.mask, larger(row.first, from.span.first), from.keys);
    }
}

/// False where the query block has no row that meets key `r` of a square: a decode step has one residue.
WINNOW_HOST_DEVICE constexpr bool meets_row(query_span span, std::int32_t stride, std::int32_t r) {
    return ((stride - 1 - r - span.first) & (stride - 1)) <= span.last - span.first;
}

/// The scores of chunks of at most `size` keys.
template <int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void score_antidiagonals(prune_prober<T, HeadDim, Unit>& prober, chunk_slots<2 * Tiles>& chunk,
                                       std::int32_t size) {
    std::int32_t const stride = prober.set.residues, held = prune_rows_held(HeadDim);
    query_span const span = prober.shared.place.span;
    float score[Tiles][2];
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t) score[t][0] = score[t][1] = minus_infinity;
#pragma unroll 1
    for (std::int32_t slice = 0; slice < prober.slices; ++slice) {
        if (prober.slices > 1) {
            std::int32_t const first = slice * held, count = smaller(prober.set.padded() - first, held);
            __syncthreads();
            hold_single_rows<T, HeadDim>(prober.shared, prober.queries, prober.set, first, count);
            __syncthreads();
            prober.rows.tiles = count / prune_row_tile;
        }
        std::int32_t const groups = prober.rows.tiles / stride;
#pragma unroll 1
        for (std::int32_t first = 0; first < size; first += stride) {
            std::int32_t last[Tiles][2];  // key of each square
            WINNOW_UNROLL
            for (int s = 0; s < 2 * Tiles; ++s) {
                std::int32_t const start = chunk.left[s] + first, right = chunk.right[s];
                last[s / 2][s % 2] = start < right ? smaller(start + stride, right) - 1 : no_key;
            }
#pragma unroll 1
            for (std::int32_t group = 0; group < groups; group += antidiagonal_batch) {
                float sum[antidiagonal_batch][Tiles][4];
                WINNOW_UNROLL
                for (int n = 0; n < antidiagonal_batch; ++n) WINNOW_UNROLL
                for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
                for (int e = 0; e < 4; ++e) sum[n][t][e] = 0.0f;
#pragma unroll 1
                for (std::int32_t r = 0; r < stride; ++r) {
                    if (!meets_row(span, stride, r)) continue;
                    probe_keys<HeadDim, Tiles> keys;
                    WINNOW_UNROLL
                    for (int s = 0; s < 2 * Tiles; ++s) {
                        std::int32_t const key = chunk.left[s] + first + r;
                        load_key<T, HeadDim>(keys.part[s / 2][s % 2],
                                             prober.key_at(key < chunk.right[s] ? key : no_key));
                    }
                    WINNOW_UNROLL
                    for (int n = 0; n < antidiagonal_batch; ++n) {
                        if (group + n >= groups) continue;
                        std::int32_t const tile = (group + n) * stride + stride - 1 - r;
                        multiply<T>(sum[n], keys, prober.rows.queries + tile * prune_row_tile * HeadDim * 2);
                    }
                }
                WINNOW_UNROLL
                for (int n = 0; n < antidiagonal_batch; ++n) {
                    if (group + n >= groups) continue;
                    WINNOW_UNROLL
                    for (int t = 0; t < Tiles; ++t) {
                        float const one[1][4] = {{sum[n][t][0], sum[n][t][1], sum[n][t][2], sum[n][t][3]}};
                        float seen[2] = {minus_infinity, minus_infinity};
                        fold_rows(seen, one, last[t], prober.rows, (group + n) * stride);
                        WINNOW_UNROLL
                        for (int h = 0; h < 2; ++h)  // a square behind the chunk's end has sums too, of zeros
                            if (last[t][h] != no_key) score[t][h] = fmaxf(score[t][h], seen[h]);
                    }
                }
            }
        }
    }
    quad_maximum(score);
    WINNOW_UNROLL
    for (int s = 0; s < 2 * Tiles; ++s) chunk.score[s] = score[s / 2][s % 2];
}

}  // namespace winnow
