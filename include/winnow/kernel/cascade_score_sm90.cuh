// Attention that each key gets from a chunk, for Hopper (sm_90a): as kernel/cascade_score.cuh, by wgmma and TMA; persistent.
//
// Keys are the rows of the products and stay in registers, queries stream through shared memory as their columns. A sum
// over queries is then one over a thread's own accumulators; while 2^x is taken of one product, the next one is running.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/cascade_arguments.hpp"
#include "winnow/kernel/cascade_columns.cuh"
#include "winnow/policy/cascade_policy.hpp"
#include "winnow/ptx/barrier.cuh"
#include "winnow/ptx/bulk_copy.cuh"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/ptx/matrix_move.cuh"
#include "winnow/ptx/registers.cuh"
#include "winnow/ptx/wgmma.cuh"
#include "winnow/tile/online_softmax.cuh"
#include "winnow/tile/panel.hpp"
#include "winnow/tile/pipeline.hpp"

namespace winnow {

/// Kernel arguments: those of all kernels of a chunk, the tensor maps, and what cascade_offsets prepared.
template <class T>
struct cascade_hopper_arguments {
    CUtensorMap keys;     ///< boxes of 64 channels of a tile of lined-up keys
    CUtensorMap queries;  ///< boxes of 64 channels of a step's queries of one head
    cascade_attend_arguments<T> attend;
    float* offsets;           ///< [batch, head, pitch] of exponents
    std::int32_t pitch;       ///< cascade_offset_pitch
    std::int32_t max_tiles;   ///< of keys of a request
    std::int32_t items;       ///< tiles of all heads of all requests
    std::int32_t* next_item;  ///< blocks draw theirs from it
};

/// Launch bounds as a plain integer, as in hopper_bounds.
template <int HeadDim>
struct cascade_hopper_bounds {
    static constexpr int threads = cascade_hopper_tile_of(HeadDim).threads();
};

/// A tile of keys with the queries of one head.
struct cascade_score_item {
    std::int32_t batch, head;
    std::int32_t first_key;      ///< of the tile
    std::int32_t keys;           ///< of the request
    std::int32_t first_token;    ///< token of the chunk that the tile's first key is; below 0 for cached ones
    std::int32_t first_query;    ///< of the first step
    std::int32_t first_counted;  ///< query
    std::int32_t tokens;         ///< of the chunk
    std::int32_t steps;          ///< 0: there is no item, and none will follow
};

/// Shared memory of one block. `full` barriers end a phase when a slot holds its item, `empty` ones when it is free.
template <class T, int HeadDim>
struct cascade_hopper_storage {
    static constexpr cascade_hopper_tile tile = cascade_hopper_tile_of(HeadDim);
    alignas(1024) T key[tile.keys() * HeadDim];
    alignas(1024) T query[tile.stages][tile.queries * HeadDim];
    alignas(128) float offset[tile.stages][tile.queries];
    cascade_score_item item[2];  ///< the next one is drawn while one is worked on; each comes with its keys
    std::uint64_t key_full, key_empty;
    std::uint64_t query_full[tile.stages], query_empty[tile.stages];

    using ring = ring_position<tile.stages>;
    using key_layout = key_tile<tile.keys(), HeadDim, atom_order::panels>;
    using query_layout = key_tile<tile.queries, HeadDim, atom_order::panels>;
};

/// Fills the rows of offsets, and sets the counter of items. Block (group of queries, head, request).
template <class T>
__global__ void __launch_bounds__(cascade_offset_threads)
    cascade_offsets(cascade_hopper_arguments<T> const __grid_constant__ h) {
    ptx::let_later_grid_start();
    ptx::wait_for_earlier_grids();
    cascade_attend_arguments<T> const& a = h.attend;
    std::int32_t const query = blockIdx.x * cascade_offset_threads + threadIdx.x, head = blockIdx.y, b = blockIdx.z;
    if (query >= h.pitch) return;
    h.offsets[(std::int64_t{b} * a.shape.heads + head) * h.pitch + query] = query_offset(a, a.chunk(b), head, query);
    if (query == 0 && head == 0 && b == 0) *h.next_item = 0;
}

/// Draws the block's items, one thread's work. Tickets are asked for an item ahead, since an answer takes a microsecond.
/// They run through the tiles of one head, the long ones of cached keys first, then through heads and requests: blocks
/// that work side by side read the same queries.
template <class T, int HeadDim>
struct cascade_item_drawer {
    cascade_hopper_arguments<T> const& h;
    std::int32_t ticket = static_cast<std::int32_t>(blockIdx.x);

