// How a warpgroup finds the scores of its chunks on Hopper: keys of several tiles fly into shared memory while it works
// on another.
//
// A tile is 64 keys, both probes of 32 chunks, and each warp owns 16 of them: rows g and g + 8 are the left and the right
// probe of chunk 8 w + g, which lanes 4 g to 4 g + 3 decide alike, since they hold all its products. A warp copies its own
// keys and takes them to registers as the left operand of wgmma, so that no barrier stands between a decision and the
// copies of the next round; a warpgroup's warps meet in its products alone.
//
// Time of a round of a tile of head_dim 128, in clocks of a multiprocessor: 16 KB from L2 about 690; shared memory 128 for
// writing keys, 128 for reading them and 128 for each 64 rows; tensor cores 256 for each 64 rows.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/barrier.cuh"
#include "winnow/ptx/matrix_move.cuh"
#include "winnow/ptx/wgmma.cuh"
#include "winnow/stage/prune_branch.hpp"
#include "winnow/stage/prune_prober.cuh"
#include "winnow/stage/prune_walk_block.cuh"
#include "winnow/tile/panel.hpp"
#include "winnow/tile/probe_keys.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// A value that is the same for all lanes, in a uniform register.
WINNOW_DEVICE std::int32_t uniform(std::int32_t x) { return __shfl_sync(~0u, x, 0); }

template <class T, int HeadDim, product_unit Unit>
struct prune_walk {
    static constexpr prune_walk_tile tile = prune_walk_tile_of(HeadDim);
    static constexpr int columns = rows_of_product(Unit);
    using row_tile = key_tile<columns, panel_channels, atom_order::panels>;
    static constexpr std::uint64_t upper = row_tile::key_descriptor(0) >> 32 << 32;  ///< half of a descriptor of rows
    static constexpr std::uint32_t warp_bytes = prune_walk_warp_keys * HeadDim * 2, tile_bytes = 4 * warp_bytes;
    /// 16-byte pieces of a key, and keys that a lane copies its piece of.
    static constexpr int pieces = HeadDim / 8, keys_of_lane = prune_walk_warp_keys * pieces / 32;

    prune_arguments<T> const& a;
    prune_walk_storage<HeadDim>& s;
    unsigned char* queries;
    // What of the work a round asks for, in registers: shared memory would be read again behind every wait.
    prune_rounds rounds = s.work.rounds;
    std::int32_t tiles = uniform(s.work.tiles);
    std::int32_t walkers = uniform(s.work.walkers);
    /// Warpgroups take turns: tiles side by side, of one walker. Turns of all walkers at the same tiles follow each other,
    /// and warpgroups that work on them find common keys in L1.
    std::int32_t turns = ceil_div(tiles, tile.tiles) * walkers;
    std::uint32_t walkers_inverse = static_cast<std::uint32_t>(uniform(static_cast<std::int32_t>(s.work.inverse)));
    std::int32_t slices = uniform(s.work.slices);
    std::int32_t rows = uniform(s.work.rows);
    std::int32_t rows_held = uniform(s.work.rows_held);
    bool all_visible = s.work.all_visible;
    bool by_l1 = s.set.walkers > 1;                            ///< several walkers look at common keys
    int group = uniform(static_cast<int>(threadIdx.x / 128));  ///< warpgroup
    std::int32_t groups = static_cast<std::int32_t>(blockDim.x / 128);
    int warp = uniform(static_cast<int>(threadIdx.x / 32 % 4));  ///< of its warpgroup
    int lane = static_cast<int>(threadIdx.x % 32);
    /// Keys lie behind the rows: shared address of this warp's part of its warpgroup's first tile.
    std::uint32_t keys =
        ptx::shared_address(queries) + a.walk_rows * HeadDim * 2 + (group * tile.tiles * 4 + warp) * warp_bytes;
    std::int32_t descriptor =
        uniform(static_cast<std::int32_t>(row_tile::key_descriptor(ptx::shared_address(queries))));
    walk_key_source<T> source = walk_key_source<T>(a, s.work.request, s.work.kv_head, lane % pieces * 8);

