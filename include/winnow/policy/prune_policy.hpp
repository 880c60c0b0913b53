// Tuning of `prune`: how heads, rows and chunks are dealt to scoring blocks, and how wide selection runs.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/prune_stages.hpp"

namespace winnow {

/// How products with query rows are made: by each warp for itself (mma.sync), or by the four warps of a warpgroup together
/// (wgmma), which take one set of rows, 64 at a time, or 16 where a walker has few. `turned`: by each warp, and rows and
/// keys are turned before. `widened`: by each warp, and keys are stored in fp8.
enum class product_unit : std::int32_t { warp, warpgroup, turned, widened, warpgroup_few };

/// Units of tree searches whose keys lie in shared memory.
WINNOW_HOST_DEVICE constexpr bool by_warpgroups(product_unit u) {
    return u == product_unit::warpgroup || u == product_unit::warpgroup_few;
}

/// What a scoring kernel is compiled for.
struct prune_tuning {
    int warps;      ///< of a block; each scores keys of its own
    int key_tiles;  ///< 16 keys each, held in registers by a warp: bytes in flight against registers
    int blocks;     ///< blocks that a multiprocessor shall hold, which bounds registers
};

inline constexpr int prune_score_warps = 4;          ///< of a scoring block
inline constexpr int prune_key_rows = 16;            ///< keys of one tile: the rows of mma.sync's left operand
inline constexpr int prune_row_tile = 8;             ///< query rows of one product of a warp: its columns
inline constexpr int prune_row_group = 64;           ///< the same of a warpgroup
inline constexpr int prune_few_rows = 16;            ///< the same where walkers have few rows
inline constexpr int prune_query_bytes = 64 * 1024;  ///< averaged query rows that a block holds in shared memory
inline constexpr int prune_most_chunks = 256;        ///< chunks of a block whose walkers share scores in shared memory
inline constexpr int prune_most_chunks_alone =
    1024;  ///< of one walker: the more chunks, the less its rows cost; and of
           ///< all walkers by warpgroups, which have the room
inline constexpr std::int64_t prune_blocks_wanted = 1024;    ///< about 4 blocks for every place on a large device
inline constexpr std::int64_t prune_blocks_at_a_time = 264;  ///< two for each multiprocessor of a large device
inline constexpr int prune_select_threads = 512;             ///< one list a block, at most
inline constexpr int prune_select_blocks = 3;                ///< that a multiprocessor shall hold, of so many
inline constexpr int prune_select_cached = 16384;            ///< scores that selection keeps in shared memory
inline constexpr int prune_select_in_place = 2048;           ///< at decode scoring blocks select among no more

/// Scorers that sum up all keys of a chunk, or read a summary of them.
WINNOW_HOST_DEVICE constexpr bool reads_whole_chunks(scorer s) {
    return s == scorer::mean_key || s == scorer::min_max_bound;
}

/// One tile of head_dim 128 takes 32 registers of each lane. A round of a tree search is a chain of some 300 instructions
/// behind a read from memory, so it takes few keys, and 16 warps share a multiprocessor. Other scorers read once and take
/// two tiles, 64 registers. Means are summed in fp32, and bounds are two keys a chunk, which takes as many registers for
/// one tile as single keys do for two.
WINNOW_HOST_DEVICE constexpr prune_tuning prune_tuning_of(int head_dim, scorer how,
                                                          product_unit unit = product_unit::warp) {
    bool const whole = reads_whole_chunks(how) || how == scorer::antidiagonal;
    bool const alone = unit == product_unit::warp || unit == product_unit::widened;
    bool const single = whole || how == scorer::tree_probe || head_dim > 128;
    bool const few = head_dim > 128 || !alone || how == scorer::tree_probe_first;
    return {.warps = prune_score_warps,
            .key_tiles = single ? 1 : 2,
            .blocks = few                         ? 2
                      : how == scorer::tree_probe ? 4
                                                  : 3};
}

/// Tree searches by warpgroups: keys lie in shared memory, tile by tile.
struct prune_walk_tile {
    int tiles;       ///< of a warpgroup: while it works on one, keys of the others are on their way
    int warpgroups;  ///< of a block, at most: they bound registers

