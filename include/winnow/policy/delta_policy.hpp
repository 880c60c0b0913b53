// Tuning of delta correction: how anchors are laid over the grid.
//
//   tile = tokens x heads of a group, as many tokens as rows / heads:  keys are read once for all heads.
#pragma once

#include <cstdint>

#include "winnow/core/anchor_rows.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/policy/attend_policy.hpp"

namespace winnow {

/// Tiles that a request's anchors should give at least: with key splits about four for each multiprocessor of a large part.
/// Their lengths differ from nothing to the whole context, so two leave some idle. As everywhere, neither the batch nor the
/// device decides, so a request's bits depend on neither.
inline constexpr std::int64_t anchor_tiles_wanted = 512;

/// Tiles of anchors, one every `gap` positions. All heads of a group share a tile where they share their keys: on the
/// diagonal a tile of n anchors spans n gap keys, of which half are hidden, and fewer anchors waste less.
template <class Index>
constexpr attend_schedule anchor_schedule_of(batch_shape const& shape, basic_selection<Index> const& selection,
                                             attention_window window, attended_keys attended, std::int32_t gap,
                                             attend_target target = {}) {
    attend_schedule s;
    s.path = target.path;
    s.loader = target.loader;
    s.anchor_gap = gap;
    s.attended = attended;
    std::int32_t const anchors = larger(most_anchors(shape.max_queries, gap), 1);
    s.max_rows = anchors;
    std::int32_t const group = shape.group();
    bool const listed = !selection.empty();
    std::int32_t const packable = listed && selection.list_heads() > shape.kv_heads ? 1 : group;
    std::int32_t const sharing_keys =
        listed ? larger(most_anchors(smaller(selection.query_block, shape.max_queries), gap), 1) : anchors;

    auto const pack = [&](attend_rows rows) {
        std::int32_t const capacity = rows_of_class(s.path, {shape.head_dim, rows});
        s.rows = rows;
        std::int32_t tokens = sharing_keys;
        if (listed) {  // the largest divisor of the query block whose anchors fit
            s.tile_tokens = selection.query_block;
            while (selection.query_block % s.tile_tokens != 0 || most_anchors(s.tile_tokens, gap) > capacity)
                --s.tile_tokens;
            tokens = smaller(tokens, most_anchors(s.tile_tokens, gap));
            s.tile_heads = smaller(packable, larger(capacity / tokens, 1));
        } else {
            s.tile_heads = smaller(packable, capacity);
            s.tile_tokens = smaller(anchors, larger(capacity / s.tile_heads, 1));
        }
        s.head_groups = ceil_div(group, s.tile_heads);
    };
    std::int64_t const rows = static_cast<std::int64_t>(sharing_keys) * packable;
    bool const fits = attend_shared_bytes({shape.head_dim, attend_rows::medium}) <= target.shared_bytes;
    bool const limited = window.recent != whole_context && attended == attended_keys::seen;
    if (rows <= 16 || (s.path == attend_path::sm80 && !fits)) {
        s.path = attend_path::sm80;
        pack(attend_rows::decode);
    } else if (rows <= 64 || rows_of_class(s.path, {shape.head_dim, attend_rows::large}) == 0) {
        pack(attend_rows::medium);
    } else {
        pack(attend_rows::large);
        // Windows that lie apart are walked with what lies between them: then fewer anchors a tile.
        if (limited && !listed && std::int64_t{s.tile_tokens} * gap > window.recent) pack(attend_rows::medium);
    }
    s.query_tiles = listed ? query_blocks_of(shape.max_queries, s.tile_tokens) : ceil_div(anchors, s.tile_tokens);

    if (!listed && !limited) {
        std::int64_t const keys = larger(shape.max_keys, 1);
        std::int64_t const tiles = std::int64_t{s.query_tiles} * shape.kv_heads * s.head_groups;
        std::int64_t const wanted = smaller<std::int64_t>(larger<std::int64_t>(anchor_tiles_wanted / tiles, 1), 256);
        std::int64_t const size = round_up<std::int64_t>(ceil_div(keys, wanted), 256);
        s.split_keys = static_cast<std::int32_t>(smaller<std::int64_t>(size, 1 << 30));
        s.splits = static_cast<std::int32_t>(ceil_div<std::int64_t>(keys, s.split_keys));
    }
    return s;
}

}  // namespace winnow