    /// First tile of a turn; beyond the last tile, there is nothing to do.
    [[nodiscard]] WINNOW_DEVICE std::int32_t tile_of(std::int32_t turn) const { return passes(turn) * tile.tiles; }
    /// Whose rows a turn is scored with, counted from the first walker whose rows are held.
    [[nodiscard]] WINNOW_DEVICE std::int32_t walker_of(std::int32_t turn) const {
        return turn - passes(turn) * walkers;
    }
    [[nodiscard]] WINNOW_DEVICE std::int32_t passes(std::int32_t turn) const {
        return static_cast<std::int32_t>(static_cast<std::uint32_t>(turn) * walkers_inverse >> prune_walk_work::shift);
    }
    /// This lane's chunk of a tile, counted from the block's first.
    [[nodiscard]] WINNOW_DEVICE std::int32_t chunk_of(std::int32_t t) const {
        return t * tile.chunks + warp * 8 + lane / 4;
    }
    [[nodiscard]] WINNOW_DEVICE prune_branch& branch_of(int slot) const {
        return s.branch[group * tile.tiles + slot][warp * 8 + lane / 4];
    }
    [[nodiscard]] WINNOW_DEVICE std::int32_t* probes_of(int slot) const {
        return s.probe[group * tile.tiles + slot][warp];
    }

    /// First key of this lane's chunk of a tile; below 0 if there is none.
    [[nodiscard]] WINNOW_DEVICE std::int32_t first_key(std::int32_t t) const {
        std::int32_t const chunk = chunk_of(t);
        if (chunk >= s.work.chunks) return -1;
        return s.place.left(s.work.first_chunk + chunk, a.params.method.window.sinks, rounds.size);
    }
    /// A chunk before the first round.
    [[nodiscard]] WINNOW_DEVICE prune_branch begin(std::int32_t first) const {
        if (first < 0) return {0, 0, 0, minus_infinity};
        return {first, first, smaller(first + rounds.size, s.place.eligible), minus_infinity};
    }

    /// Starts copying the keys that a round of a tile looks at, and notes where they stand. Each lane copies one piece of
    /// every key that stands in its half, quarter or whole of the warp's.
    template <class Copy>
    WINNOW_DEVICE void copy_keys(int slot, prune_probes const& at, Copy copy) const {
        std::int32_t* const position = probes_of(slot);
        int const first = lane / pieces * keys_of_lane;
        std::uint32_t const to = keys + slot * tile_bytes + swizzled<HeadDim>(first, lane % pieces);
        auto const place = [&](int k) {
            return (to ^ ((k & 7) << 4)) + k * HeadDim * 2;
        };  // of key first + k: as swizzled
        if (lane % 4 < 2) position[lane % 4 * 8 + lane / 4] = lane % 4 == 0 ? at.left : at.right;
        if (source.linear) {
            __syncwarp();
            int4 p[keys_of_lane / 4];
            WINNOW_UNROLL
            for (int k = 0; k < keys_of_lane / 4; ++k) p[k] = reinterpret_cast<int4 const*>(position + first)[k];
            WINNOW_UNROLL
            for (int k = 0; k < keys_of_lane; ++k) {
                int4 const& four = p[k / 4];
                std::int32_t const key = k % 4 == 0 ? four.x : k % 4 == 1 ? four.y : k % 4 == 2 ? four.z : four.w;
                copy(place(k), source.at(key), key != no_key);
            }
            return;
        }
        // Each lane finds one address, 0 for zeros; the lanes that copy a key get it from there.
        auto const mine = reinterpret_cast<std::uintptr_t>(
            finder_of<product_unit::warpgroup>(a, s.work.request, s.work.kv_head)(lane % 2 == 0 ? at.left : at.right));
        WINNOW_UNROLL
        for (int k = 0; k < keys_of_lane; ++k) {
            std::uintptr_t const from = __shfl_sync(~0u, mine, (first + k) % 8 * 4 + (first + k) / 8);
            copy(place(k), reinterpret_cast<T const*>(from) + lane % pieces * 8, from != 0);
        }
    }

