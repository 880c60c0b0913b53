// Tuning of the cascade operators: rows and threads of the kernels that gather, score, decide and move.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/attend_tile.hpp"

namespace winnow {

inline constexpr int cascade_gather_threads = 256;
inline constexpr int cascade_gather_rows = 8;     ///< rows of a block at most
inline constexpr int cascade_gather_turns = 512;  ///< rotations that a block holds, 8 bytes each
inline constexpr int cascade_reduce_threads = 256;
inline constexpr int cascade_decide_tokens = 128;  ///< tokens of a chunk whose lists fit the block's shared memory
inline constexpr int cascade_move_threads = 256;
inline constexpr int cascade_move_rows_of_block = 8;
inline constexpr int cascade_moves_at_once = 16;  ///< moves that one block holds in registers: those of a few tokens
inline constexpr int cascade_max_vectors = 32;    ///< of a row: head_dim 256

inline constexpr int cascade_insert_token_threads = 512;  ///< of the kernel that inserts one token
inline constexpr int cascade_token_threads = 256;         ///< of the kernel that scores a decode step
inline constexpr int cascade_token_blocks = 4;            ///< of it per multiprocessor that registers must allow
inline constexpr int cascade_token_heads = 32;            ///< query heads whose probabilities it holds

/// How a decode step over rows as they lie is cut: the same for every request, whatever else is in the batch.
struct cascade_splits {
    std::int32_t tile_heads = 1;   ///< query heads that a block takes
    std::int32_t head_groups = 1;  ///< groups of so many that a KV head's query heads make
    std::int32_t count = 1;        ///< pieces of the rows; > 1: they are merged by the block that is the last
    std::int32_t steps = 1;        ///< of a piece
    friend constexpr bool operator==(cascade_splits const&, cascade_splits const&) = default;
};

/// Splits of `rows` rows. A block's way to its first row and the merge behind its last are paid once, and what it has under
/// way is enough meanwhile, so one request has no more blocks than a part of 132 multiprocessors holds at a time.
WINNOW_HOST_DEVICE constexpr cascade_splits cascade_splits_of(std::int32_t head_dim, std::int32_t kv_heads,
                                                              std::int32_t group, std::int32_t rows) {
    constexpr std::int32_t multiprocessors = 132, most_splits = 256, least_steps = 2;
    attend_tile const tile = attend_tile_of({head_dim, attend_rows::decode});
    cascade_splits s;
    s.tile_heads = smaller(group, tile.rows);
    s.head_groups = ceil_div(group, s.tile_heads);
    std::int32_t const steps = ceil_div(rows, tile.keys), tiles = kv_heads * s.head_groups;
    std::int32_t const wanted = smaller(larger(multiprocessors * tile.min_blocks / tiles, 1), most_splits);
    s.steps = larger(ceil_div(steps, wanted), least_steps);
    s.count = ceil_div(steps, s.steps);
    return s;
}

/// Threads of a block that decides: all there can be for long chunks, since there are only as many blocks as sets of
/// tokens; few where a decode step waits at their barriers.
enum class cascade_decide_threads : std::int32_t { few = 128, many = 1024 };

/// Threads for chunks of up to `max_tokens`.
WINNOW_HOST_DEVICE constexpr cascade_decide_threads cascade_decide_threads_of(std::int32_t max_tokens) {
    return max_tokens <= cascade_decide_tokens ? cascade_decide_threads::few : cascade_decide_threads::many;
}

/// Rows of a block that rotates `pairs` pairs of channels.
WINNOW_HOST_DEVICE constexpr std::int32_t cascade_gather_rows_of(std::int32_t pairs) {
    return pairs == 0 ? cascade_gather_rows : smaller(cascade_gather_rows, cascade_gather_turns / pairs);
}

/// Tile of the score kernel. Keys are the rows of its matrix product and stay in registers; queries stream by.
struct cascade_score_tile {
    std::int32_t row_tiles;   ///< of 16 keys a warp; their fragments take 64 registers
    std::int32_t warps;       ///< each with keys of its own, all with the same queries
    std::int32_t queries;     ///< of a step
    std::int32_t columns;     ///< queries whose scores are in registers at a time
    std::int32_t min_blocks;  ///< thread blocks per multiprocessor that registers must allow

