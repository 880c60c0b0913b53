// Schedules: tiles cover every row of a request once, stay inside query blocks, and fit it; splits cover the keys.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/policy/attend_policy.hpp"

using namespace winnow;

namespace {

block_selection selection_of(std::int32_t list_heads, std::int32_t capacity, std::int32_t block_size,
                             std::int32_t query_block) {
    block_selection s;
    s.blocks.extent[1] = list_heads;
    s.blocks.extent[3] = capacity;
    s.block_size = block_size;
    s.query_block = query_block;
    return s;
}

struct example {
    batch_shape shape;
    block_selection selection;  // block_size 0: dense
    attention_window window;
    std::int32_t tail;
};

// Random problems, small enough that every row and key can be looked at.
example draw_example(testing::random_source& random) {
    static constexpr std::int32_t groups[] = {1, 3, 4, 7, 8}, dims[] = {64, 128, 256}, sizes[] = {8, 16, 32, 64, 128};
    static constexpr std::int32_t query_blocks[] = {1, 5, 7, 16, 32, 64, 96, 128};
    example e;
    std::int32_t const kv_heads = random.between(1, 3), group = groups[random.below(5)];
    std::int32_t const queries = random.below(2) ? random.between(1, 20) : random.between(1, 300);
    e.shape = {random.between(1, 4),  kv_heads * group, kv_heads,
               dims[random.below(3)], queries,          random.between(0, 500)};
    if (random.below(4) != 0) {
        std::int32_t const heads[] = {1, kv_heads, kv_heads * group};
        e.selection = selection_of(heads[random.below(3)], random.between(0, 20), sizes[random.below(5)],
                                   query_blocks[random.below(8)]);
    }
    e.window =
        random.below(4) == 0 ? attention_window{} : attention_window{random.between(0, 60), random.between(0, 90)};
    e.tail = random.below(3) == 0 ? random.between(1, 80) : 0;
    return e;
}

}  // namespace

TEST_CASE("attend_schedule: tiles cover every row once and never cross a query block", "[policy]") {
    testing::random_source random(1);
    int wrong_cover = 0, crossing = 0, oversized = 0;
    for (int i = 0; i < 3000; ++i) {
        example const e = draw_example(random);
        bool const aligned = !e.selection.empty();
        auto const range = static_cast<row_range>(random.below(3));
        attend_schedule const s =
            attend_schedule_of(e.shape, e.selection, e.window, range == row_range::tail_only ? e.tail : 0);
        // A request has fewer rows than the plan's maximum, and starts anywhere, before position 0 too.
        request_view const r{0, 0, random.between(0, e.shape.max_queries), 100, random.between(-150, 300)};
        std::int32_t const tail = range == row_range::all ? 0 : e.tail;
        std::vector<int> covered(static_cast<std::size_t>(r.queries), 0);
        for (std::int32_t tile = 0; tile < s.query_tiles; ++tile) {
            tile_rows const rows = rows_of_tile(tile, s.tile_tokens, aligned, r, rows_of_range(r, range, tail, 1));
            oversized += rows.count > s.tile_tokens;
            for (std::int32_t row = rows.first; row < rows.first + rows.count; ++row) {
                ++covered.at(static_cast<std::size_t>(row));
                if (!aligned) continue;
                auto const block = [&](std::int32_t at) {
                    return query_block_of(r.first_position + at, r.first_position, e.selection.query_block);
                };
                crossing += block(row) != block(rows.first);
            }
        }
        std::int32_t const cut = std::max(r.queries - tail, 0);
        for (std::int32_t row = 0; row < r.queries; ++row) {
            bool const asked = range == row_range::all || (range == row_range::tail_only) == (row >= cut);
            // A plan for the tail of no rows covers nothing it must not.
            if (range == row_range::tail_only && tail == 0) continue;
            wrong_cover += covered[static_cast<std::size_t>(row)] != (asked ? 1 : 0);
        }
    }
    CHECK(wrong_cover == 0);
    CHECK(crossing == 0);
    CHECK(oversized == 0);
}

TEST_CASE("attend_schedule: tiles hold their rows and heads, and groups are covered", "[policy]") {
    testing::random_source random(2);
    int wrong = 0;
    for (int i = 0; i < 3000; ++i) {
        example const e = draw_example(random);
        attend_schedule const s = attend_schedule_of(e.shape, e.selection, e.window, e.tail);
        attend_tile const tile = attend_tile_of({e.shape.head_dim, s.rows});
        wrong += s.tile_tokens < 1 || s.tile_heads < 1;
        wrong += s.tile_tokens * s.tile_heads > tile.rows;
        wrong +=
            s.head_groups * s.tile_heads < e.shape.group() || (s.head_groups - 1) * s.tile_heads >= e.shape.group();
        wrong += !e.selection.empty() && e.selection.query_block % s.tile_tokens != 0;
        // Lists per query head cannot share a tile unless the group is one head.
        wrong += !e.selection.empty() && e.selection.list_heads() > e.shape.kv_heads && s.tile_heads != 1;
    }
    CHECK(wrong == 0);
}

