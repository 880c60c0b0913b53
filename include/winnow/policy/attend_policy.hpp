// Tuning of `attend`: how query rows, heads and key splits are laid over the grid.
#pragma once

#include <cstdint>

#include "winnow/core/anchor_rows.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/policy/attend_tile.hpp"

namespace winnow {

/// Which of the keys that the mask allows a launch attends to.
enum class attended_keys : std::int32_t {
    seen,    ///< sinks, window and list
    omitted  ///< those between sinks and window, which a call without a list omits
};

/// How one launch covers its work. Depends on maxima only, so it holds for every graph replay.
struct attend_schedule {
    attend_path path = attend_path::sm80;
    key_loader loader = key_loader::boxes;  ///< of path sm90
    attend_rows rows = attend_rows::large;
    std::int32_t tile_tokens = 1;  ///< consecutive query rows in a tile
    std::int32_t tile_heads = 1;   ///< query heads of one KV group packed in a tile
    std::int32_t head_groups = 1;  ///< tiles that cover one KV head's group
    std::int32_t query_tiles = 1;  ///< tiles along the rows of a request, at most
    std::int32_t splits = 1;       ///< pieces of the key sequence; > 1 needs partial results and a merge
    std::int32_t split_keys = 0;   ///< keys per piece, a multiple of the tile's
    std::int32_t max_rows = 1;     ///< rows of one request that the launch covers, at most
    std::int32_t anchor_gap = 1;   ///< positions between two rows; > 1 only where the launch covers anchors
    attended_keys attended = attended_keys::seen;
    key_rotation rotation = key_rotation::none;
    friend constexpr bool operator==(attend_schedule const&, attend_schedule const&) = default;
};

/// What a schedule needs to know of the device and the tensors.
struct attend_target {
    attend_path path = attend_path::sm80;  ///< sm90 where the device allows it
    key_loader loader = key_loader::boxes;
    std::int32_t shared_bytes = device_info{}.shared_memory_per_block;
    std::int32_t multiprocessors = device_info{}.multiprocessors;
    key_rotation rotation = key_rotation::none;  ///< streaming: path sm80
};

/// Query rows that a class has on a path; 0 where the path has no such tile.
WINNOW_HOST_DEVICE constexpr std::int32_t rows_of_class(attend_path path, attend_problem p) {
    if (p.rows == attend_rows::wide) return path == attend_path::sm90 && p.head_dim == 64 ? hopper_tile_of(p).rows : 0;
    if (path == attend_path::sm90) return p.rows == attend_rows::decode ? 0 : hopper_tile_of(p).rows;
    return p.rows == attend_rows::large && p.head_dim > 128 ? 0 : attend_tile_of(p).rows;
}

/// A tile's rows: [first, first + count) of its request, and the group's heads it packs.
struct tile_rows {
    std::int32_t first;
    std::int32_t count;
};

/// Rows of tile `index` of a request, of those that are covered. With a selection, tiles are cut at multiples of tile_tokens
/// of the absolute position, so that each lies in one query block; without one, they are cut from the first row.
WINNOW_HOST_DEVICE constexpr tile_rows rows_of_tile(std::int32_t index, std::int32_t tile_tokens, bool aligned,
                                                    request_view const& r, row_span covered) {
    // Positions below 0 (more queries than keys) are cut at multiples of tile_tokens as well.
    std::int32_t base = covered.begin;
    if (aligned && tile_tokens > 1) base -= floor_remainder(r.first_position + covered.begin, tile_tokens);
    std::int32_t const first = larger(base + index * tile_tokens, covered.begin);
    std::int32_t const last = smaller(base + (index + 1) * tile_tokens, covered.end);
    return {first, larger(last - first, 0)};
}

/// Anchors of tile `index` of a request, counted by anchor. With a selection a tile has those among tile_tokens positions
/// (see rows_of_tile), so that they share a list; without one it has tile_tokens anchors.
WINNOW_HOST_DEVICE constexpr tile_rows anchors_of_tile(std::int32_t index, std::int32_t tile_tokens, bool aligned,
                                                       request_view const& r, row_span covered,
                                                       anchor_rows const& anchors) {
    std::int32_t first = index * tile_tokens, last = first + tile_tokens;
    if (aligned) {
        tile_rows const rows = rows_of_tile(index, tile_tokens, true, r, covered);
        first = rows.count > 0 ? anchors.before(rows.first) : 0;
        last = rows.count > 0 ? anchors.before(rows.first + rows.count) : 0;
    } else {
        last = smaller(last, anchors.before(covered.end));
    }
    return {first, larger(last - first, 0)};
}

/// True if tiles of 192 rows are faster than those of 128: where blocks draw several each, and rounding up to whole tiles
/// costs few rows. Rows that see all earlier keys take the same steps in either, so their bits do not depend on the choice;
/// with a window they would, and a taller tile would read more keys than its rows see.
WINNOW_HOST_DEVICE constexpr bool wide_tiles_pay(batch_shape const& shape, attend_schedule const& s,
                                                 attention_window window, attend_target const& target) {
    std::int32_t const wide = rows_of_class(s.path, {shape.head_dim, attend_rows::wide});
    if (wide == 0 || s.loader == key_loader::rows || window.recent != whole_context) return false;
    std::int64_t const rows = s.max_rows, large = rows_of_class(s.path, {shape.head_dim, attend_rows::large});
    constexpr std::int64_t tiles_each = 6;  // of a multiprocessor
    return round_up(rows, std::int64_t{wide}) * 100 <= round_up(rows, large) * 105 &&
           ceil_div(rows, std::int64_t{wide}) * shape.heads * shape.batch >= tiles_each * target.multiprocessors;
}

/// Row class, packing and splits for a problem; `selection` may be empty. `tail` > 0: only so many last rows are
/// covered. Parts that give a block 99 KB of shared memory take head_dim 256 in 16-row tiles.
template <class Index>
constexpr attend_schedule attend_schedule_of(batch_shape const& shape, basic_selection<Index> const& selection,
                                             attention_window window, std::int32_t tail, attend_target target = {}) {
    attend_schedule s;
    s.path = target.path;
    s.loader = target.loader;
    s.rotation = target.rotation;
    std::int32_t const max_rows = tail > 0 ? smaller(tail, shape.max_queries) : shape.max_queries;
    s.max_rows = larger(max_rows, 1);
    std::int32_t const group = shape.group();
    bool const listed = !selection.empty();
    // Heads may share a tile when they share their keys: always, but for lists per query head.
    std::int32_t const packable = listed && selection.list_heads() > shape.kv_heads ? 1 : group;
    std::int32_t const tokens = larger(listed ? smaller(selection.query_block, max_rows) : max_rows, 1);

    auto const pack = [&](attend_rows rows) {
        std::int32_t const capacity = rows_of_class(s.path, {shape.head_dim, rows});
        s.rows = rows;
        s.tile_tokens = smaller(tokens, capacity);
        if (listed) {  // a divisor of the query block, so that no tile crosses a block: the smallest that holds all
                       // rows (at decode 1, which leaves the tile to the group's heads), or the largest that fits
            std::int32_t const most = smaller(selection.query_block, capacity);
            while (s.tile_tokens < most && selection.query_block % s.tile_tokens != 0) ++s.tile_tokens;
            while (selection.query_block % s.tile_tokens != 0) --s.tile_tokens;
        }
        std::int32_t const used = smaller(s.tile_tokens, tokens);
        s.tile_heads = smaller(packable, larger(capacity / s.tile_tokens, 1));
        s.head_groups = ceil_div(group, s.tile_heads);
        return static_cast<std::int64_t>(used) * group * 100 / (static_cast<std::int64_t>(capacity) * s.head_groups);
    };
    // Rows that share keys decide: 16 for decode, 64 for short chunks, 128 where 80 % of it is used.
    std::int64_t const shared_rows = static_cast<std::int64_t>(tokens) * packable;
    bool const fits = attend_shared_bytes({shape.head_dim, attend_rows::medium}, s.rotation) <= target.shared_bytes;
    if (shared_rows <= 16 || (s.path == attend_path::sm80 && !fits)) {
        s.path = attend_path::sm80;
        pack(attend_rows::decode);
    } else if (shared_rows <= 64 || rows_of_class(s.path, {shape.head_dim, attend_rows::large}) == 0 ||
               pack(attend_rows::large) < 80) {
        pack(attend_rows::medium);
    } else if (!listed && wide_tiles_pay(shape, s, window, target)) {
        pack(attend_rows::wide);
    }
    s.query_tiles = listed ? query_blocks_of(max_rows, s.tile_tokens) : ceil_div(max_rows, s.tile_tokens);

    // Key splits serve short query chunks, which alone cannot fill a GPU: one request is cut into one or two waves of
    // blocks on a large part. The size of a split depends on the plan's maxima and never on the batch: a request's bits
    // do not depend on its neighbours. At most 256 splits are merged, of two steps at least.
    if (max_rows <= 64) {
        // A tile's walk at most. Without a window's limit it is the context. With one: what a row sees, the positions
        // that the tile's rows are apart, the list, which is walked whole even where it repeats sinks and window, and
        // what rounding the three parts to granules adds.
        std::int64_t most = shape.max_keys;
        if (window.recent != whole_context) {
            most = smaller<std::int64_t>(most, std::int64_t{window.sinks} + window.recent) + s.tile_tokens +
                   std::int64_t{4} * granule_keys;
            if (s.rotation != key_rotation::none)  // the window begins with a step
                most += attend_tile_of({shape.head_dim, s.rows}).keys;
            if (listed) most += std::int64_t{selection.capacity()} * selection.block_size;
        }
        std::int64_t const tiles = std::int64_t{s.query_tiles} * shape.kv_heads * s.head_groups;
        // Blocks that a large part with 132 multiprocessors runs at a time: at decode one request is one wave, whose blocks
        // begin and end together (512, of which 396 ran at a time, took 8 to 11 % longer).
        std::int32_t const blocks = smaller(attend_tile_of({shape.head_dim, attend_rows::decode}).min_blocks, 3);
        std::int64_t const wave = s.rows == attend_rows::decode ? 132 * blocks : 256;
        std::int64_t const wanted =
            smaller<std::int64_t>(larger<std::int64_t>(wave / larger<std::int64_t>(tiles, 1), 1), 256);
        std::int64_t const least = s.rows == attend_rows::decode ? 128 : 256;
        std::int64_t const size = round_up<std::int64_t>(ceil_div(larger<std::int64_t>(most, 1), wanted), least);
        s.split_keys = static_cast<std::int32_t>(smaller<std::int64_t>(size, 1 << 30));
        s.splits = static_cast<std::int32_t>(ceil_div<std::int64_t>(larger<std::int64_t>(most, 1), s.split_keys));
    }
    return s;
}

/// The sequence of key granules a tile walks: sinks, listed blocks, window; each a run of granules of 8 keys.
struct granule_sequence {
    std::int32_t sinks;          ///< granules of the sinks
    std::int32_t listed;         ///< granules of the list
    std::int32_t window;         ///< granules of the window
    std::int32_t window_origin;  ///< first key of the window's first granule
    WINNOW_HOST_DEVICE constexpr std::int32_t size() const { return sinks + listed + window; }
};

/// Granules for rows that look from positions [first, last]; `list_count` blocks of `block_size` keys are listed.
WINNOW_HOST_DEVICE constexpr granule_sequence granules_of(std::int32_t first, std::int32_t last, std::int32_t keys,
                                                          attention_window window, std::int32_t list_count,
                                                          std::int32_t block_size) {
    visible_ranges const early = ranges_of(first, keys, window), late = ranges_of(last, keys, window);
    granule_sequence g{0, 0, 0, 0};
    // The latest row hides the most behind its window, so it asks for the most sinks and listed keys.
    g.sinks = ceil_div(larger(late.sink_end, 0), granule_keys);
    g.listed = late.list_end > late.list_begin ? list_count * (block_size / granule_keys) : 0;
    g.window_origin = round_down(early.window_begin, granule_keys);
    // Without a window the rows' empty ranges lie apart, and what lies between them belongs to no row.
    bool const seen = window.recent > 0 && late.window_end > g.window_origin;
    g.window = seen ? ceil_div(late.window_end - g.window_origin, granule_keys) : 0;
    return g;
}

/// Granules of the keys between sinks and window, one run that begins with the granule of the first such key: for rows of
/// which the last sees `late`.
WINNOW_HOST_DEVICE constexpr granule_sequence omitted_granules(visible_ranges const& late) {
    std::int32_t const first = late.list_begin / granule_keys;
    return {0, larger(ceil_div(late.list_end, granule_keys) - first, 0), 0, 0};
}

}  // namespace winnow
