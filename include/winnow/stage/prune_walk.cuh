// How a warp finds the scores of its chunks: which keys it looks at, and where a tree search goes next.
//
// Lane 4 g + q holds chunk 8 s + g in slot s; the four lanes of a chunk hold the same and decide alike, so a search
// needs two shuffles a round and nothing else from its neighbours.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/prefetch.cuh"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/stage/prune_turned.cuh"
#include "winnow/tile/probe_keys.cuh"

namespace winnow {

/// What keys are stored as.
template <class T, product_unit Unit>
using stored_key = std::conditional_t<Unit == product_unit::widened, fp8_e4m3, T>;

/// Key `position` of one request and KV head; null for no_key and for keys on bad pages, which read as zeros.
template <product_unit Unit, class T>
WINNOW_DEVICE stored_key<T, Unit> const* key_at(prune_arguments<T> const& a, std::int32_t b, std::int32_t kv_head,
                                                std::int32_t position) {
    if (position == no_key) return nullptr;
    tensor_view<T const, 4> const& keys = a.params.keys;
    token_location const where = locate(a.params.kv, a.page_size, keys.extent[0], b, position);
    if (where.outer < 0) return nullptr;
    return reinterpret_cast<stored_key<T, Unit> const*>(keys.data) + keys.offset(where.outer, where.token, kv_head);
}

/// Scores keys against the rows of one walker.
template <class T, int HeadDim, product_unit Unit>
struct prune_prober {
    prune_arguments<T> const& a;
    prune_score_storage<HeadDim>& shared;
    unsigned char* queries;  ///< the block's
    prune_row_set set;
    std::int32_t b;
    std::int32_t kv_head;
    held_rows rows;               ///< this walker's
    std::int32_t slices;          ///< more than 1: rows pass by in slices
    bool whole_chunks;            ///< none of the block's chunks is cut short
    prune_turning<Unit> turning;  ///< a slice holds half as many rows if they come twice

    /// True if all warps of the block have to probe in step: they wait for each other.
    [[nodiscard]] WINNOW_DEVICE bool in_step() const { return slices > 1; }