TEST_CASE("attend_schedule: splits reach the last granule of any tile, and are at most 256", "[policy]") {
    testing::random_source random(3);
    int uncovered = 0, too_many = 0, unaligned = 0;
    for (int i = 0; i < 20000; ++i) {
        example e = draw_example(random);
        if (random.below(2)) e.shape.max_keys = random.between(1, 20000);
        if (random.below(2)) e.window = {random.between(0, 600), random.between(0, 3000)};
        if (!e.selection.empty()) e.selection.blocks.extent[3] = random.between(0, 2500);
        attend_schedule const s = attend_schedule_of(e.shape, e.selection, e.window, e.tail);
        if (s.splits == 1) continue;
        too_many += s.splits > 256;
        unaligned += s.split_keys % attend_tile_of({e.shape.head_dim, s.rows}).keys != 0;
        std::int32_t const keys = random.between(0, e.shape.max_keys),
                           first = random.between(-10, e.shape.max_keys + 50);
        std::int32_t const last = first + random.below(s.tile_tokens);
        std::int32_t const listed = e.selection.empty() ? 0 : random.between(0, e.selection.capacity());
        granule_sequence const g = granules_of(first, last, keys, e.window, listed, larger(e.selection.block_size, 8));
        uncovered += std::int64_t{g.size()} * granule_keys > std::int64_t{s.splits} * s.split_keys;
    }
    CHECK(uncovered == 0);
    CHECK(too_many == 0);
    CHECK(unaligned == 0);
}

