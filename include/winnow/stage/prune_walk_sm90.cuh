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

#include <cstddef>
#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/matrix_move.cuh"
#include "winnow/ptx/wgmma.cuh"
#include "winnow/stage/prune_branch.hpp"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/stage/prune_walk.cuh"
#include "winnow/tile/panel.hpp"
#include "winnow/tile/probe_keys.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// What a block has to do: its chunks, and the walkers whose rows it holds.
struct prune_walk_work {
    std::int32_t request, kv_head;
    std::int32_t first_chunk, chunks;  ///< candidates of the list
    std::int32_t walkers;              ///< whose rows are held: each goes down every chunk by itself
    /// Tiles of all walkers; those of one tile are worked on side by side, and find common keys in L1.
    std::int32_t items;
    std::int32_t rows;       ///< of one walker that are held
    std::int32_t rows_held;  ///< of all of them: of a panel
    std::int32_t slices;     ///< more than 1: rows of the one walker pass by in slices
    bool all_visible;        ///< every row may see every key
    bool paired;             ///< tiles of a warpgroup share their last round: see prune_walk::closes
    prune_rounds rounds;
    std::uint32_t* scores;  ///< [chunk]

    /// Rows of `count` walkers. Tiles that a warpgroup takes one after the other belong to one walker, or to several.
    WINNOW_DEVICE void hold(std::int32_t count) {
        walkers = count;
        paired = static_cast<std::int32_t>(blockDim.x / 128) % count == 0;
        items = ceil_div(chunks, prune_walk_tile::chunks) * count;
        rows_held = count * rows;
    }
};

/// Shared memory of a block of warpgroups; the rows of queries lie behind it, and the tiles of keys behind them.
template <int HeadDim>
struct alignas(128) prune_walk_storage {
    static constexpr prune_walk_tile tile = prune_walk_tile_of(HeadDim);
    prune_place place;
    prune_query_source source;
    prune_row_set set;
    prune_walk_work work;
    std::int32_t looking[prune_walk_rows_held(HeadDim)];  ///< position each row looks from
    std::uint32_t best[prune_most_chunks];                ///< ordered_key of each chunk, over the walkers of the unit
    prune_branch branch[tile.warpgroups * tile.tiles][tile.chunks];
    float2 found[tile.warpgroups * tile.tiles][tile.chunks];  ///< maxima over the slices of rows so far
};

/// Offset of the rows: panels start at multiples of 1024 bytes.
template <int HeadDim>
inline constexpr std::size_t prune_walk_rows_offset = round_up<std::size_t>(sizeof(prune_walk_storage<HeadDim>), 1024);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <class T, int HeadDim, product_unit Unit>
struct prune_walk {
    static constexpr prune_walk_tile tile = prune_walk_tile_of(HeadDim);
    static constexpr int columns = rows_of_product(Unit);
    static constexpr std::uint32_t warp_keys = 16, warp_bytes = warp_keys * HeadDim * 2, tile_bytes = 4 * warp_bytes;

