// What the warpgroups of a tree search on Hopper share: their block's work, its shared memory, its query rows, and where keys
// lie.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/stage/prune_branch.hpp"
#include "winnow/stage/prune_place.cuh"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/tile/channel_summary.cuh"
#include "winnow/tile/panel.hpp"

namespace winnow {

/// What a block has to do: its chunks, and the walkers whose rows it holds.
struct prune_walk_work {
    std::int32_t request, kv_head;
    std::int32_t first_chunk, chunks;  ///< candidates of the list
    std::int32_t walkers;              ///< whose rows are held: each goes down every chunk by itself
    std::uint32_t inverse;             ///< ceil(2^shift / walkers): a turn is divided by them in two instructions
    std::int32_t tiles;                ///< of chunks
    std::int32_t rows;                 ///< of one walker that are held
    std::int32_t rows_held;            ///< of all of them: of a panel
    std::int32_t slices;               ///< more than 1: rows of the one walker pass by in slices
    bool all_visible;                  ///< every row may see every key
    prune_rounds rounds;
    std::uint32_t* scores;  ///< [chunk]

    /// Exact for turns below 2^shift / walkers and products below 2^32: blocks have few tiles of a walker.
    static constexpr int shift = 24;

    /// Rows of `count` walkers.
    WINNOW_DEVICE void hold(std::int32_t count) {
        walkers = count;
        inverse = static_cast<std::uint32_t>(ceil_div(1 << shift, count));
        rows_held = count * rows;
    }
};

inline constexpr int prune_walk_warp_keys = prune_walk_tile::keys / 4;  ///< of a tile, of each warp

/// Shared memory of a block of warpgroups; the rows of queries lie behind it, and the tiles of keys behind them.
template <int HeadDim>
struct alignas(128) prune_walk_storage {
    static constexpr prune_walk_tile tile = prune_walk_tile_of(HeadDim);
    prune_place place;
    prune_query_source source;
    prune_row_set set;
    prune_walk_work work;
    std::int32_t looking[prune_walk_rows_held(HeadDim)];  ///< position each row looks from
    std::uint32_t best[prune_most_chunks_alone];          ///< ordered_key of each chunk, over the walkers of the unit
    prune_branch branch[tile.warpgroups * tile.tiles][tile.chunks];
    /// Positions of the keys of each warp's part of a tile: left probes of its eight chunks, then right ones.
    alignas(16) std::int32_t probe[tile.warpgroups * tile.tiles][4][prune_walk_warp_keys];
    float2 found[tile.warpgroups * tile.tiles][tile.chunks];  ///< maxima over the slices of rows so far
};

/// Offset of the rows: panels start at multiples of 1024 bytes.
template <int HeadDim>
inline constexpr std::size_t prune_walk_rows_offset = round_up<std::size_t>(sizeof(prune_walk_storage<HeadDim>), 1024);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Division by a number that only the device knows, of n with n * divisor < 2^32: fast_divider takes longer to prepare.
struct small_divider {
    std::int32_t divisor;
    std::uint32_t inverse;  ///< ceil(2^32 / divisor), for 1: 0

    WINNOW_DEVICE explicit small_divider(std::int32_t d)
        : divisor(d), inverse(0xffffffffu / static_cast<std::uint32_t>(d) + 1) {}
    [[nodiscard]] WINNOW_DEVICE std::int32_t quotient(std::int32_t n) const {
        std::uint64_t const product = static_cast<std::uint64_t>(static_cast<std::uint32_t>(n)) * inverse;
        return divisor == 1 ? n : static_cast<std::int32_t>(product >> 32);
    }
};

/// Where pieces of keys of one request and KV head lie, as far as one multiplication of 32 bits finds them: caches in one
/// piece, of any stride that fits.
template <class T>
struct walk_key_source {
    std::uintptr_t first = 0;  ///< piece of key 0
    std::uint32_t stride = 0;  ///< bytes
    bool linear;               ///< false: pages, or a stride that does not fit

