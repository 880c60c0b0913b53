// Scores the chunks of one pruning stage on tensor cores: gather the probes' keys, multiply, take maxima over rows.
//
// One block: 32 chunks (tree scorers, two probes each) or 64, one query block, one query head or KV group. Rounds of a
// tree search are dependent, so several blocks share a multiprocessor to hide the loads.
#pragma once

#include <cstdint>
#include <limits>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/prune_place.cuh"
#include "winnow/tile/gemm.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

template <class T, int HeadDim>
struct prune_score_storage {
    alignas(1024) T query[prune_rows * HeadDim];
    alignas(1024) T key[prune_probes * HeadDim];
    prune_place place;
    std::int32_t looking[prune_rows];   ///< position each row looks from; -1: no such row
    std::int32_t probe[prune_probes];   ///< key each column probes (mean_key: the chunk's last key); -1: none
    std::int64_t offset[prune_probes];  ///< of that key's row, in elements; no_probe: none
    std::int32_t left[prune_probes];    ///< current branch of each chunk
    std::int32_t right[prune_probes];
    float score[prune_probes];  ///< of each column, over all rows
};
inline constexpr std::int64_t no_probe = std::numeric_limits<std::int64_t>::min();
inline constexpr std::int32_t beyond_every_row = std::numeric_limits<std::int32_t>::max();

/// Which rows a block scores: groups of averaged queries times heads.
struct prune_row_set {
    std::int32_t first_group;  ///< absolute position / query_stride
    std::int32_t groups;
    std::int32_t first_head;
    std::int32_t heads;
    WINNOW_HOST_DEVICE constexpr std::int32_t rows() const { return groups * heads; }
};

/// Offset of the row of key `position`, or no_probe.
template <class T>
WINNOW_DEVICE std::int64_t key_offset(prune_arguments<T> const& a, std::int32_t b, std::int32_t kv_head,
                                      std::int32_t position) {
    tensor_view<T const, 4> const& keys = a.params.keys;
    token_location const where = locate(a.params.kv, a.page_size, keys.extent[0], b, position);
    return where.outer < 0 ? no_probe : keys.offset(where.outer, where.token, kv_head);
}

/// Rows [chunk * prune_rows, ..) of the row set, averaged over query_stride queries in fp32 and rounded to T.
template <class T, int HeadDim>
WINNOW_DEVICE void load_query_groups(prune_score_storage<T, HeadDim>& shared, prune_arguments<T> const& a,
                                     prune_row_set const& set, std::int32_t chunk) {
    constexpr int chunks = HeadDim / 8;
    prune_params<T> const& p = a.params;
    prune_place const& place = shared.place;
    std::int32_t const stride = p.method.stages[a.stage].query_stride;
    for (int i = threadIdx.x; i < prune_rows * chunks; i += prune_score_threads) {
        int const local = i / chunks, column = i % chunks, row = chunk * prune_rows + local;
        uint4 packed = make_uint4(0, 0, 0, 0);
        if (row < set.rows()) {
            std::int32_t const group = set.first_group + row / set.heads, head = set.first_head + row % set.heads;
            std::int32_t const first = larger(group * stride, place.span.first);
            std::int32_t const last = smaller(group * stride + stride - 1, place.span.last);
            T const* at = p.queries.data + column * 8 +
                          p.queries.offset(place.request.outer,
                                           place.request.first_row + first - place.request.first_position, head);
            if (first == last) {
                packed = *reinterpret_cast<uint4 const*>(at);
            } else {
                float sum[8] = {};
                for (std::int32_t q = first; q <= last; ++q, at += p.queries.stride[1]) {
                    uint4 const v = *reinterpret_cast<uint4 const*>(at);
                    std::uint32_t const pairs[4] = {v.x, v.y, v.z, v.w};
                    WINNOW_UNROLL
                    for (int k = 0; k < 4; ++k) {
                        float2 const x = ptx::unpack<T>(pairs[k]);
                        sum[2 * k] += x.x;
                        sum[2 * k + 1] += x.y;
                    }
                }
                float const count = static_cast<float>(last - first + 1);
                packed = make_uint4(
                    ptx::pack<T>(sum[0] / count, sum[1] / count), ptx::pack<T>(sum[2] / count, sum[3] / count),
                    ptx::pack<T>(sum[4] / count, sum[5] / count), ptx::pack<T>(sum[6] / count, sum[7] / count));
            }
            if (column == 0) shared.looking[local] = looking_position(p.mask.kind, first, place.request.keys);
        } else if (column == 0) {
            shared.looking[local] = -1;
        }
        *reinterpret_cast<uint4*>(reinterpret_cast<char*>(shared.query) + swizzled<HeadDim>(local, column)) = packed;
    }
}