TEST_CASE("attend_schedule: long contexts", "[policy]") {
    for (std::int32_t const keys : {1 << 20, 3'000'000, 2'000'000'000}) {
        attend_schedule const s = attend_schedule_of(batch_shape{1, 8, 1, 128, 1, keys}, block_selection{}, {}, 0);
        CHECK(s.splits <= 256);
        CHECK(std::int64_t{s.splits} * s.split_keys >= keys);
    }
}

TEST_CASE("attend_schedule: a request's tiles and splits do not depend on the batch", "[policy]") {
    testing::random_source random(4);
    int wrong = 0;
    for (int i = 0; i < 1000; ++i) {
        example e = draw_example(random);
        attend_schedule const a = attend_schedule_of(e.shape, e.selection, e.window, e.tail);
        e.shape.batch += 13;
        attend_schedule const b = attend_schedule_of(e.shape, e.selection, e.window, e.tail);
        wrong += a.rows != b.rows || a.tile_tokens != b.tile_tokens || a.tile_heads != b.tile_heads ||
                 a.splits != b.splits || a.split_keys != b.split_keys;
    }
    CHECK(wrong == 0);
}

TEST_CASE("attend_schedule: decode packs a KV group in one tile, whatever the lists' query block", "[policy]") {
    for (std::int32_t const group : {1, 3, 4, 7, 8, 16}) {
        batch_shape const shape{5, 2 * group, 2, 128, 1, 4096};
        for (std::int32_t const query_block : {1, 32, 64, 128}) {
            attend_schedule const s = attend_schedule_of(shape, selection_of(1, 256, 8, query_block), {256, 1024}, 0);
            CHECK(s.rows == attend_rows::decode);
            CHECK(s.tile_heads == group);
            CHECK(s.head_groups == 1);
            CHECK(s.query_tiles == 1);
        }
        CHECK(attend_schedule_of(shape, block_selection{}, {}, 0).tile_heads == group);
    }
}

TEST_CASE("attend_schedule: long prefill fills the tallest tile that its head_dim has", "[policy]") {
    for (std::int32_t const head_dim : {64, 128, 256}) {
        batch_shape const shape{1, 32, 8, head_dim, 8192, 8192};
        attend_schedule const dense = attend_schedule_of(shape, block_selection{}, {}, 0);
        CHECK(dense.rows == (head_dim <= 128 ? attend_rows::large : attend_rows::medium));
        CHECK(dense.tile_tokens * dense.tile_heads == (head_dim <= 128 ? 128 : 64));
        CHECK(dense.splits == 1);
        attend_schedule const sparse = attend_schedule_of(shape, selection_of(8, 256, 8, 64), {256, 1024}, 0);
        CHECK(sparse.tile_tokens * sparse.tile_heads == attend_tile_of({head_dim, sparse.rows}).rows);
    }
}

TEST_CASE("attend_schedule: the chosen tile fits the shared memory of every supported part", "[policy]") {
    // Opt-in bytes a block: sm_86, sm_89 and sm_120 have 99 KB, sm_87 and sm_80 163 KB, sm_90 and sm_100 227 KB.
    testing::random_source random(5);
    int too_large = 0;
    for (int i = 0; i < 3000; ++i) {
        example const e = draw_example(random);
        for (std::int32_t const bytes : {99 * 1024, 163 * 1024, 227 * 1024}) {
            attend_schedule const s =
                attend_schedule_of(e.shape, e.selection, e.window, e.tail, {.shared_bytes = bytes});
            too_large += attend_shared_bytes({e.shape.head_dim, s.rows}) > bytes;
        }
    }
    CHECK(too_large == 0);
    batch_shape const shape{1, 16, 4, 256, 4096, 4096};
    CHECK(attend_schedule_of(shape, block_selection{}, {}, 0, {.shared_bytes = 99 * 1024}).rows == attend_rows::decode);
    CHECK(attend_schedule_of(shape, block_selection{}, {}, 0, {.shared_bytes = 163 * 1024}).rows ==
          attend_rows::medium);
}

TEST_CASE("attend_schedule: Hopper's tiles, and who keeps to the portable path", "[policy]") {
    attend_target const hopper{.path = attend_path::sm90};
    for (std::int32_t const head_dim : {64, 128, 256}) {
        attend_schedule const prefill =
            attend_schedule_of({1, 16, 4, head_dim, 4096, 4096}, block_selection{}, {}, 0, hopper);
        CHECK(prefill.path == attend_path::sm90);
        CHECK(prefill.rows == attend_rows::large);
        CHECK(prefill.tile_tokens * prefill.tile_heads == 128);
        attend_schedule const decode =
            attend_schedule_of({1, 16, 4, head_dim, 1, 4096}, block_selection{}, {}, 0, hopper);
        CHECK(decode.path == attend_path::sm80);
        CHECK(decode.rows == attend_rows::decode);
        attend_schedule const chunk =
            attend_schedule_of({1, 16, 4, head_dim, 12, 4096}, block_selection{}, {}, 0, hopper);
        CHECK(chunk.path == attend_path::sm90);
        CHECK(chunk.rows == attend_rows::medium);
    }
}

TEST_CASE("attend_schedule: tiles of 192 rows where blocks have several, and only of head_dim 64 and Hopper",
          "[policy]") {
    auto const rows_of = [](batch_shape const& shape, attend_target const& target = {.path = attend_path::sm90},
                            attention_window window = {}) {
        return attend_schedule_of(shape, block_selection{}, window, 0, target).rows;
    };
    batch_shape const shape{1, 32, 8, 64, 8192, 8192};
    attend_schedule const dense = attend_schedule_of(shape, block_selection{}, {}, 0, {.path = attend_path::sm90});
    CHECK(dense.rows == attend_rows::wide);
    CHECK(dense.tile_tokens == 192);
    CHECK(dense.tile_heads == 1);
    CHECK(dense.query_tiles == 43);
    CHECK(rows_of({1, 32, 8, 64, 4096, 4096}) == attend_rows::large);  // too few tiles
    CHECK(rows_of({2, 32, 8, 64, 4096, 4096}) == attend_rows::wide);
    CHECK(rows_of({32, 32, 8, 64, 512, 512}) == attend_rows::large);  // the third tile would be two thirds empty
    CHECK(rows_of({1, 32, 8, 128, 8192, 8192}) == attend_rows::large);
    CHECK(rows_of({1, 32, 8, 256, 8192, 8192}) == attend_rows::large);
    CHECK(rows_of(shape, {.path = attend_path::sm80}) == attend_rows::large);
    CHECK(rows_of(shape, {.path = attend_path::sm90, .loader = key_loader::rows}) == attend_rows::large);
    CHECK(rows_of(shape, {.path = attend_path::sm90, .multiprocessors = 1000}) == attend_rows::large);
    CHECK(rows_of(shape, {.path = attend_path::sm90}, {.sinks = 0, .recent = 4096}) == attend_rows::large);
    CHECK(attend_schedule_of(shape, selection_of(1, 256, 8, 128), {}, 0, {.path = attend_path::sm90}).rows ==
          attend_rows::large);
}

TEST_CASE("attend_schedule: random problems on Hopper fit their tiles and never cross a query block", "[policy]") {
    testing::random_source random(9);
    int wrong = 0;
    for (int i = 0; i < 3000; ++i) {
        example const e = draw_example(random);
        attend_schedule const s =
            attend_schedule_of(e.shape, e.selection, e.window, e.tail, {.path = attend_path::sm90});
        wrong += s.tile_tokens * s.tile_heads > rows_of_class(s.path, {e.shape.head_dim, s.rows});
        wrong += !e.selection.empty() && e.selection.query_block % s.tile_tokens != 0;
        wrong += (s.rows == attend_rows::decode) != (s.path == attend_path::sm80);
    }
    CHECK(wrong == 0);
}