    WINNOW_DEVICE cascade_score_item draw(std::int32_t& outer, std::int32_t& first_row) {
        constexpr cascade_hopper_tile tile = cascade_hopper_tile_of(HeadDim);
        cascade_attend_arguments<T> const& a = h.attend;
        while (ticket < h.items) {
            std::int32_t const request_items = a.shape.heads * h.max_tiles, b = ticket / request_items;
            std::int32_t const index = ticket - b * request_items;
            cascade_chunk const chunk = a.chunk(b);
            std::int32_t const keys = a.lengths[b], tiles = ceil_div(keys, tile.keys());
            ticket = static_cast<std::int32_t>(gridDim.x) + atomicAdd(h.next_item, 1);
            if (chunk.tokens == 0 || index >= a.shape.heads * tiles) continue;
            cascade_score_item item{b, index / tiles, 0, keys, 0, 0, 0, chunk.tokens, 0};
            item.first_key = (index - item.head * tiles) * tile.keys();
            item.first_token = item.first_key - (keys - chunk.tokens);
            item.first_counted = chunk.tokens - a.params.scorer.counted(chunk.tokens);
            // Offsets are copied by 16 bytes.
            item.first_query = larger(item.first_counted, larger(item.first_token, 0)) & ~3;
            item.steps = ceil_div(chunk.tokens - item.first_query, tile.queries);
            outer = chunk.outer, first_row = static_cast<std::int32_t>(chunk.first_row);
            return item;
        }
        return {};
    }
};

/// The copying thread: keys of each item, then its queries, step by step.
template <class T, int HeadDim>
WINNOW_DEVICE void copy_items(cascade_hopper_storage<T, HeadDim>& s, cascade_hopper_arguments<T> const& h) {
    using storage = cascade_hopper_storage<T, HeadDim>;
    constexpr cascade_hopper_tile tile = storage::tile;
    constexpr int panels = HeadDim / panel_channels;
    cascade_item_drawer<T, HeadDim> drawer{h};
    std::uint32_t const keys = ptx::shared_address(s.key), queries = ptx::shared_address(s.query[0]);
    std::uint32_t index = 0;  // of the step, over all items
    for (std::uint32_t t = 0;; ++t) {
        std::int32_t outer = 0, first_row = 0;
        cascade_score_item const item = drawer.draw(outer, first_row);
        ptx::barrier_wait(&s.key_empty, (t & 1) ^ 1);
        s.item[t & 1] = item;
        if (item.steps == 0) {
            ptx::barrier_arrive(&s.key_full);
            return;
        }
        std::int32_t const kv_head = item.head / h.attend.shape.group();
        ptx::barrier_arrive_expect(&s.key_full, tile.keys() * HeadDim * sizeof(T));
        WINNOW_UNROLL
        for (int p = 0; p < panels; ++p)
            ptx::copy_box(keys + storage::key_layout::row_offset(0, p), h.keys, p * panel_channels, item.first_key,
                          kv_head, item.batch, &s.key_full);
        float const* offsets =
            h.offsets + (std::int64_t{item.batch} * h.attend.shape.heads + item.head) * h.pitch + item.first_query;
        std::int32_t row = first_row + item.first_query;
#pragma unroll 1
        for (std::int32_t step = 0; step < item.steps; ++step, ++index) {
            typename storage::ring const at{index};
            std::uint64_t* const full = &s.query_full[at.stage()];
            ptx::barrier_wait(&s.query_empty[at.stage()], at.free_parity());
            ptx::barrier_arrive_expect(full, tile.queries * (HeadDim * sizeof(T) + sizeof(float)));
            std::uint32_t const to = queries + at.stage() * static_cast<std::uint32_t>(sizeof(s.query[0]));
            WINNOW_UNROLL
            for (int p = 0; p < panels; ++p)
                ptx::copy_box(to + storage::query_layout::row_offset(0, p), h.queries, p * panel_channels, item.head,
                              row, outer, full);
            ptx::copy_bytes(ptx::shared_address(s.offset[at.stage()]), offsets, sizeof(s.offset[0]), full);
            row += tile.queries, offsets += tile.queries;
        }
    }
}

/// A thread's share of a multiplying warpgroup: two rows of each of its tiles of 64 keys. Product i of a step has tile
/// i % row_tiles of the keys and part i / row_tiles of the queries.
template <class T, int HeadDim>
struct cascade_score_rows {
    using storage = cascade_hopper_storage<T, HeadDim>;
    using ring = typename storage::ring;
    using query_layout = typename storage::query_layout;
    static constexpr cascade_hopper_tile tile = storage::tile;
    static constexpr int channel_steps = HeadDim / 16, column_tiles = tile.columns() / 8;

