// Summaries of keys: levels lie one behind the other without a gap, and chunks are found on their grid alone.
#include "winnow/core/key_summary.hpp"

#include <set>

#include "support/catch.hpp"
#include "winnow/core/dtype.hpp"

using namespace winnow;

TEST_CASE("key_summary: levels fill exactly what summary_elements counts", "[core]") {
    for (auto const how : {scorer::mean_key, scorer::min_max_bound, scorer::tree_probe})
        for (auto method : {hip_3k, hip_tiny, hip_v1})
            for (std::int32_t const keys : {0, 17, 300, 5000}) {
                method.scorer = how;
                std::int64_t next = 0;
                for (std::int32_t i = 0; i < method.stage_count; ++i) {
                    summary_level const level = summary_level_of(method, 2, 64, 3, keys, i);
                    CHECK(level.offset == next);
                    CHECK(level.chunk == method.stages[i].chunk);
                    CHECK(level.offset % 8 == 0);  // 16 bytes
                    next += level.elements(3);
                    if (level.elements(3) > 0) {
                        CHECK(level.offset_of(0, 0, 0) == level.offset);
                        CHECK(level.offset_of(2, level.chunks - 1, 1) + level.channels == next);
                    }
                }
                CHECK(summary_elements(method, 2, 64, 3, keys) == static_cast<std::size_t>(next));
            }
}

TEST_CASE("key_summary: the bytes of the preset for a million keys", "[core]") {
    // 4091 + 32760 + 131040 chunks of 8 heads and 128 channels of 2 bytes: 0.16 of the keys' memory, twice for bounds.
    prune_method m = hip_3k;
    m.scorer = scorer::mean_key;
    CHECK(summary_elements(m, 8, 128, 1, 1 << 20) == std::size_t{4095 + 32760 + 131040} * 8 * 128);
    m.scorer = scorer::min_max_bound;
    CHECK(summary_elements(m, 8, 128, 1, 1 << 20) == std::size_t{4095 + 32760 + 131040} * 8 * 256);
}

TEST_CASE("key_summary: a chunk is found where it starts on the grid and is whole", "[core]") {
    prune_method m = hip_tiny;  // 16 sinks, chunks of 32 and 8
    m.scorer = scorer::mean_key;
    summary_level const level = summary_level_of(m, 1, 64, 1, 200, 0);
    CHECK(level.chunks == 5);  // [16, 176)
    CHECK(level.chunk_at(16, 32) == 0);
    CHECK(level.chunk_at(144, 32) == 4);
    CHECK(level.chunk_at(176, 32) == -1);  // not whole within 200 keys
    CHECK(level.chunk_at(16, 31) == -1);   // cut short
    CHECK(level.chunk_at(17, 32) == -1);
    CHECK(level.chunk_at(0, 32) == -1);
    for (std::int32_t keys = 0; keys < 120; ++keys)
        CHECK(whole_chunks(keys, 16, 32) == (keys < 48 ? 0 : keys < 80 ? 1 : keys < 112 ? 2 : 3));
}

TEST_CASE("key_summary: rows outside the memory have none", "[core]") {
    bf16 data{};
    std::int32_t const rows[] = {1, -1, 2, 0};
    key_summary<bf16 const> const s{&data, 2, 8, rows};
    CHECK(s.row_of(0) == 1);
    CHECK(s.row_of(1) == -1);
    CHECK(s.row_of(2) == -1);
    CHECK(s.row_of(3) == 0);
    CHECK(key_summary<bf16 const>{nullptr, 2, 8, rows}.row_of(0) == -1);
    CHECK(key_summary<bf16 const>{&data, 2, 8, nullptr}.row_of(1) == 1);
}
