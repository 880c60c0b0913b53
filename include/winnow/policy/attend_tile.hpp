// Tuning of `attend`: the tile of each kernel, per head dimension and row class.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/streaming.hpp"

namespace winnow {

/// Keys are fetched, masked and multiplied in granules of 8: the width of one mma.sync n-tile and the smallest block.
inline constexpr std::int32_t granule_keys = 8;

/// Row classes of a tile.
enum class attend_rows : std::int32_t {
    decode,  ///< 16 rows
    medium,  ///< 64 rows
    large,   ///< 128 rows
    wide     ///< 192 rows, of head_dim 64 on path sm90
};

/// Which kernels a launch runs.
enum class attend_path : std::int32_t {
    sm80,  ///< cp.async and mma.sync: every device from sm_80 on, every tensor
    sm90   ///< TMA and wgmma: compute capability 9.0, tensors that TMA can address, tiles of 64 rows and more
};

/// Compile-time choice of one kernel: `launch<attend_problem{128, attend_rows::large}>(...)`.
struct attend_problem {
    std::int32_t head_dim;
    attend_rows rows;
};

/// Shape of the portable kernel's tile. Its 16 rows are shared by all warps, which split the keys; of 64 rows a warp has
/// 16; of 128 it has 32, which halves the shared-memory reads per product and needs the registers.
struct attend_tile {
    std::int32_t rows;        ///< query rows (tokens x packed heads)
    std::int32_t keys;        ///< keys per step
    std::int32_t row_warps;   ///< warps that divide the rows
    std::int32_t key_warps;   ///< warps that divide the keys of a step; their results are merged at the end
    std::int32_t min_blocks;  ///< thread blocks per multiprocessor that registers must allow
    std::int32_t stages = 1;  ///< steps whose keys and values have room in shared memory at a time