    storage& s;
    cascade_hopper_arguments<T> const& h;
    int group =
        __shfl_sync(~0u, threadIdx.x / 128, 0) - 1;  ///< warpgroup; the shuffle says that it is the same for all
    float c = h.attend.params.scale * log2_e;
    std::uint64_t queries = query_layout::key_descriptor(ptx::shared_address(s.query[0]));
    std::uint32_t key[tile.row_tiles][channel_steps][4] = {};
    float score[2][1][column_tiles][4] = {};
    float sum[tile.row_tiles][1][2] = {};

    /// One arrival for the warp, of all that its lanes have read.
    WINNOW_DEVICE static void release(std::uint64_t* barrier) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::barrier_arrive(barrier);
    }
    /// Row of the tile of keys that is the warp's first in its tile `i`.
    WINNOW_DEVICE int first_row(int i) const {
        return group * tile.group_keys() + i * 64 + static_cast<int>(threadIdx.x) / 32 % 4 * 16;
    }

    /// Takes the keys to registers.
    WINNOW_DEVICE void load_keys() {
        int const lane = threadIdx.x % 32;
        std::uint32_t const keys = ptx::shared_address(s.key);
        WINNOW_UNROLL
        for (int i = 0; i < tile.row_tiles; ++i) {
            WINNOW_UNROLL
            for (int k = 0; k < channel_steps; ++k)
                ptx::load_matrices(key[i][k],
                                   keys + panel_offset<tile.keys()>(first_row(i) + lane % 16, 2 * k + lane / 16));
            ptx::pin(key[i]);
        }
        release(&s.key_empty);
    }

    template <int Product>
    WINNOW_DEVICE void start(ring at) {
        constexpr std::uint32_t stage_step = sizeof(s.query[0]) / 16;  // of a descriptor
        constexpr int part = Product / tile.row_tiles;
        std::uint64_t const from =
            queries + at.stage() * stage_step + query_layout::row_offset(part * tile.columns(), 0) / 16;
        ptx::wgmma_fence();
        WINNOW_UNROLL
        for (int k = 0; k < channel_steps; ++k)
            ptx::wgmma<T, ptx::major::k>(score[Product][0], key[Product % tile.row_tiles][k],
                                         from + query_layout::channel_step(k), k != 0);
        ptx::wgmma_commit();
    }

    /// Waits for a product, the only one that is running: with two ptxas would serialise them (C7514), since they overlap
    /// around the loop.
    template <int Product>
    WINNOW_DEVICE void finish() {
        ptx::wgmma_wait<0>();
        ptx::pin(score[Product][0]);
    }

    /// Probabilities of a product, added up. `query`: the step's first.
    template <int Product>
    WINNOW_DEVICE void add(ring at, std::int32_t query, cascade_score_item const& item) {
        constexpr int rows = Product % tile.row_tiles, part = Product / tile.row_tiles;
        query += part * tile.columns();
        // The last key of the warpgroup's 64 is seen from this token on.
        std::int32_t const last_token = item.first_token + group * tile.group_keys() + rows * 64 + 63;
        if (larger(item.first_counted, last_token) > query || query + tile.columns() > item.tokens)
            hide_queries(score[Product],
                         item.first_token + first_row(rows) + static_cast<int>(threadIdx.x) % 32 / 4 - query,
                         {item.first_counted - query, item.tokens - query});
        add_probabilities<tile.polynomial_every>(sum[rows], score[Product],
                                                 s.offset[at.stage()] + part * tile.columns(), c);
        ptx::pin(sum[rows]);  // done before the next wait, not behind it
    }