    /// score[tile][h] of the keys that `load` brings, which stand at `position`.
    template <class Keys, int Tiles, class Load>
    WINNOW_DEVICE void score(float (&score)[Tiles][2], std::int32_t const (&position)[Tiles][2], Load load) {
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) score[t][0] = score[t][1] = minus_infinity;
#pragma unroll 1
        for (std::int32_t slice = 0; slice < slices; ++slice) {
            if (slices > 1) hold(slice);
            Keys keys;
            load(keys);
            score_rows<T, HeadDim>(score, keys, position, rows);
        }
        quad_maximum(score);
    }
    /// The same for single keys.
    template <int Tiles>
    WINNOW_DEVICE void score(float (&found)[Tiles][2], std::int32_t const (&position)[Tiles][2]) {
        score<probe_keys<HeadDim, Tiles>>(found, position, [&](probe_keys<HeadDim, Tiles>& keys) {
            WINNOW_UNROLL
            for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
            for (int h = 0; h < 2; ++h)
                load_key<T, HeadDim>(keys.part[t][h], key_at<Unit>(a, b, kv_head, position[t][h]));
            if constexpr (Unit == product_unit::widened) widen_keys<T>(keys);
        });
    }
    /// found[slot][half] of two keys of each slot, the centres of both halves of a branch.
    template <int Slots>
    WINNOW_DEVICE void score_halves(float (&found)[Slots][2], std::int32_t const (&position)[Slots][2]) {
        if constexpr (Unit != product_unit::turned)
            score(found, position);
        else if (a.params.scan == scan_style::relative)
            score_relative(found, position);
        else
            score<probe_keys<HeadDim, Slots>>(found, position, [&](probe_keys<HeadDim, Slots>& keys) {
                WINNOW_UNROLL
                for (int s = 0; s < Slots; ++s) {
                    WINNOW_UNROLL
                    for (int h = 0; h < 2; ++h) {
                        load_key<T, HeadDim>(keys.part[s][h], key_at<Unit>(a, b, kv_head, position[s][h]));
                        turn_key<T, HeadDim>(keys.part[s][h], turning.turns,
                                             turning.first_chunk + 8 * s +
                                                 static_cast<std::int32_t>(threadIdx.x % 32 / 4));
                    }
                }
            });
    }
    /// found[0][slot] of one key of each slot.
    WINNOW_DEVICE void score_last(float (&found)[1][2], std::int32_t const (&position)[1][2]) {
        if constexpr (Unit != product_unit::turned)
            score(found, position);
        else
            score<probe_keys<HeadDim, 1>>(found, position, [&](probe_keys<HeadDim, 1>& keys) {
                WINNOW_UNROLL
                for (int s = 0; s < 2; ++s) {
                    load_key<T, HeadDim>(keys.part[0][s], key_at<Unit>(a, b, kv_head, position[0][s]));
                    turn_key<T, HeadDim>(keys.part[0][s], turning.turns,
                                         turning.first_chunk + 8 * s + static_cast<std::int32_t>(threadIdx.x % 32 / 4));
                }
            });
    }
    /// Left probes meet one copy of the rows, right ones the other, so a product takes keys of one side of two slots.
    template <int Slots>
    WINNOW_DEVICE void score_relative(float (&found)[Slots][2], std::int32_t const (&position)[Slots][2]) {
        constexpr int tiles = (Slots + 1) / 2;
        float side[2][tiles][2];
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) WINNOW_UNROLL
        for (int t = 0; t < tiles; ++t) side[h][t][0] = side[h][t][1] = minus_infinity;
#pragma unroll 1
        for (std::int32_t slice = 0; slice < slices; ++slice) {
            if (slices > 1) hold(slice);
            WINNOW_UNROLL
            for (int h = 0; h < 2; ++h) {
                std::int32_t at[tiles][2];
                probe_keys<HeadDim, tiles> keys;
                WINNOW_UNROLL
                for (int s = 0; s < 2 * tiles; ++s) {
                    at[s / 2][s % 2] = s < Slots ? position[s < Slots ? s : 0][h] : no_key;
                    load_key<T, HeadDim>(keys.part[s / 2][s % 2], key_at<Unit>(a, b, kv_head, at[s / 2][s % 2]));
                }
                held_rows copy = rows;
                copy.queries += h * turning.copy_rows * HeadDim * 2;
                score_rows<T, HeadDim>(side[h], keys, at, copy);
            }
        }
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) quad_maximum(side[h]);
        WINNOW_UNROLL
        for (int s = 0; s < Slots; ++s) WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) found[s][h] = side[h][s / 2][s % 2];
    }
    WINNOW_DEVICE void hold(std::int32_t slice) {
        std::int32_t const held = prune_rows_held(HeadDim) / prune_row_copies(Unit, a.params.scan),
                           first = slice * held, count = smaller(set.padded() - first, held);
        __syncthreads();
        if constexpr (Unit == product_unit::turned)
            hold_turned_rows<T, HeadDim>(shared, a, turning, set, turning.first_walker, first, count);
        else
            hold_query_rows<T, HeadDim, Unit>(shared, queries, set, 0, first, count);
        __syncthreads();
        rows.tiles = count / prune_row_tile;
    }
};

/// What a warp knows of the chunks it scores: slot s is chunk 8 s + g, empty where left == right.
template <int Slots>
struct chunk_slots {
    std::int32_t left[Slots];
    std::int32_t right[Slots];
    float score[Slots];
};

/// Keys per slot: tree_probe looks at two keys of a chunk, one in each half of a tile; other scorers at one.
template <scorer How, int Tiles>
inline constexpr int slots_of = How == scorer::tree_probe ? Tiles : 2 * Tiles;

/// Brings into L2 what the next round may look at: the four probes of both halves of the branch [left, right), one for
/// each lane of a chunk. Half of that is read in vain, so it is for steps that wait for memory more than they read.
template <class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void look_ahead(prune_prober<T, HeadDim, Unit> const& prober, std::int32_t left, std::int32_t right) {
    if (right - left <= 4) return;  // of branches of two keys few are looked at again
    std::int32_t const lane = threadIdx.x % 4, centre = left + (right - left) / 2;
    std::int32_t const first = lane < 2 ? left : centre, end = lane < 2 ? centre : right;
    std::int32_t const middle = first + (end - first) / 2;
    std::int32_t const probe = lane % 2 == 0 ? first + (middle - first) / 2 : middle + (end - middle) / 2;
    auto const* const key = key_at<Unit>(prober.a, prober.b, prober.kv_head, probe);
    if (key != nullptr) ptx::prefetch_to_l2(key, HeadDim * sizeof(*key));
}