    prune_arguments<T> const& a;
    prune_walk_storage<HeadDim>& s;
    unsigned char* queries;
    prune_walk_work& work = s.work;
    std::uint32_t keys = keys_of_warp();  ///< shared address of this warp's part of its warpgroup's first tile
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);  ///< warpgroup; the shuffle says that it is the same for all
    std::int32_t groups = static_cast<std::int32_t>(blockDim.x / 128);
    int chunk_of_tile = static_cast<int>(threadIdx.x % 128 / 4);

    /// Keys lie behind the rows.
    [[nodiscard]] WINNOW_DEVICE std::uint32_t keys_of_warp() const {
        int const warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
        return ptx::shared_address(queries) + a.walk_rows * HeadDim * 2 + warp / 4 * (tile.tiles * tile_bytes) +
               warp % 4 * warp_bytes;
    }

    [[nodiscard]] WINNOW_DEVICE std::int32_t walker_of(std::int32_t item) const {
        return work.walkers == 1 ? 0 : item % work.walkers;
    }
    /// This lane's chunk, counted from the block's first.
    [[nodiscard]] WINNOW_DEVICE std::int32_t chunk_of(std::int32_t item) const {
        return (work.walkers == 1 ? item : item / work.walkers) * tile.chunks + chunk_of_tile;
    }
    [[nodiscard]] WINNOW_DEVICE prune_branch& branch_of(int slot) const {
        return s.branch[group * tile.tiles + slot][chunk_of_tile];
    }

    /// First key of this lane's chunk of an item; below 0 if there is none.
    [[nodiscard]] WINNOW_DEVICE std::int32_t first_key(std::int32_t item) const {
        std::int32_t const chunk = chunk_of(item);
        if (item >= work.items || chunk >= work.chunks) return -1;
        return s.place.left(work.first_chunk + chunk, a.params.method.window.sinks, work.rounds.size);
    }
    /// A chunk before the first round.
    [[nodiscard]] WINNOW_DEVICE prune_branch begin(std::int32_t first) const {
        if (first < 0) return {0, 0, 0, minus_infinity};
        return {first, first, smaller(first + work.rounds.size, s.place.eligible), minus_infinity};
    }

    /// Starts copying the keys that a round of a tile looks at. Each lane finds one address, 0 for zeros; the lanes that
    /// copy a key get it from there.
    WINNOW_DEVICE void copy_keys(int slot, prune_probes const& at) const {
        constexpr int pieces = HeadDim / 8, at_once = 32 / pieces;  // keys that the warp copies with one instruction
        int const lane = threadIdx.x % 32, piece = lane % pieces;
        auto const mine = reinterpret_cast<std::uintptr_t>(
            finder_of<product_unit::warpgroup>(a, work.request, work.kv_head)(lane % 2 == 0 ? at.left : at.right));
        std::uint32_t const to = keys + slot * tile_bytes + swizzled<HeadDim>(lane / pieces, piece);
        bool const by_l1 = s.set.walkers > 1;
        WINNOW_UNROLL
        for (int i = 0; i < static_cast<int>(warp_keys); i += at_once) {
            int const row = i + lane / pieces;
            std::uintptr_t const from = __shfl_sync(~0u, mine, row % 8 * 4 + row / 8);
            T const* const source = reinterpret_cast<T const*>(from) + piece * 8;
            std::uint32_t const there = (to ^ ((i & 7) << 4)) + i * HeadDim * 2;  // of key `row`: as swizzled
            if (by_l1)
                ptx::copy_async_16_cached(there, source, from != 0);
            else
                ptx::copy_async_16(there, source, from != 0);
        }
    }

    /// found[h] = max of itself and the products of this lane's keys of a tile with the rows of a walker that may see
    /// them. The four lanes of a chunk hold a part of the rows each.
    WINNOW_DEVICE void multiply(float (&found)[2], int slot, prune_probes const& at, std::int32_t first_row) const {
        constexpr int steps = HeadDim / 16;
        int const lane = threadIdx.x % 32;
        std::uint32_t const from = keys + slot * tile_bytes + swizzled<HeadDim>(lane % 16, lane / 16);
        std::uint32_t key[steps][4];
        WINNOW_UNROLL
        for (int k = 0; k < steps; ++k) ptx::load_matrices(key[k], swizzled_step(from, k));
        ptx::pin(key);
        std::int32_t const position[2] = {at.left, at.right};
        held_rows const seen{nullptr, s.looking + first_row, work.rows / 8, work.all_visible};
        // In units of descriptors. The shuffles say that these are the same for all, and keep them in uniform registers.
        std::uint32_t const panel = __shfl_sync(~0u, work.rows_held * panel_row_bytes / 16, 0);
        std::uint64_t const first = key_tile<columns, panel_channels, atom_order::panels>::key_descriptor(
            __shfl_sync(~0u, ptx::shared_address(queries) + first_row * panel_row_bytes, 0));
#pragma unroll 1
        for (std::int32_t row = 0; row < work.rows; row += columns) {
            float product[columns / 8][4];
            std::uint64_t const from_row = first + row * panel_row_bytes / 16;
            ptx::wgmma_fence();
            WINNOW_UNROLL
            for (int k = 0; k < steps; ++k)
                ptx::wgmma<T, ptx::major::k>(product, key[k], from_row + k / 4 * panel + k % 4 * 2, k != 0);
            ptx::wgmma_commit();
            ptx::wgmma_wait<0>();
            ptx::pin(product);
            fold_rows(found, product, position, seen, row / 8);
        }
    }

    /// True for the last round where two tiles share it: a shortened search looks at one key of a chunk at most, so keys
    /// of an even slot and of the one behind it make one tile, in the latter.
    [[nodiscard]] WINNOW_DEVICE bool closes(std::int32_t round) const {
        return tile.tiles > 1 && work.paired && work.rounds.last(round);
    }

    /// Starts the copies of a round of the tile in `slot`; one group for every slot, so that groups can be counted.
    WINNOW_DEVICE void start(int slot, std::int32_t item, std::int32_t round) const {
        prune_probes at = branch_of(slot).probes(work.rounds, round);
        bool copies = item < work.items;
        if (closes(round)) {
            copies = slot % 2 == 1 && item - groups < work.items;
            if (copies) at = {branch_of(slot - 1).probes(work.rounds, round).left, at.left};
        }
        if (copies) copy_keys(slot, at);
        ptx::copy_async_commit();
    }

    /// One round of the tile in `slot`, or of both tiles from there on that share it: products with the rows of `slice`,
    /// and behind the last of them the decision and the copies of the next round, or of the first one of the tile after it.
    WINNOW_DEVICE void visit(int slot, std::int32_t item, std::int32_t round, std::int32_t slice) {
        bool const decides = slice + 1 == work.slices, done = round + 1 == work.rounds.count, two = closes(round);
        int const keys_slot = two ? slot + 1 : slot;
        if (work.slices > 1)
            ptx::copy_async_wait<0>();  // slices before the last start no copies that could be counted
        else if (two)
            ptx::copy_async_wait<larger(tile.tiles - 2, 0)>();
        else
            ptx::copy_async_wait<tile.tiles - 1>();
        __syncwarp();
        std::int32_t const ahead = done ? tile.tiles * groups : 0;
        if (item < work.items) {
            prune_branch branch = branch_of(slot), other = branch_of(keys_slot);
            // Loaded behind products.
            std::int32_t const next = decides && done ? first_key(item + ahead) : -1,
                               next_other = decides && two ? first_key(item + groups + ahead) : -1;
            prune_probes at = branch.probes(work.rounds, round);
            if (two) at.right = other.probes(work.rounds, round).left;
            float found[1][2] = {{minus_infinity, minus_infinity}};
            multiply(found[0], keys_slot, at, walker_of(item) * work.rows);
            quad_maximum(found);
            float2& so_far = s.found[group * tile.tiles + slot][chunk_of_tile];
            if (slice > 0) found[0][0] = fmaxf(found[0][0], so_far.x), found[0][1] = fmaxf(found[0][1], so_far.y);
            bool const writes = threadIdx.x % 4 == 0;
            if (!decides) {
                __syncwarp();
                if (writes) so_far = make_float2(found[0][0], found[0][1]);
                return;
            }
            if (two)
                branch.descend({at.left, no_key}, found[0][0], 0), other.descend({at.right, no_key}, found[0][1], 0);
            else
                branch.descend(at, found[0][0], found[0][1]);
            if (done) {
                if (writes) put(item, branch.score);
                if (writes && two) put(item + groups, other.score);
                branch = begin(next), other = begin(next_other);
            }
            __syncwarp();
            if (writes) branch_of(slot) = branch;
            if (writes && two) branch_of(keys_slot) = other;
        }
        if (!decides) return;
        __syncwarp();
        start(slot, item + ahead, done ? 0 : round + 1);
        if (two) start(keys_slot, item + groups + ahead, 0);
    }
    WINNOW_DEVICE void put(std::int32_t item, float score) const {
        std::int32_t const chunk = chunk_of(item);
        if (chunk >= work.chunks) return;
        if (s.set.walkers > 1)
            atomicMax(&s.best[chunk], ordered_key(score));  // exact in any order
        else
            work.scores[chunk] = ordered_key(score);
    }

    /// Brings a slice of the walker's rows in, for all warps of the block.
    WINNOW_DEVICE void hold(std::int32_t slice) {
        std::int32_t const most = prune_walk_rows_held(HeadDim), first = slice * most;
        __syncthreads();
        if (threadIdx.x == 0) work.rows = work.rows_held = smaller(s.set.padded() - first, most);
        hold_query_rows<T, HeadDim, Unit>(s, queries, s.set, 0, first, smaller(s.set.padded() - first, most));
        __syncthreads();
    }

    /// Scores all chunks of the block for the walkers whose rows are held. All tiles take equally many rounds, so that
    /// warpgroups go in step where they have to wait for slices of rows.
    WINNOW_DEVICE void run() {
        std::int32_t const at_once = tile.tiles * groups, batches = ceil_div(work.items, at_once);
#pragma unroll 1
        for (int slot = 0; slot < tile.tiles; ++slot) {
            std::int32_t const item = slot * groups + group;
            prune_branch const branch = begin(first_key(item));
            if (threadIdx.x % 4 == 0) branch_of(slot) = branch;
            __syncwarp();
            start(slot, item, 0);
        }
#pragma unroll 1
        for (std::int32_t batch = 0; batch < batches; ++batch)
#pragma unroll 1
            for (std::int32_t round = 0; round < work.rounds.count; ++round)
#pragma unroll 1
                for (std::int32_t slice = 0; slice < work.slices; ++slice) {
                    if (work.slices > 1) hold(slice);
#pragma unroll 1
                    for (int slot = 0; slot < tile.tiles; slot += closes(round) ? 2 : 1)
                        visit(slot, batch * at_once + slot * groups + group, round, slice);
                }
    }
};

#endif

}  // namespace winnow