    /// All steps of an item; `index` of the first. Returns the index behind the last.
    WINNOW_DEVICE std::uint32_t score_item(std::uint32_t index, std::int32_t steps, cascade_score_item const& item) {
        std::uint32_t const last = index + static_cast<std::uint32_t>(steps) - 1;
        std::int32_t query = item.first_query;
        auto const wait = [&](ring at) { ptx::barrier_wait(&s.query_full[at.stage()], at.parity()); };
        wait(ring{index});
        start<0>(ring{index});
        finish<0>();
#pragma unroll 1
        for (; index < last; ++index, query += tile.queries) {
            ring const now{index}, next{index + 1};
            start<1>(now);
            add<0>(now, query, item);
            finish<1>();
            wait(next);
            start<0>(next);
            add<1>(now, query, item);
            release(&s.query_empty[now.stage()]);
            finish<0>();
        }
        ring const now{index};
        start<1>(now);
        add<0>(now, query, item);
        finish<1>();
        add<1>(now, query, item);
        release(&s.query_empty[now.stage()]);
        return index + 1;
    }

    /// Sums of an item go out, and begin anew.
    WINNOW_DEVICE void write(cascade_score_item const& item) {
        int const lane = threadIdx.x % 32;
        batch_shape const& shape = h.attend.shape;
        float* const to = h.attend.sums + (std::int64_t{item.batch} * shape.heads + item.head) * shape.max_keys;
        WINNOW_UNROLL
        for (int i = 0; i < tile.row_tiles; ++i) WINNOW_UNROLL
        for (int half = 0; half < 2; ++half) {
            std::int32_t const key = item.first_key + first_row(i) + 8 * half + lane / 4;
            float const all = row_sum(sum[i][0][half]);
            if (lane % 4 == 0 && key < item.keys) to[key] = all;
            sum[i][0][half] = 0.0f;
        }
    }

    WINNOW_DEVICE void score_items() {
        std::uint32_t index = 0;
        for (std::uint32_t t = 0;; ++t) {
            ptx::barrier_wait(&s.key_full, t & 1);
            // Copied when the item after the next is drawn, which is when all have begun with the next.
            cascade_score_item const& item = s.item[t & 1];
            std::int32_t const steps = __shfl_sync(~0u, item.steps, 0);
            if (steps == 0) return;
            load_keys();
            index = score_item(index, steps, item);
            write(item);
        }
    }
};

template <class T, int HeadDim>
__global__ void __launch_bounds__(cascade_hopper_bounds<HeadDim>::threads, 1)
    cascade_score_sm90(cascade_hopper_arguments<T> const __grid_constant__ h) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    constexpr cascade_hopper_tile tile = cascade_hopper_tile_of(HeadDim);
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<cascade_hopper_storage<T, HeadDim>*>(raw);
    if (threadIdx.x == 0) {
        constexpr int warps = 4 * tile.warpgroups;
        ptx::barrier_init(&shared.key_full, 1), ptx::barrier_init(&shared.key_empty, warps);
        for (int i = 0; i < tile.stages; ++i)
            ptx::barrier_init(&shared.query_full[i], 1), ptx::barrier_init(&shared.query_empty[i], warps);
        ptx::barrier_init_fence();
    }
    __syncthreads();
    ptx::let_later_grid_start();
    ptx::wait_for_earlier_grids();
    if (__shfl_sync(~0u, threadIdx.x / 128, 0) == 0) {
        ptx::release_registers<tile.producer_registers>();
        if (threadIdx.x == 0) copy_items(shared, h);
    } else {
        ptx::acquire_registers<tile.consumer_registers>();
        cascade_score_rows<T, HeadDim> rows{shared, h};
        rows.score_items();
    }
#endif
}

}  // namespace winnow