    WINNOW_DEVICE walk_key_source(prune_arguments<T> const& a, std::int32_t b, std::int32_t kv_head,
                                  std::int32_t channel) {
        tensor_view<T const, 4> const& keys = a.params.keys;
        kv_index const& kv = a.params.kv;
        std::int64_t const bytes = keys.stride[1] * static_cast<std::int64_t>(sizeof(T));
        linear = (kv.layout == kv_layout::contiguous || kv.layout == kv_layout::ragged) && bytes >= 0 &&
                 bytes <= std::int64_t{0xffffffff};
        if (!linear) return;
        token_location const where = locate_unchecked(kv, a.page_size, b, 0);
        first = reinterpret_cast<std::uintptr_t>(keys.data + keys.offset(where.outer, where.token, kv_head) + channel);
        stride = static_cast<std::uint32_t>(bytes);
    }
    [[nodiscard]] WINNOW_DEVICE void const* at(std::int32_t position) const {
        return reinterpret_cast<void const*>(first + std::uint64_t{stride} * static_cast<std::uint32_t>(position));
    }
};

/// Brings rows [first_row, first_row + count) of walkers from `first_walker` on into shared memory, as hold_query_rows
/// does, by `threads` threads of which this is number `thread`. Rows that are not averaged are copies that the caller closes
/// and waits for; either kind needs a proxy fence, and a barrier before and behind. Each thread takes one piece of many
/// rows, and divides by multiplying: a block that brings its rows in works on nothing else.
template <class T, int HeadDim, product_unit Unit>
__device__ __noinline__ void hold_walk_rows(prune_walk_storage<HeadDim>& s, unsigned char* queries,
                                            std::int32_t first_walker, std::int32_t first_row, std::int32_t count,
                                            std::int32_t thread, std::int32_t threads) {
    constexpr int pieces = HeadDim / 8, batch = 4,
                  at_once = 2;  // rows that are averaged, loaded together; and of these
    prune_query_source const from = s.source;
    prune_row_set const set = s.set;
    small_divider const by_padded(set.padded()), by_heads(set.heads);
    std::int32_t const piece = thread % pieces, step = threads / pieces;
    auto const source = [&](std::int32_t local) {
        std::int32_t const walker = by_padded.quotient(local);
        std::int32_t const row = smaller(first_row + local - walker * by_padded.divisor, set.rows() - 1);
        std::int32_t const group = by_heads.quotient(row), first = (set.first_group + group) * from.query_stride;
        return prune_query_row{set.first_head + (first_walker + walker) * set.heads + row - group * by_heads.divisor,
                               larger(first, from.span.first), smaller(first + from.query_stride - 1, from.span.last)};
    };
    auto const address = [&](prune_query_row const& row) {
        return static_cast<T const*>(from.data) + row.first * from.row_stride + row.head * from.head_stride + piece * 8;
    };
    if (from.query_stride == 1) {
#pragma unroll 1
        for (std::int32_t local = thread / pieces; local < count; local += step) {
            prune_query_row const row = source(local);
            if (piece == 0) s.looking[local] = looking_position(from.mask, row.first, from.keys);
            ptx::copy_async_16(ptx::shared_address(queries) + (piece / 8 * count + local) * panel_row_bytes +
                                   (((piece ^ local) & 7) << 4),
                               address(row));
        }
        return;
    }
#pragma unroll 1
    for (std::int32_t local = thread / pieces; local < count; local += at_once * step) {
        prune_query_row row[at_once];
        T const* at[at_once];
        channel_mean<T> mean[at_once];
        std::int32_t longest = 0;
        WINNOW_UNROLL
        for (int i = 0; i < at_once; ++i) {
            row[i] = source(smaller(local + i * step, count - 1));
            at[i] = address(row[i]);
            longest = larger(longest, row[i].last - row[i].first + 1);
        }
#pragma unroll 1
        for (std::int32_t q = 0; q < longest; q += batch) {
            uint4 v[at_once][batch];
            WINNOW_UNROLL
            for (int i = 0; i < at_once; ++i) WINNOW_UNROLL
            for (int k = 0; k < batch; ++k, at[i] += from.row_stride)
                v[i][k] = row[i].first + q + k <= row[i].last ? *reinterpret_cast<uint4 const*>(at[i])
                                                              : make_uint4(0, 0, 0, 0);
            WINNOW_UNROLL
            for (int i = 0; i < at_once; ++i) WINNOW_UNROLL
            for (int k = 0; k < batch; ++k) mean[i].add(v[i][k]);
        }
        WINNOW_UNROLL
        for (int i = 0; i < at_once; ++i) {
            std::int32_t const to = local + i * step;
            if (to >= count) break;
            if (piece == 0) s.looking[to] = looking_position(from.mask, row[i].first, from.keys);
            hold_chunk<HeadDim, Unit>(queries, count, to, piece, mean[i].value(0, row[i].last - row[i].first + 1));
        }
    }
}

#endif

}  // namespace winnow