/// Brings the probed keys into shared memory.
template <class T, int HeadDim>
WINNOW_DEVICE void load_probes(prune_score_storage<T, HeadDim>& shared, T const* keys) {
    constexpr int chunks = HeadDim / 8;
    std::uint32_t const tile = ptx::shared_address(shared.key);
    for (int i = threadIdx.x; i < prune_probes * chunks; i += prune_score_threads) {
        int const row = i / chunks, column = i % chunks;
        std::int64_t const offset = shared.offset[row];
        bool const exists = offset != no_probe;
        ptx::copy_async_16(tile + swizzled<HeadDim>(row, column), keys + (exists ? offset : 0) + column * 8, exists);
    }
    ptx::copy_async_commit();
}

/// The mean of each chunk's keys, fp32 sums rounded to T. Reads every key of the chunk.
template <class T, int HeadDim>
WINNOW_DEVICE void load_means(prune_score_storage<T, HeadDim>& shared, prune_arguments<T> const& a, std::int32_t b,
                              std::int32_t kv_head) {
    constexpr int chunks = HeadDim / 8;
    for (int i = threadIdx.x; i < prune_probes * chunks; i += prune_score_threads) {
        int const row = i / chunks, column = i % chunks;
        std::int32_t const left = shared.left[row], right = shared.right[row];
        float sum[8] = {};
        for (std::int32_t key = left; key < right; ++key) {
            std::int64_t const offset = key_offset(a, b, kv_head, key);
            if (offset == no_probe) continue;
            uint4 const v = *reinterpret_cast<uint4 const*>(a.params.keys.data + offset + column * 8);
            std::uint32_t const pairs[4] = {v.x, v.y, v.z, v.w};
            WINNOW_UNROLL
            for (int k = 0; k < 4; ++k) {
                float2 const x = ptx::unpack<T>(pairs[k]);
                sum[2 * k] += x.x;
                sum[2 * k + 1] += x.y;
            }
        }
        float const count = static_cast<float>(larger(right - left, 1));
        *reinterpret_cast<uint4*>(reinterpret_cast<char*>(shared.key) + swizzled<HeadDim>(row, column)) =
            make_uint4(ptx::pack<T>(sum[0] / count, sum[1] / count), ptx::pack<T>(sum[2] / count, sum[3] / count),
                       ptx::pack<T>(sum[4] / count, sum[5] / count), ptx::pack<T>(sum[6] / count, sum[7] / count));
    }
}

/// score[column] = max(score[column], max over the rows held of query . key), for rows that may see the column's key.
template <class T, int HeadDim>
WINNOW_DEVICE void score_columns(prune_score_storage<T, HeadDim>& shared, std::int32_t rows) {
    int const warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    std::uint32_t const queries = ptx::shared_address(shared.query);
    std::uint32_t const keys = ptx::shared_address(shared.key) + warp * 16 * HeadDim * sizeof(T);
    float most[2][2] = {{minus_infinity, minus_infinity}, {minus_infinity, minus_infinity}};
    for (int first = 0; first < rows; first += 16) {
        float product[1][2][4];
        score_tile<T, HeadDim, 1, 2>(product, queries + first * HeadDim * sizeof(T), keys);
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) {
            std::int32_t const looking = shared.looking[first + lane / 4 + 8 * h];
            WINNOW_UNROLL
            for (int n = 0; n < 2; ++n) WINNOW_UNROLL
            for (int e = 0; e < 2; ++e)
                if (shared.probe[warp * 16 + 8 * n + 2 * (lane % 4) + e] <= looking)
                    most[n][e] = fmaxf(most[n][e], product[0][n][2 * h + e]);  // NaN never wins
        }
    }
    WINNOW_UNROLL
    for (int n = 0; n < 2; ++n) WINNOW_UNROLL
    for (int e = 0; e < 2; ++e) {
        float x = most[n][e];
        WINNOW_UNROLL
        for (int o = 4; o < 32; o *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, o));
        int const column = warp * 16 + 8 * n + 2 * lane + e;
        if (lane < 4) shared.score[column] = fmaxf(shared.score[column], x);
    }
}

/// Where the first and the second probe of branch [left, right) go.
struct branch_probes {
    std::int32_t first;
    std::int32_t second;
};

WINNOW_HOST_DEVICE constexpr branch_probes probes_of(scorer s, std::int32_t left, std::int32_t right) {
    std::int32_t const centre = left + (right - left) / 2;
    if (s == scorer::tree_probe) return {left + (centre - left) / 2, centre + (right - centre) / 2};
    return {left, centre};
}

