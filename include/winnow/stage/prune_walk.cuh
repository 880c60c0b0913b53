// How a warp finds the scores of its chunks: which keys it looks at, and where a tree search goes next.
//
// Lane 4 g + q holds chunk 8 s + g in slot s; the four lanes of a chunk hold the same and decide alike, so a search
// needs two shuffles a round and nothing else from its neighbours.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/ptx/registers.cuh"
#include "winnow/stage/prune_branch.hpp"
#include "winnow/stage/prune_prober.cuh"
#include "winnow/tile/probe_keys.cuh"

namespace winnow {

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

/// Keys that a round looks at in slot `tile`.
template <int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void look_up_halves(prune_prober<T, HeadDim, Unit> const& prober,
                                  probe_set<stored_key<T, Unit>, Tiles>& at, int tile, prune_probes const& probes) {
    prober.look_up(at, tile, 0, probes.left);
    prober.look_up(at, tile, 1, probes.right);
}

/// Binary search by the keys at the centres of both halves; the score is the best key on the path. Where the next round
/// looks is worked out for either half while keys of this one are on their way. The last round of a shortened search
/// looks at one key of few chunks.
template <int Tiles, class T, int HeadDim, product_unit Unit>
WINNOW_DEVICE void walk_both_halves(prune_prober<T, HeadDim, Unit>& prober, chunk_slots<Tiles>& chunk,
                                    std::int32_t size) {
    using key = stored_key<T, Unit>;
    bool const sided = Unit == product_unit::turned && prober.a.params.scan == scan_style::relative;
    bool part = false;
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t)
        part = part || (chunk.left[t] < chunk.right[t] && chunk.right[t] - chunk.left[t] < size);
    prune_rounds const rounds =
        prune_rounds::of(size, prober.in_step() ? prober.whole_chunks : !__any_sync(~0u, part), sided);
    prune_branch branch[Tiles];
    probe_set<key, Tiles> at;
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t) {
        branch[t] = {chunk.left[t], chunk.left[t], chunk.right[t], chunk.score[t]};
        look_up_halves(prober, at, t, branch[t].centres(rounds, 0));
    }
#pragma unroll 1
    for (std::int32_t round = 0; round < rounds.count - (rounds.shortened ? 1 : 0); ++round) {
        probe_set<key, Tiles> next[2];  // of left halves, of right ones
        auto const look_further = [&] {
            WINNOW_UNROLL
            for (int t = 0; t < Tiles; ++t) {
                // Opaque: or the compiler would work it out before this round's keys are asked for.
                prune_branch lower = branch[t], upper = branch[t];
                lower.left = static_cast<std::int32_t>(ptx::opaque(static_cast<std::uint32_t>(lower.left)));
                lower.right = upper.left = lower.centre();
                look_up_halves(prober, next[0], t, lower.centres(rounds, 1));
                look_up_halves(prober, next[1], t, upper.centres(rounds, 1));
            }
        };
        float found[Tiles][2];
        prober.score_halves(found, at, look_further);
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) {
            if (at.position[t][0] == no_key) continue;
            bool const goes_left = branch[t].descend(found[t][0], found[t][1]);
            WINNOW_UNROLL
            for (int h = 0; h < 2; ++h) {
                at.position[t][h] = goes_left ? next[0].position[t][h] : next[1].position[t][h];
                at.key[t][h] = goes_left ? next[0].key[t][h] : next[1].key[t][h];
            }
        }
    }
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t) chunk.score[t] = branch[t].score;
    if (!rounds.shortened) return;
    probe_set<key, 1> last;
    bool any = false;
    WINNOW_UNROLL
    for (int t = 0; t < 2; ++t) {
        std::int32_t const position = t < Tiles ? branch[t < Tiles ? t : 0].unseen(rounds) : no_key;
        any = any || position != no_key;
        prober.look_up(last, 0, t, position);
    }
    if (!prober.in_step() && !__any_sync(~0u, any)) return;
    float found[1][2];
    prober.score_keys(
        found, last, [] {}, [](int, int half) { return half; });
    WINNOW_UNROLL
    for (int t = 0; t < Tiles; ++t)
        if (last.position[0][t] != no_key) chunk.score[t] = fmaxf(chunk.score[t], found[0][t]);
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
        load_key<T, HeadDim>(v, prober.key_at(key));
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