    WINNOW_HOST_DEVICE constexpr std::int32_t threads() const { return row_warps * key_warps * 32; }
    WINNOW_HOST_DEVICE constexpr std::int32_t warp_rows() const { return rows / row_warps; }
    WINNOW_HOST_DEVICE constexpr std::int32_t warp_keys() const { return keys / key_warps; }
};

/// Tile for a problem. The large tile is as tall and wide as 255 registers allow: scores and output take 192 of them.
/// head_dim 256 has no 128-row tile of its own, since the output alone would take 256. At decode a block runs few steps and
/// waits for memory in each: with two steps in flight three blocks have 192 KB under way on a multiprocessor, and a split
/// of two steps waits once. At head_dim 256 two steps would not fit the smallest parts. Over keys of one byte they do, and
/// four blocks at head_dim 128.
WINNOW_HOST_DEVICE constexpr attend_tile attend_tile_of(attend_problem p, std::int32_t key_bytes = 2) {
    switch (p.rows) {
    case attend_rows::decode:
        if (key_bytes == 1)
            return p.head_dim == 64    ? attend_tile{16, 64, 1, 4, 5, 2}
                   : p.head_dim == 128 ? attend_tile{16, 64, 1, 4, 4, 2}
                                       : attend_tile{16, 64, 1, 4, 2, 2};
        return p.head_dim == 64    ? attend_tile{16, 64, 1, 4, 5, 2}
               : p.head_dim == 128 ? attend_tile{16, 64, 1, 4, 3, 2}
                                   : attend_tile{16, 64, 1, 4, 2};
    case attend_rows::medium:
        return {64, 64, 4, 1, 2};
    case attend_rows::large:
        return p.head_dim == 64    ? attend_tile{128, 128, 4, 1, 2}
               : p.head_dim == 128 ? attend_tile{128, 64, 4, 1, 2}
                                   : attend_tile{64, 64, 4, 1, 2};
    case attend_rows::wide:
        break;
    }
    return {};
}

/// Shared memory of a block, an upper bound: the tiles of 16-bit elements and the bookkeeping beside them.
WINNOW_HOST_DEVICE constexpr std::int32_t attend_shared_bytes(attend_problem p) {
    attend_tile const tile = attend_tile_of(p);
    return (tile.rows + 2 * tile.stages * tile.keys) * p.head_dim * 2 + 10 * 1024;
}

/// Shared memory that turning rows and keys adds: frequencies, the turns of a step's granules and those inside one, and a
/// position for each row.
WINNOW_HOST_DEVICE constexpr std::int32_t rotation_shared_bytes(attend_problem p) {
    attend_tile const tile = attend_tile_of(p);
    std::int32_t const turns = tile.keys / granule_keys + granule_keys - 1;
    return p.head_dim / 2 * (8 + 8 * turns) + tile.rows * 4 + 16;
}

/// Of a block of the portable kernel, an upper bound.
WINNOW_HOST_DEVICE constexpr std::int32_t attend_shared_bytes(attend_problem p, key_rotation rotation) {
    return attend_shared_bytes(p) + (rotation == key_rotation::none ? 0 : rotation_shared_bytes(p));
}

/// How the Hopper kernel brings keys and values to shared memory.
enum class key_loader : std::int32_t {
    atoms,  ///< TMA, all channels of 8 neighbours and more at a time: granules begin at multiples of 8 rows in memory
    boxes,  ///< TMA, 64 channels of 8 neighbours and more at a time
    rows    ///< cp.async: each key by itself, for pages that hold no whole granule and strides that TMA does not take
};

/// Where the Hopper kernel keeps its queries.
enum class query_place : std::int32_t {
    registers,  ///< loaded once a tile; fewer shared-memory reads per product, +2 to 3 points of the tensor rate
    shared,     ///< where registers are short; the next tile's come to a second place meanwhile
    results     ///< the same in one place, which finished rows pass through too: tiles of head_dim 256 fill the memory
};

/// Shape of the Hopper kernel's tile: warpgroups of 64 rows that multiply, and one more that copies.
struct hopper_tile {
    std::int32_t rows;                ///< query rows (tokens x packed heads)
    std::int32_t keys;                ///< keys per step
    std::int32_t key_stages;          ///< steps whose keys are in flight
    std::int32_t value_stages;        ///< steps whose values are
    std::int32_t row_warpgroups;      ///< warpgroups that divide the rows
    std::int32_t key_warpgroups;      ///< warpgroups that take steps in turn; their results are merged at the end
    query_place query;                ///< left operand of the first product
    std::int32_t producer_registers;  ///< registers a thread of the copying warpgroup
    std::int32_t consumer_registers;  ///< registers a thread of the others

    WINNOW_HOST_DEVICE constexpr std::int32_t warpgroups() const { return row_warpgroups * key_warpgroups; }
    WINNOW_HOST_DEVICE constexpr std::int32_t threads() const { return 128 * (1 + warpgroups()); }
    /// Tiles whose queries have room at a time.
    WINNOW_HOST_DEVICE constexpr std::int32_t query_stages() const { return query == query_place::shared ? 2 : 1; }
};

/// Tile for a problem of 64 rows or more. Scores, probabilities, output and queries take 192 registers at head_dim 128;
/// at 256 the output alone takes 128, and steps of 80 keys are what shared memory holds twice. Of the five places for keys
/// or values at head_dim 128 values have three: a step's scores are done before its softmax, so that its keys make room
/// long before its values do. At head_dim 64 2^x takes as long as the products: a third warpgroup works where two leave
/// both idle, and scores, probabilities and output are as many registers as three have room for.
WINNOW_HOST_DEVICE constexpr hopper_tile hopper_tile_of(attend_problem p) {
    hopper_tile t{128, 128, 2, 3, 2, 1, query_place::registers, 56, 224};
    if (p.rows == attend_rows::medium) t.rows = 64, t.row_warpgroups = 1, t.key_warpgroups = 2, t.value_stages = 2;
    if (p.head_dim == 64) t.key_stages = t.value_stages = 4;
    if (p.head_dim == 256) t.keys = 80, t.value_stages = 2, t.query = query_place::results;
    if (p.rows == attend_rows::wide)
        t.rows = 192, t.row_warpgroups = 3, t.query = query_place::shared, t.producer_registers = 32,
        t.consumer_registers = 160;
    return t;
}

}  // namespace winnow