/// Binary search by the keys at the centres of both halves; the score is the best key on the path.
///
/// In the last round a branch of two keys is left, and in a whole chunk both have been looked at on the way down, but
/// for the first key of either half of the chunk: so the last round looks at one key of few chunks.
template <int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void walk_both_halves(prune_prober<T, HeadDim, Unit>& prober, chunk_slots<Tiles>& chunk,
                                    std::int32_t size) {
    std::int32_t left[Tiles], right[Tiles];
    bool part = false;
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t) {
        left[t] = chunk.left[t], right[t] = chunk.right[t];
        part = part || (left[t] < right[t] && right[t] - left[t] < size);
    }
    // A key counts differently as a left and as a right probe where these stand at different distances: then a branch of
    // one key is looked at once more from either side.
    bool const sided = Unit == product_unit::turned && prober.a.params.scan == scan_style::relative;
    std::int32_t const rounds = larger(ceil_log2(size), 1) + (sided ? 1 : 0);
    bool const shortened = size >= 4 && !sided && (prober.in_step() ? prober.whole_chunks : !__any_sync(~0u, part));
#pragma unroll 1
    for (std::int32_t round = 0; round < rounds - (shortened ? 1 : 0); ++round) {
        if (prober.a.looks_ahead) {
            WINNOW_UNROLL
            for (int t = 0; t < Tiles; ++t) look_ahead(prober, left[t], right[t]);
        }
        std::int32_t position[Tiles][2];
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) {
            // A branch of one key was looked at when its parent was; only a chunk that starts as one is looked at again.
            bool const active = left[t] < right[t] && (sided || round == 0 || right[t] - left[t] > 1);
            std::int32_t const centre = left[t] + (right[t] - left[t]) / 2;
            position[t][0] = active ? left[t] + (centre - left[t]) / 2 : no_key;
            position[t][1] = active ? centre + (right[t] - centre) / 2 : no_key;
        }
        float found[Tiles][2];
        prober.score_halves(found, position);
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) {
            if (position[t][0] == no_key) continue;
            std::int32_t const centre = left[t] + (right[t] - left[t]) / 2;
            chunk.score[t] = fmaxf(chunk.score[t], fmaxf(found[t][0], found[t][1]));
            if (found[t][0] > found[t][1])
                right[t] = centre;
            else
                left[t] = centre;
        }
    }
    if (!shortened) return;
    std::int32_t position[1][2] = {{no_key, no_key}};
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t) {
        std::int32_t const from_start = left[t] - chunk.left[t];
        if (left[t] < right[t] && (from_start == 0 || from_start == size / 2)) position[0][t] = left[t];
    }
    if (!prober.in_step() && !__any_sync(~0u, position[0][0] != no_key || position[0][1] != no_key)) return;
    float found[1][2];
    prober.score_last(found, position);
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t)
        if (position[0][t] != no_key) chunk.score[t] = fmaxf(chunk.score[t], found[0][t]);
}

/// Binary search by the first key of each branch; the score is the last one reached. The first key of a branch was
/// looked at when its parent was, so a round looks at one key, the centre.
template <int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void walk_first_keys(prune_prober<T, HeadDim, Unit>& prober, chunk_slots<2 * Tiles>& chunk,
                                   std::int32_t size) {
    std::int32_t const rounds = ceil_log2(size);
#pragma unroll 1
    for (std::int32_t round = -1; round < rounds; ++round) {  // before the first round: the chunk's first key
        std::int32_t position[Tiles][2];
        WINNOW_UNROLL
        for (int s = 0; s < 2 * Tiles; ++s) {
            std::int32_t const left = chunk.left[s], right = chunk.right[s];
            bool const active = left < right && (round < 0 || right - left > 1);
            position[s / 2][s % 2] = active ? left + (round < 0 ? 0 : (right - left) / 2) : no_key;
        }
        float found[Tiles][2];
        prober.score(found, position);
        WINNOW_UNROLL
        for (int s = 0; s < 2 * Tiles; ++s) {
            if (position[s / 2][s % 2] == no_key) continue;
            float const here = found[s / 2][s % 2];
            if (round < 0) {
                chunk.score[s] = here;
            } else if (chunk.score[s] > here) {
                chunk.right[s] = position[s / 2][s % 2];
            } else {
                chunk.left[s] = position[s / 2][s % 2];
                chunk.score[s] = here;
            }
        }
    }
}