template <class T, int HeadDim>
__global__ void __launch_bounds__(prune_score_threads, 4) prune_score(prune_arguments<T> const __grid_constant__ a) {
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<prune_score_storage<T, HeadDim>*>(raw);
    prune_params<T> const& p = a.params;
    prune_method const& m = p.method;
    prune_stage const& stage = m.stages[a.stage];
    scorer const how = m.scorer;
    int const t = threadIdx.x;

    std::int32_t const per_block = chunks_per_block(how), tiles = ceil_div(a.max_candidates, per_block);
    std::int32_t const index = blockIdx.x / tiles, first_chunk = blockIdx.x % tiles * per_block, b = blockIdx.z;
    std::int32_t const group = a.shape.group(), heads = heads_scored_together(m, group);
    std::int32_t const first_head = blockIdx.y * heads, kv_head = first_head / group;
    std::int32_t const list_head = list_head_of(first_head, a.shape.heads, a.list_heads);

    if (t == 0) shared.place = place_of(a, index, list_head, b);
    __syncthreads();
    prune_place const& place = shared.place;
    // A stage that keeps all its candidates needs no scores.
    if (!place.due || place.candidates <= stage.keep || first_chunk >= place.candidates) return;
    std::int32_t const first_group = place.span.first / stage.query_stride;
    prune_row_set const set{first_group, place.span.last / stage.query_stride - first_group + 1, first_head, heads};
    std::int32_t const row_chunks = ceil_div(set.rows(), prune_rows);

    if (t < prune_probes) {
        std::int32_t const chunk = first_chunk + t;
        bool const exists = t < per_block && chunk < place.candidates;
        shared.left[t] = exists ? place.left(chunk, m.window.sinks, stage.chunk) : 0;
        shared.right[t] = exists ? smaller(shared.left[t] + stage.chunk, place.eligible) : 0;
    }
    if (row_chunks == 1) load_query_groups(shared, a, set, 0);
    float best = minus_infinity;
    std::int32_t const rounds = walks_tree(how) ? larger(ceil_log2(stage.chunk), 1) : 1;
    for (std::int32_t round = 0; round < rounds; ++round) {
        __syncthreads();
        if (t < prune_probes) {
            int const mine = walks_tree(how) ? t % per_block : t;
            std::int32_t const left = shared.left[mine], right = shared.right[mine];
            // A branch of one key was probed when its parent was; only a chunk that starts as one is probed again.
            bool const active = left < right && (round == 0 || right - left > 1);
            std::int32_t position = -1;
            if (active) {
                if (how == scorer::mean_key) {
                    position = right - 1;
                } else if (how == scorer::centre_probe) {
                    position = left + (right - left) / 2;
                } else {
                    branch_probes const probes = probes_of(how, left, right);
                    position = t < per_block ? probes.first : probes.second;
                }
            }
            // Columns without a probe stand beyond every row.
            shared.probe[t] = active ? position : beyond_every_row;
            shared.offset[t] = active && how != scorer::mean_key ? key_offset(a, b, kv_head, position) : no_probe;
            shared.score[t] = minus_infinity;
        }
        __syncthreads();
        if (how == scorer::mean_key) {
            load_means(shared, a, b, kv_head);
        } else {
            load_probes(shared, p.keys.data);
            ptx::copy_async_wait<0>();
        }
        for (std::int32_t chunk = 0; chunk < row_chunks; ++chunk) {
            if (row_chunks > 1) {
                if (chunk > 0) __syncthreads();
                load_query_groups(shared, a, set, chunk);
            }
            __syncthreads();
            score_columns(shared, smaller(set.rows() - chunk * prune_rows, prune_rows));
        }
        __syncthreads();
        if (t < per_block && shared.left[t] < shared.right[t]) {
            std::int32_t const left = shared.left[t], right = shared.right[t];
            if (!walks_tree(how)) {
                best = shared.score[t];
            } else if (round == 0 || right - left > 1) {
                float const first = shared.score[t], second = shared.score[t + per_block];
                bool const go_left = first > second;
                best = how == scorer::tree_probe ? fmaxf(best, fmaxf(first, second)) : go_left ? first : second;
                std::int32_t const centre = left + (right - left) / 2;
                if (go_left)
                    shared.right[t] = centre;
                else
                    shared.left[t] = centre;
            }
        }
    }
    if (t < per_block && first_chunk + t < place.candidates) {
        // Heads that walk together may have lists of their own.
        std::int32_t const lists = list_head_of(first_head + heads - 1, a.shape.heads, a.list_heads) - list_head + 1;
        std::int64_t const per_list = a.list_rows / (static_cast<std::int64_t>(a.shape.batch) * a.list_heads);
        for (std::int32_t i = 0; i < lists; ++i) {
            std::int64_t const row = place.score_row + (a.cached ? i : i * per_list);
            atomicMax(a.scores + row * a.max_candidates + first_chunk + t, ordered_key(best));  // exact in any order
        }
    }
}

}  // namespace winnow
