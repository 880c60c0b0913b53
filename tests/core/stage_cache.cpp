// Layout of cached lists: regions follow each other, and nothing overlaps or is left over.
#include "winnow/core/stage_cache.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("stage_cache: every entry belongs to exactly one list or count", "[core]") {
    for (auto const& method : {hip_3k, hip_v1, hip_tiny})
        for (std::int32_t const slots : {1, 3, 16}) {
            std::int32_t const heads = list_heads_of(method.sharing, 6, 2);
            std::vector<int> owners(stage_cache_entries(method, 6, 2, slots), 0);
            for (std::int32_t stage = 0; stage < method.stage_count; ++stage) {
                auto const at = stage_region_of(method, heads, slots, stage);
                std::int32_t const keep = method.stages[stage].keep;
                for (std::int64_t list = 0; list < slots * heads; ++list) {
                    ++owners.at(static_cast<std::size_t>(at.counts + list));
                    for (std::int32_t i = 0; i < keep; ++i)
                        ++owners.at(static_cast<std::size_t>(at.lists + list * keep + i));
                }
            }
            bool once = true;
            for (int const n : owners) once = once && n == 1;
            CHECK(once);
        }
}

TEST_CASE("stage_cache: sizes beyond 2^31 entries", "[core]") {
    prune_method method = hip_3k;
    method.sharing = sharing::per_head;
    auto const entries = stage_cache_entries(method, 128, 8, 65536);
    CHECK(entries == std::size_t{65536} * 128 * (129 + 257 + 257));
    CHECK(entries > std::size_t{std::numeric_limits<std::int32_t>::max()});
}

TEST_CASE("stage_cache: list heads follow the sharing", "[core]") {
    prune_method method = hip_tiny;
    method.sharing = sharing::per_batch;
    auto const one = stage_cache_entries(method, 8, 2, 4);
    method.sharing = sharing::per_kv_group;
    CHECK(stage_cache_entries(method, 8, 2, 4) == 2 * one);
    method.sharing = sharing::per_head;
    CHECK(stage_cache_entries(method, 8, 2, 4) == 8 * one);
}

TEST_CASE("stage_cache: slots of a batch, and what counts as a padded row", "[core]") {
    constexpr slot_index none;  // no cache: every row counts
    STATIC_REQUIRE(!none.padded(0));
    STATIC_REQUIRE(!none.padded(1000));

    constexpr slot_index in_order{nullptr, 3};
    CHECK(in_order(2) == 2);
    CHECK_FALSE(in_order.padded(2));
    CHECK(in_order(3) == -1);  // more rows than slots
    CHECK(in_order.padded(3));

    std::int32_t const slots[] = {2, -1, 0, 3, std::numeric_limits<std::int32_t>::min()};
    slot_index const mapped{slots, 3};
    int const expected[] = {2, -1, 0, -1, -1};
    for (std::int32_t row = 0; row < 5; ++row) {
        CHECK(mapped(row) == expected[row]);
        CHECK(mapped.padded(row) == (expected[row] < 0));
    }
}

TEST_CASE("stage_cache: a method with too many stages is asked before check sees it", "[core]") {
    prune_method method = hip_tiny;
    method.stage_count = max_prune_stages;
    auto const all = stage_cache_entries(method, 8, 2, 4);
    method.stage_count = std::numeric_limits<std::int32_t>::max();
    CHECK(stage_cache_entries(method, 8, 2, 4) == all);
}
