// Scores keys wherever they lie against the query rows of one walker: finds them, brings them into registers, multiplies.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/stage/prune_turned.cuh"
#include "winnow/tile/probe_keys.cuh"

namespace winnow {

/// What keys are stored as.
template <class T, product_unit Unit>
using stored_key = std::conditional_t<Unit == product_unit::widened, fp8_e4m3, T>;

/// Finds the keys of one request and KV head. What is the same for all of them is worked out once: a search that looks its
/// keys up from the start spends more time on addresses than on waiting for memory.
template <class K>
struct key_finder {
    K const* first;             ///< of token 0 where tokens lie in a row, else of page 0
    std::int64_t token_stride;  ///< in elements
    std::int64_t page_stride;
    std::int32_t const* pages;  ///< of the request; null where tokens lie in a row
    std::int32_t page_count;    ///< ids at or beyond it are bad
    fast_divider page_size;

    /// Key `position`; null for no_key and for keys on bad pages, which read as zeros.
    WINNOW_DEVICE K const* operator()(std::int32_t position) const {
        if (position == no_key) return nullptr;
        if (pages == nullptr) return first + position * token_stride;
        std::int32_t const entry = page_size.quotient(position), page = pages[entry];
        if (page < 0 || page >= page_count) return nullptr;
        return first + page * page_stride + (position - entry * page_size.divisor) * token_stride;
    }
};

/// Finder of request `b` and KV head `kv_head`.
template <product_unit Unit, class T>
WINNOW_DEVICE key_finder<stored_key<T, Unit>> finder_of(prune_arguments<T> const& a, std::int32_t b,
                                                        std::int32_t kv_head) {
    tensor_view<T const, 4> const& keys = a.params.keys;
    kv_index const& kv = a.params.kv;
    auto const* const head = reinterpret_cast<stored_key<T, Unit> const*>(keys.data) + kv_head * keys.stride[2];
    key_finder<stored_key<T, Unit>> f{
        head, keys.stride[1], keys.stride[0], nullptr, static_cast<std::int32_t>(keys.extent[0]), a.page_size};
    switch (kv.layout) {
    case kv_layout::contiguous:
        f.first += b * f.page_stride;
        break;
    case kv_layout::ragged:
        f.first += kv.start[b] * f.token_stride;
        break;
    case kv_layout::block_table:
        f.pages = kv.pages + b * kv.table_stride;
        break;
    case kv_layout::page_list:
        f.pages = kv.pages + kv.start[b];
        break;
    }
    return f;
}

/// Keys that tiles of products take: [tile][half of its rows].
template <class K, int Tiles>
struct probe_set {
    std::int32_t position[Tiles][2];  ///< no_key: none
    K const* key[Tiles][2];           ///< null: none, or on a bad page
};

/// Scores keys against the rows of one walker.
template <class T, int HeadDim, product_unit Unit>
struct prune_prober {
    prune_arguments<T> const& a;
    prune_score_storage<HeadDim>& shared;
    unsigned char* queries;  ///< the block's
    prune_row_set set;
    std::int32_t b;
    std::int32_t kv_head;
    key_finder<stored_key<T, Unit>> key_at;
    held_rows rows;               ///< this walker's
    std::int32_t slices;          ///< more than 1: rows pass by in slices
    bool whole_chunks;            ///< none of the block's chunks is cut short
    prune_turning<Unit> turning;  ///< a slice holds half as many rows if they come twice

    /// True if all warps of the block have to probe in step: they wait for each other.
    [[nodiscard]] WINNOW_DEVICE bool in_step() const { return slices > 1; }

    /// A key, or none, takes its place in a set.
    template <int Tiles>
    WINNOW_DEVICE void look_up(probe_set<stored_key<T, Unit>, Tiles>& at, int tile, int half,
                               std::int32_t position) const {
        at.position[tile][half] = position;
        at.key[tile][half] = key_at(position);
    }

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
    /// The same for single keys. `meanwhile` is called while they are on their way; `slot_of(tile, half)` tells whose they
    /// are.
    template <int Tiles, class Meanwhile, class Slot>
    WINNOW_DEVICE void score_keys(float (&found)[Tiles][2], probe_set<stored_key<T, Unit>, Tiles> const& at,
                                  Meanwhile meanwhile, Slot slot_of) {
        score<probe_keys<HeadDim, Tiles>>(found, at.position, [&](probe_keys<HeadDim, Tiles>& keys) {
            WINNOW_UNROLL
            for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
            for (int h = 0; h < 2; ++h) load_key<T, HeadDim>(keys.part[t][h], at.key[t][h]);
            meanwhile();
            if constexpr (Unit == product_unit::widened) widen_keys<T>(keys);
            if constexpr (Unit == product_unit::turned) {
                WINNOW_UNROLL
                for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
                for (int h = 0; h < 2; ++h)
                    turn_key<T, HeadDim>(keys.part[t][h], turning.turns,
                                         turning.first_chunk + 8 * slot_of(t, h) +
                                             static_cast<std::int32_t>(threadIdx.x % 32 / 4));
            }
        });
    }
    /// The same, one key of each slot, by position.
    template <int Tiles>
    WINNOW_DEVICE void score(float (&found)[Tiles][2], std::int32_t const (&position)[Tiles][2]) {
        probe_set<stored_key<T, Unit>, Tiles> at;
        WINNOW_UNROLL
        for (int t = 0; t < Tiles; ++t) WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) look_up(at, t, h, position[t][h]);
        score_keys(
            found, at, [] {}, [](int tile, int half) { return 2 * tile + half; });
    }
    /// found[slot][half] of two keys of each slot, the centres of both halves of a branch.
    template <int Slots, class Meanwhile>
    WINNOW_DEVICE void score_halves(float (&found)[Slots][2], probe_set<stored_key<T, Unit>, Slots> const& at,
                                    Meanwhile meanwhile) {
        if constexpr (Unit == product_unit::turned) {
            if (a.params.scan == scan_style::relative) {
                meanwhile();
                score_relative(found, at);
                return;
            }
        }
        score_keys(found, at, meanwhile, [](int tile, int) { return tile; });
    }
    /// Left probes meet one copy of the rows, right ones the other, so a product takes keys of one side of two slots.
    template <int Slots>
    WINNOW_DEVICE void score_relative(float (&found)[Slots][2], probe_set<stored_key<T, Unit>, Slots> const& at) {
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
                std::int32_t position[tiles][2];
                probe_keys<HeadDim, tiles> keys;
                WINNOW_UNROLL
                for (int s = 0; s < 2 * tiles; ++s) {
                    bool const exists = s < Slots;
                    position[s / 2][s % 2] = exists ? at.position[exists ? s : 0][h] : no_key;
                    load_key<T, HeadDim>(keys.part[s / 2][s % 2], exists ? at.key[exists ? s : 0][h] : nullptr);
                }
                held_rows copy = rows;
                copy.queries += h * turning.copy_rows * HeadDim * 2;
                score_rows<T, HeadDim>(side[h], keys, position, copy);
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

}  // namespace winnow
