// Tiles of anchors: every anchor is in one tile with every head, tiles hold what they are given, lists are not mixed.
#include "winnow/policy/delta_policy.hpp"

#include <cstdint>
#include <set>

#include "support/catch.hpp"
#include "support/random_input.hpp"

using namespace winnow;

TEST_CASE("anchor schedule: tiles cover every anchor and head once") {
    testing::random_source random(5);
    auto const number = [&](std::initializer_list<std::int32_t> values) {
        return values.begin()[random.below(static_cast<std::int32_t>(values.size()))];
    };
    for (int n = 0; n < 1500; ++n) {
        batch_shape shape{1, 0, random.between(1, 3), number({64, 128, 256}), random.between(1, 700), 4000};
        shape.heads = shape.kv_heads * number({1, 3, 4, 8, 20, 130});
        std::int32_t const gap = number({1, 3, 16, 48, 64, 100, 256});
        block_selection lists;
        if (random.below(2) == 0) {
            lists.block_size = 16, lists.query_block = number({1, 16, 48, 64, 128});
            lists.blocks.extent[1] = number({1, shape.kv_heads, shape.heads});
        }
        bool const listed = !lists.empty();
        attention_window const window = random.below(2) == 0 ? attention_window{} : attention_window{4, 300};
        auto const attended = !listed && random.below(2) == 0 ? attended_keys::omitted : attended_keys::seen;
        attend_target const target{random.below(2) == 0 ? attend_path::sm90 : attend_path::sm80, key_loader::boxes,
                                   random.below(2) == 0 ? 232448 : 101376};
        attend_schedule const s = anchor_schedule_of(shape, lists, window, attended, gap, target);
        std::int32_t const rows = random.between(0, shape.max_queries), first = random.between(-20, 900);
        std::int32_t const tail = random.below(3) == 0 ? 0 : random.below(200), step = tail == 0 ? 1 : gap;
        request_view const r{0, 0, rows, 4000, first};
        anchor_rows const anchors(first, gap);
        std::int32_t const all = anchors.before(tail_begin(r, tail, step));
        INFO(shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim << ", " << rows << " of "
                         << shape.max_queries << " rows from " << first << ", gap " << gap << ", query block "
                         << (listed ? lists.query_block : 0) << ", tile " << s.tile_tokens << " x " << s.tile_heads);
        std::int32_t const capacity = rows_of_class(s.path, {shape.head_dim, s.rows});
        std::int32_t next = 0;
        for (std::int32_t tile = 0; tile < s.query_tiles; ++tile) {
            tile_rows const t = anchors_of_tile(tile, s.tile_tokens, listed, r,
                                                rows_of_range(r, row_range::anchors, tail, step), anchors);
            if (t.count <= 0) continue;
            REQUIRE(t.first == next);
            next += t.count;
            REQUIRE(t.count * smaller(s.tile_heads, shape.group()) <= capacity);
            if (listed) {
                std::int32_t const a = first + anchors.row(t.first), b = first + anchors.row(t.first + t.count - 1);
                REQUIRE(query_block_of(a, first, lists.query_block) == query_block_of(b, first, lists.query_block));
            }
        }
        REQUIRE(next == all);
        REQUIRE(s.max_rows >= all);
        REQUIRE(s.head_groups * s.tile_heads >= shape.group());
        REQUIRE((s.head_groups - 1) * s.tile_heads < shape.group());
        REQUIRE(static_cast<std::int64_t>(s.splits) * larger(s.split_keys, 1) >= (s.splits > 1 ? shape.max_keys : 1));
        if (listed && lists.list_heads() > shape.kv_heads) REQUIRE(s.tile_heads == 1);
        if (s.path == attend_path::sm90) REQUIRE(s.rows != attend_rows::decode);
    }
}

TEST_CASE("anchor schedule: splits where tiles are few, whatever the batch") {
    auto const splits = [](std::int32_t rows, std::int32_t batch) {
        return anchor_schedule_of({batch, 32, 8, 128, rows, rows}, block_selection{}, {1024, 2048},
                                  attended_keys::omitted, 64, {attend_path::sm90})
            .splits;
    };
    CHECK(splits(8192, 1) == 11);
    CHECK(splits(32768, 1) == 3);
    CHECK(splits(32768, 9) == 3);
    CHECK(splits(131072, 1) == 1);
}

TEST_CASE("anchor schedule: omitted keys are one run of granules from the sinks to the window") {
    for (std::int32_t const sinks : {0, 1, 8, 13})
        for (std::int32_t const recent : {1, 20})
            for (std::int32_t const p : {-1, 0, 12, 33, 34, 40, 100}) {
                visible_ranges const r = ranges_of(p, 101, {sinks, recent});
                granule_sequence const g = omitted_granules(r);
                std::int32_t const begin = sinks / granule_keys * granule_keys;
                CHECK(g.size() == g.listed);
                for (std::int32_t key = 0; key < 101; ++key) {
                    bool const omitted = key >= sinks && key <= p - recent;
                    CHECK(r.sees(key_part::list, key) == omitted);
                    if (omitted) CHECK((key >= begin && key < begin + g.listed * granule_keys));
                }
                if (p - recent < sinks) CHECK(g.listed * granule_keys < granule_keys + 1);
            }
}