    WINNOW_HOST_DEVICE constexpr std::int32_t threads() const { return warps * 32; }
    WINNOW_HOST_DEVICE constexpr std::int32_t warp_keys() const { return row_tiles * 16; }
    WINNOW_HOST_DEVICE constexpr std::int32_t keys() const { return warps * warp_keys(); }
};

/// Tile for a head dimension. Queries are read from shared memory once for all keys of a warp, so its 256 / head_dim row
/// tiles set the ratio of loads to products; they come from the L2 cache once for all keys of a block, so its eight warps
/// halve that traffic against four. Blocks of 16 columns leave registers for 16 warps on a multiprocessor, which take
/// turns at the tensor cores and at 2^x.
WINNOW_HOST_DEVICE constexpr cascade_score_tile cascade_score_tile_of(std::int32_t head_dim) {
    return {256 / head_dim, 8, 64, 16, 2};
}

/// Tile of the Hopper score kernel: two multiplying warpgroups with keys of their own in registers, and one that copies
/// queries. A step is two products of a warpgroup, and while one is running 2^x is taken of the other: products of two
/// groups of 64 keys with all queries of the step, or of 64 keys with two halves of its queries.
struct cascade_hopper_tile {
    std::int32_t row_tiles;           ///< of 64 keys a warpgroup
    std::int32_t column_parts;        ///< of the queries of a step; row_tiles * column_parts = 2
    std::int32_t queries;             ///< of a step
    std::int32_t stages;              ///< steps in flight
    std::int32_t polynomial_every;    ///< of so many tiles of 8 columns one takes 2^x by polynomial; 0: none does
    std::int32_t producer_registers;  ///< registers a thread of the copying warpgroup
    std::int32_t consumer_registers;  ///< registers a thread of the others

    static constexpr std::int32_t warpgroups = 2;  ///< that multiply
    WINNOW_HOST_DEVICE constexpr std::int32_t threads() const { return 128 * (1 + warpgroups); }
    WINNOW_HOST_DEVICE constexpr std::int32_t group_keys() const { return row_tiles * 64; }
    WINNOW_HOST_DEVICE constexpr std::int32_t keys() const { return warpgroups * group_keys(); }
    WINNOW_HOST_DEVICE constexpr std::int32_t columns() const { return queries / column_parts; }
};

/// Tile for a head dimension. Keys of two products and both products take 192 registers at head_dim 128; at 256 the keys
/// of one alone take 64, so it has but one. 256 keys a block need 16 bytes of queries a clock from the L2 cache.
/// At head_dim 128 products and 2^x would take equally long, at 64 2^x is the longer: polynomials take over a share of it.
WINNOW_HOST_DEVICE constexpr cascade_hopper_tile cascade_hopper_tile_of(std::int32_t head_dim) {
    cascade_hopper_tile t{2, 1, 128, 4, 4, 40, 232};
    if (head_dim == 256) t.row_tiles = 1, t.column_parts = 2, t.stages = 2, t.polynomial_every = 0;
    return t;
}

inline constexpr int cascade_offset_threads = 256;

/// Offsets of a head's queries begin so far apart: any step may be read whole.
WINNOW_HOST_DEVICE constexpr std::int32_t cascade_offset_pitch(std::int32_t max_queries) {
    std::int32_t const queries = cascade_hopper_tile_of(128).queries;
    return round_up(max_queries, queries) + queries;
}

/// Chunks of up to so many tokens are scored by the portable kernel, also on Hopper: they would leave most of a step
/// empty.
inline constexpr std::int32_t cascade_short_chunk = 64;

/// Kernel that scores chunks of up to `max_queries` tokens. The Hopper kernel numbers the tiles of all heads and requests
/// in 32 bits.
WINNOW_HOST_DEVICE constexpr attend_path cascade_score_path_of(device_info const& device, std::int32_t head_dim,
                                                               std::int32_t max_queries, std::int64_t max_keys,
                                                               std::int64_t heads_of_batch) {
    bool const hopper = device.compute_capability == 90 && device.instructions >= 90;
    std::int64_t const items =
        ceil_div<std::int64_t>(max_keys, cascade_hopper_tile_of(head_dim).keys()) * heads_of_batch;
    bool const fits = items < (std::int64_t{1} << 30) && max_queries < (1 << 30);
    return hopper && fits && max_queries > cascade_short_chunk ? attend_path::sm90 : attend_path::sm80;
}

/// Query heads that one block of the portable score kernel takes one after the other. Long chunks take one, which makes the most
/// blocks; short ones all of a group, so that keys are read once.
WINNOW_HOST_DEVICE constexpr std::int32_t cascade_score_heads(std::int32_t max_queries, std::int32_t group) {
    return max_queries <= cascade_short_chunk ? group : 1;
}

}  // namespace winnow