    /// found[h] = max of itself and the products of this lane's keys of a tile with the rows of a walker that may see
    /// them. The four lanes of a chunk hold a part of the rows each.
    WINNOW_DEVICE void multiply(float (&found)[2], int slot, prune_probes const& at, std::int32_t first_row) const {
        constexpr int steps = HeadDim / 16;
        std::uint32_t const from = keys + slot * tile_bytes + swizzled<HeadDim>(lane % 16, lane / 16);
        std::uint32_t key[steps][4];
        WINNOW_UNROLL
        for (int k = 0; k < steps; ++k) ptx::load_matrices(key[k], swizzled_step(from, k));
        ptx::pin(key);
        std::int32_t const position[2] = {at.left, at.right};
        held_rows const seen{nullptr, s.looking + first_row, rows / 8, all_visible};
        // Addresses of descriptors lie in their lower half, which no step along the rows carries out of.
        std::int32_t const panel = rows_held * panel_row_bytes / 16,
                           lower = descriptor + first_row * panel_row_bytes / 16;
#pragma unroll 1
        for (std::int32_t row = 0; row < rows; row += columns) {
            float product[columns / 8][4];
            std::int32_t const from_row = lower + row * panel_row_bytes / 16;
            ptx::wgmma_fence();
            WINNOW_UNROLL
            for (int k = 0; k < steps; ++k)
                ptx::wgmma<T, ptx::major::k>(
                    product, key[k], upper | static_cast<std::uint32_t>(from_row + k / 4 * panel + k % 4 * 2), k != 0);
            ptx::wgmma_commit();
            ptx::wgmma_wait<0>();
            ptx::pin(product);
            if (all_visible)
                fold_all(found, product);
            else
                fold_rows(found, product, position, seen, row / 8);
        }
    }
    /// As fold_rows where all rows see all keys, in two chains for each key: half as long to wait for.
    template <int Count>
    WINNOW_DEVICE static void fold_all(float (&found)[2], float const (&product)[Count][4]) {
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) {
            float even = fmaxf(found[h], product[0][2 * h]), odd = product[0][2 * h + 1];
            WINNOW_UNROLL
            for (int n = 1; n < Count; ++n)
                even = fmaxf(even, product[n][2 * h]), odd = fmaxf(odd, product[n][2 * h + 1]);
            found[h] = fmaxf(even, odd);
        }
    }

    /// True for the last round where two tiles share it: a shortened search looks at one key of a chunk at most, so keys
    /// of an even slot and of the one behind it make one tile, in the latter.
    [[nodiscard]] WINNOW_DEVICE bool closes(std::int32_t round) const { return tile.tiles > 1 && rounds.last(round); }

    /// Starts the copies of a round of tile `t` in `slot`; one group for every slot, so that groups can be counted.
    WINNOW_DEVICE void start(int slot, std::int32_t t, std::int32_t round, prune_branch const& branch) const {
        bool copies = t < tiles;
        prune_probes at = branch.probes(rounds, round);
        if (closes(round)) {
            copies = slot % 2 == 1 && t - 1 < tiles;
            if (copies) at = {branch_of(slot - 1).probes(rounds, round).left, at.left};
        }
        if (copies) {
            if (by_l1)
                copy_keys(slot, at, [](std::uint32_t to, void const* from, bool valid) {
                    ptx::copy_async_16_cached(to, from, valid);
                });
            else
                copy_keys(slot, at,
                          [](std::uint32_t to, void const* from, bool valid) { ptx::copy_async_16(to, from, valid); });
        }
        ptx::copy_async_commit();
    }

    /// One round of the tile in `slot`, or of both tiles from there on that share it: products with the rows of `slice`,
    /// and behind the last of them the decision and the copies of the next round, or of the first one of the tile after it.
    WINNOW_DEVICE void visit(int slot, std::int32_t turn, std::int32_t round, std::int32_t slice) {
        bool const decides = slice + 1 == slices, done = round + 1 == rounds.count, two = closes(round);
        int const keys_slot = two ? slot + 1 : slot;
        if (slices > 1)
            ptx::copy_async_wait<0>();  // slices before the last start no copies that could be counted
        else if (two)
            ptx::copy_async_wait<larger(tile.tiles - 2, 0)>();
        else
            ptx::copy_async_wait<tile.tiles - 1>();
        __syncwarp();
        std::int32_t const t = tile_of(turn) + slot, then = done ? tile_of(turn + groups) + slot : t;
        prune_branch branch{0, 0, 0, minus_infinity}, other = branch;
        if (t < tiles) {
            std::int32_t const* const position = probes_of(keys_slot) + lane / 4;
            prune_probes const at{position[0], position[8]};
            branch = branch_of(slot);
            if (two) other = branch_of(keys_slot);
            // Loaded behind products.
            std::int32_t const next = decides && done ? first_key(then) : -1,
                               next_other = decides && two ? first_key(then + 1) : -1;
            float found[1][2] = {{minus_infinity, minus_infinity}};
            multiply(found[0], keys_slot, at, walker_of(turn) * rows);
            quad_maximum(found);
            bool const writes = lane % 4 == 0;
            if (slices > 1) {
                float2& so_far = s.found[group * tile.tiles + slot][warp * 8 + lane / 4];
                if (slice > 0) found[0][0] = fmaxf(found[0][0], so_far.x), found[0][1] = fmaxf(found[0][1], so_far.y);
                if (!decides) {
                    __syncwarp();
                    if (writes) so_far = make_float2(found[0][0], found[0][1]);
                    return;
                }
            }
            if (two)
                branch.descend({at.left, no_key}, found[0][0], 0), other.descend({at.right, no_key}, found[0][1], 0);
            else
                branch.descend(at, found[0][0], found[0][1]);
            if (done) {
                if (writes) put(t, branch.score);
                if (writes && two) put(t + 1, other.score);
                branch = begin(next), other = begin(next_other);
            }
            __syncwarp();
            if (writes) branch_of(slot) = branch;
            if (writes && two) branch_of(keys_slot) = other;
        }
        if (!decides) return;
        __syncwarp();
        start(slot, then, done ? 0 : round + 1, branch);
        if (two) start(keys_slot, then + 1, 0, other);
    }
    WINNOW_DEVICE void put(std::int32_t t, float score) const {
        std::int32_t const chunk = chunk_of(t);
        if (chunk >= s.work.chunks) return;
        if (s.set.walkers > 1)
            atomicMax(&s.best[chunk], ordered_key(score));  // exact in any order
        else
            s.work.scores[chunk] = ordered_key(score);
    }

    /// Brings a slice of the walker's rows in, for all warps of the block.
    WINNOW_DEVICE void hold(std::int32_t slice) {
        std::int32_t const most = prune_walk_rows_held(HeadDim), first = slice * most;
        rows = rows_held = uniform(smaller(s.set.padded() - first, most));
        __syncthreads();
        hold_walk_rows<T, HeadDim, Unit>(s, queries, 0, first, rows, static_cast<std::int32_t>(threadIdx.x),
                                         static_cast<std::int32_t>(blockDim.x));
        ptx::copy_async_commit();
        ptx::copy_async_wait<0>();
        ptx::async_proxy_fence();
        __syncthreads();
    }

    /// Starts the copies of the first round of all slots; no rows are needed yet.
    WINNOW_DEVICE void begin() const {
#pragma unroll 1
        for (int slot = 0; slot < tile.tiles; ++slot) {
            std::int32_t const t = tile_of(group) + slot;
            prune_branch const branch = begin(first_key(t));
            if (lane % 4 == 0) branch_of(slot) = branch;
            __syncwarp();
            start(slot, t, 0, branch);
        }
    }

    /// Scores all chunks of the block for the walkers whose rows are held. All tiles take equally many rounds, so that
    /// warpgroups go in step where they have to wait for slices of rows.
    WINNOW_DEVICE void run() {
#pragma unroll 1
        for (std::int32_t first = 0; first < turns; first += groups)
#pragma unroll 1
            for (std::int32_t round = 0; round < rounds.count; ++round)
#pragma unroll 1
                for (std::int32_t slice = 0; slice < slices; ++slice) {
                    if (slices > 1) hold(slice);
                    int const step = closes(round) ? 2 : 1;
#pragma unroll 1
                    for (int slot = 0; slot < tile.tiles; slot += step) visit(slot, first + group, round, slice);
                }
    }
};

#endif

}  // namespace winnow