    static constexpr int keys = 64;          ///< of a tile: the rows of a product
    static constexpr int chunks = keys / 2;  ///< of a tile: a round looks at two keys of each
    WINNOW_HOST_DEVICE constexpr int threads() const { return warpgroups * 128; }
};

inline constexpr std::size_t kibibyte = 1024;
inline constexpr std::size_t prune_walk_query_bytes = 128 * kibibyte;  ///< averaged query rows that a block holds
inline constexpr std::size_t prune_walk_block_bytes = 227 * kibibyte;  ///< shared memory that a block may have
inline constexpr std::size_t prune_walk_processor_bytes =
    228 * kibibyte;  ///< of a multiprocessor, 1 KB of each block's

/// 32 KB of keys for each warpgroup. Four of them, on one multiprocessor, keep 64 KB under way even while each works on a
/// tile: L2 delivers 24 bytes a clock after 1000 clocks or more. Keys and products of head_dim 256 take 96 registers, and
/// there are only three.
WINNOW_HOST_DEVICE constexpr prune_walk_tile prune_walk_tile_of(int head_dim) {
    return {head_dim > 128 ? 1 : 256 / head_dim, head_dim > 128 ? 3 : 4};
}

/// Warpgroups of a block that needs `held` bytes for rows and state: half of those that fit a multiprocessor if two such
/// blocks fit, so that rows of one are brought in while the other works, else all for which there is room.
WINNOW_HOST_DEVICE constexpr std::int32_t prune_walk_warpgroups(int head_dim, std::size_t held) {
    prune_walk_tile const tile = prune_walk_tile_of(head_dim);
    std::size_t const keys = static_cast<std::size_t>(tile.tiles) * tile.keys * head_dim * 2;
    std::size_t const half = tile.warpgroups / 2;
    bool const two = tile.warpgroups % 2 == 0 && 2 * (held + half * keys + 1024) <= prune_walk_processor_bytes;
    return two ? static_cast<std::int32_t>(half)
               : static_cast<std::int32_t>(
                     smaller<std::size_t>(tile.warpgroups, (prune_walk_block_bytes - held) / keys));
}

/// Query rows that a block of warpgroups holds at a time.
WINNOW_HOST_DEVICE constexpr std::int32_t prune_walk_rows_held(int head_dim) {
    return static_cast<std::int32_t>(prune_walk_query_bytes) / (2 * head_dim);
}

/// Query rows, averaged, that a block holds at a time.
WINNOW_HOST_DEVICE constexpr std::int32_t prune_rows_held(int head_dim) { return prune_query_bytes / (2 * head_dim); }

/// Scorers that walk down a chunk, from branch to branch.
WINNOW_HOST_DEVICE constexpr bool walks_tree(scorer s) {
    return s == scorer::tree_probe || s == scorer::tree_probe_first;
}

/// Rows that a scoring block holds for each averaged one: antidiagonals take the rows of a group one by one.
WINNOW_HOST_DEVICE constexpr std::int32_t prune_residues(scorer how, std::int32_t query_stride) {
    return how == scorer::antidiagonal ? query_stride : 1;
}

/// Copies of each row that a scoring block holds: scan_style::relative turns rows for left and for right probes.
WINNOW_HOST_DEVICE constexpr std::int32_t prune_row_copies(product_unit unit, scan_style scan) {
    return unit == product_unit::turned && scan == scan_style::relative ? 2 : 1;
}

/// Warpgroups serve the default scorer where the rows of a walker, `rows` averaged ones, fill their products; below 16
/// rows, as in decode, a warp's products are as good. `instructions`: 90 if the program has code for sm_90a, without which
/// their kernel is empty.
WINNOW_HOST_DEVICE constexpr product_unit product_unit_of(prune_method const& m, std::int64_t rows,
                                                          std::int32_t instructions) {
    if (m.scorer != scorer::tree_probe || rows < prune_few_rows || instructions < 90) return product_unit::warp;
    return rows < prune_row_group ? product_unit::warpgroup_few : product_unit::warpgroup;
}

/// Query rows of one product.
WINNOW_HOST_DEVICE constexpr std::int32_t rows_of_product(product_unit u) {
    return u == product_unit::warpgroup       ? prune_row_group
           : u == product_unit::warpgroup_few ? prune_few_rows
                                              : prune_row_tile;
}

/// Chunks that a warp scores at a time: tree_probe looks at two keys of each, the others at one.
WINNOW_HOST_DEVICE constexpr std::int32_t chunks_per_tile(scorer s, int key_tiles) {
    return key_tiles * (s == scorer::tree_probe ? prune_key_rows / 2 : prune_key_rows);
}

/// Chunks of one scoring block, whole tiles: many, so that query rows are brought in for many, where lists leave
/// prune_blocks_wanted blocks; few, where they do not, but no more blocks than run at a time while warps are idle.
WINNOW_HOST_DEVICE constexpr std::int32_t chunks_per_block(std::int32_t per_tile, std::int32_t candidates,
                                                           std::int64_t lists, std::int32_t walkers, std::int32_t warps,
                                                           std::int32_t most) {
    std::int32_t chunks = per_tile;
    while (chunks * 2 <= most) {
        bool const enough = lists * ceil_div(candidates, chunks * 2) >= prune_blocks_wanted;
        bool const idle = chunks * 2 * walkers <= per_tile * warps;
        if (!enough && !(idle && lists * ceil_div(candidates, chunks) > prune_blocks_at_a_time)) break;
        chunks *= 2;
    }
    return chunks;
}

/// The same of blocks of warps.
WINNOW_HOST_DEVICE constexpr std::int32_t chunks_per_block(std::int32_t per_tile, std::int32_t candidates,
                                                           std::int64_t lists, std::int32_t walkers,
                                                           std::int32_t warps) {
    return chunks_per_block(per_tile, candidates, lists, walkers, warps,
                            walkers > 1 ? prune_most_chunks : prune_most_chunks_alone);
}

/// Query heads whose rows are scored together, against the same probes: the KV group where all of them share the probes
/// and the list, one head where each walks its own path or has its own list.
WINNOW_HOST_DEVICE constexpr std::int32_t heads_scored_together(prune_method const& m, std::int32_t group) {
    if (walks_tree(m.scorer)) return m.path == probe_path::per_kv_group ? group : 1;
    return m.sharing == sharing::per_head ? 1 : group;
}

/// How the query heads of a request are dealt to scoring blocks.
struct prune_units {
    std::int32_t units;    ///< rows of scores per query block: one per KV head, or per query head with its own list
    std::int32_t walkers;  ///< sets of heads in a unit that probe by themselves; the best of them is the score
    std::int32_t heads;    ///< query heads that a walker scores together
};

WINNOW_HOST_DEVICE constexpr prune_units units_of(prune_method const& m, std::int32_t heads, std::int32_t kv_heads) {
    std::int32_t const group = heads / kv_heads, together = heads_scored_together(m, group);
    if (together == group) return {kv_heads, 1, group};
    return m.sharing == sharing::per_head ? prune_units{heads, 1, 1} : prune_units{kv_heads, group, 1};
}

/// Rows of scores that make up a list: of list head `list`, `count` units from `first` on.
struct unit_range {
    std::int32_t first;
    std::int32_t count;
};

WINNOW_HOST_DEVICE constexpr unit_range units_of_list(std::int32_t list, std::int32_t list_heads, std::int32_t units) {
    if (units >= list_heads) return {list * (units / list_heads), units / list_heads};
    return {list / (list_heads / units), 1};  // heads that walk together have equal lists of their own
}

/// Lists that one selection serves: `count` groups of them in a request, made of the scores of `units` units each, and
/// `copies` equal lists in each.
struct prune_groups {
    std::int32_t count;
    std::int32_t units;
    std::int32_t copies;
};

WINNOW_HOST_DEVICE constexpr prune_groups groups_of(std::int32_t list_heads, std::int32_t units) {
    if (units >= list_heads) return {list_heads, units / list_heads, 1};
    return {units, 1, list_heads / units};
}

/// Threads of a block that selects. What a warp does once is as much as it does for 256 candidates: where lists keep the
/// device busy it has 512 and more, as long as the shared memory of a multiprocessor suffices for 48 warps. Where lists
/// are few, all threads share the work of one.
WINNOW_HOST_DEVICE constexpr int prune_select_threads_of(std::int32_t candidates, std::int64_t lists) {
    if (lists < prune_blocks_at_a_time) return prune_select_threads;
    return candidates <= 2048 ? 128 : candidates <= 8192 ? 256 : prune_select_threads;
}

/// True if the scoring block of a decode step that is done last selects: no second kernel has to start. Long lists take
/// more threads, and prefill's many lists keep the device busy as it is.
WINNOW_HOST_DEVICE constexpr bool selects_in_place(bool decode, std::int32_t candidates) {
    return decode && candidates <= prune_select_in_place;
}

}  // namespace winnow