/// Summary of the keys [left, right), this lane's chunks of channels: part p goes to part[p]. Whole chunks may have one
/// beside the cache; otherwise every key is read.
template <scorer How, class T, int HeadDim, product_unit Unit, int Parts>
WINNOW_DEVICE void summarise(uint4 (&part)[Parts][HeadDim / 32], prune_prober<T, HeadDim, Unit> const& prober,
                             std::int32_t left, std::int32_t right) {
    summary_level const& level = prober.a.summaries;
    std::int32_t const row = prober.a.params.summary.row_of(prober.b), c = level.chunk_at(left, right - left);
    if (row >= 0 && c >= 0) {
        T const* const at = prober.a.params.summary.data + level.offset_of(row, c, prober.kv_head);
        WINNOW_UNROLL
        for (int p = 0; p < Parts; ++p) load_key<T, HeadDim>(part[p], at + p * HeadDim);
        return;
    }
    channel_summary_of<How, T> of[HeadDim / 32];
    for (std::int32_t key = left; key < right; ++key) {
        uint4 v[HeadDim / 32];
        load_key<T, HeadDim>(v, key_at<Unit>(prober.a, prober.b, prober.kv_head, key));
        WINNOW_UNROLL
        for (int j = 0; j < HeadDim / 32; ++j) of[j].add(v[j]);
    }
    WINNOW_UNROLL
    for (int p = 0; p < Parts; ++p) WINNOW_UNROLL
    for (int j = 0; j < HeadDim / 32; ++j) part[p][j] = of[j].value(p, larger(right - left, 1));
}

/// What stands for a chunk: one key, or bounds.
template <scorer How, int HeadDim, int Tiles>
struct chunk_keys {
    using type = probe_keys<HeadDim, Tiles>;
};
template <int HeadDim, int Tiles>
struct chunk_keys<scorer::min_max_bound, HeadDim, Tiles> {
    using type = probe_bounds<HeadDim, Tiles>;
};

template <scorer How, int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void load_summaries(probe_keys<HeadDim, Tiles>& keys, prune_prober<T, HeadDim, Unit> const& prober,
                                  chunk_slots<2 * Tiles> const& chunk) {
    WINNOW_UNROLL
    for (int s = 0; s < 2 * Tiles; ++s) {
        uint4 part[1][HeadDim / 32];
        summarise<How>(part, prober, chunk.left[s], chunk.right[s]);
        WINNOW_UNROLL
        for (int j = 0; j < HeadDim / 32; ++j) keys.part[s / 2][s % 2][j] = part[0][j];
    }
}

template <scorer How, int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void load_summaries(probe_bounds<HeadDim, Tiles>& keys, prune_prober<T, HeadDim, Unit> const& prober,
                                  chunk_slots<2 * Tiles> const& chunk) {
    WINNOW_UNROLL
    for (int s = 0; s < 2 * Tiles; ++s) {
        uint4 part[2][HeadDim / 32];
        summarise<How>(part, prober, chunk.left[s], chunk.right[s]);
        WINNOW_UNROLL
        for (int j = 0; j < HeadDim / 32; ++j) {
            keys.high.part[s / 2][s % 2][j] = part[0][j];
            keys.low.part[s / 2][s % 2][j] = part[1][j];
        }
    }
}

/// One thing stands for a chunk: the key at its centre, or a summary of all, which counts for rows that see the last.
template <scorer How, int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void score_one_key(prune_prober<T, HeadDim, Unit>& prober, chunk_slots<2 * Tiles>& chunk) {
    std::int32_t position[Tiles][2];
    WINNOW_UNROLL
    for (int s = 0; s < 2 * Tiles; ++s) {
        std::int32_t const left = chunk.left[s], right = chunk.right[s];
        position[s / 2][s % 2] = left >= right             ? no_key
                                 : reads_whole_chunks(How) ? right - 1
                                                           : left + (right - left) / 2;
    }
    float found[Tiles][2];
    if constexpr (reads_whole_chunks(How)) {
        prober.template score<typename chunk_keys<How, HeadDim, Tiles>::type>(
            found, position, [&](auto& keys) { load_summaries<How, Tiles>(keys, prober, chunk); });
    } else {
        prober.score(found, position);
    }
    WINNOW_UNROLL
    for (int s = 0; s < 2 * Tiles; ++s) chunk.score[s] = found[s / 2][s % 2];
}

/// The scores of chunks of at most `size` keys, by scorer `How`.
template <scorer How, int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void score_chunks(prune_prober<T, HeadDim, Unit>& prober, chunk_slots<slots_of<How, Tiles>>& chunk,
                                std::int32_t size) {
    if constexpr (How == scorer::tree_probe)
        walk_both_halves<Tiles>(prober, chunk, size);
    else if constexpr (How == scorer::tree_probe_first)
        walk_first_keys<Tiles>(prober, chunk, size);
    else
        score_one_key<How, Tiles>(prober, chunk);
}

}  // namespace winnow
