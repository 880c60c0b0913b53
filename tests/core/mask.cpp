// Visibility: the three ranges of a row hold every key that the definition makes visible exactly once, and no other.
#include "winnow/core/mask.hpp"

#include <cstdint>

#include "support/catch.hpp"

using namespace winnow;

namespace {

// Keys that are in a number of parts other than the definition's; the list is taken to hold every block.
int wrong_keys(std::int32_t look, std::int32_t keys, attention_window window) {
    visible_ranges const ranges = ranges_of(look, keys, window);
    int wrong = 0;
    for (std::int32_t j = -3; j < keys + 3; ++j) {
        bool const allowed = j >= 0 && j < keys && j <= look;
        bool const near = std::int64_t{j} > std::int64_t{look} - window.recent;
        bool const sink = j < window.sinks;
        int const parts = (j >= 0 && ranges.sees(key_part::sink, j)) + ranges.sees(key_part::list, j) +
                          ranges.sees(key_part::window, j);
        wrong += parts != (allowed ? 1 : 0);
        if (!allowed) continue;
        wrong += ranges.sees(key_part::window, j) != near;
        wrong += ranges.sees(key_part::sink, j) != (!near && sink);
        wrong += ranges.sees(key_part::list, j) != (!near && !sink);
    }
    return wrong;
}

}  // namespace

TEST_CASE("mask: every visible key is in exactly one part", "[core]") {
    int wrong = 0;
    for (std::int32_t keys = 0; keys <= 12; ++keys)
        for (std::int32_t look = -2; look <= 15; ++look)
            for (std::int32_t sinks : {0, 1, 3, 8, 20, whole_context})
                for (std::int32_t recent : {0, 1, 2, 5, 12, 30, whole_context - 1, whole_context})
                    wrong += wrong_keys(look, keys, {sinks, recent});
    CHECK(wrong == 0);
}

TEST_CASE("mask: long contexts do not overflow", "[core]") {
    std::int32_t const last = whole_context - (1 << 20) - 1;
    visible_ranges const r = ranges_of(last, last + 1, {256, 1024});
    CHECK(r.sink_end == 256);
    CHECK(r.list_begin == 256);
    CHECK(r.list_end == last - 1023);
    CHECK(r.window_begin == last - 1023);
    CHECK(r.window_end == last + 1);
}

TEST_CASE("mask: the default window is dense", "[core]") {
    visible_ranges const r = ranges_of(41, 42, attention_window{});
    CHECK(r.sink_end == 0);
    CHECK(r.list_end <= r.list_begin);
    CHECK(r.window_begin == 0);
    CHECK(r.window_end == 42);
}

TEST_CASE("mask: a full mask looks from the last key, a causal one from the row", "[core]") {
    STATIC_REQUIRE(looking_position(mask_kind::full, 3, 100) == 99);
    STATIC_REQUIRE(looking_position(mask_kind::causal, 3, 100) == 3);
    STATIC_REQUIRE(attention_mask{}.kind == mask_kind::causal);
    STATIC_REQUIRE(attention_mask{}.offset == end_aligned);
    STATIC_REQUIRE(attention_mask{full{7}}.kind == mask_kind::full);
    STATIC_REQUIRE(attention_mask{full{7}}.offset == 7);
}

TEST_CASE("mask: a row before position 0 sees nothing", "[core]") {
    for (std::int32_t const p : {-1, -2, -1000}) {
        visible_ranges const r = ranges_of(p, 50, {4, 8});
        for (std::int32_t j = 0; j < 50; ++j)
            CHECK_FALSE((r.sees(key_part::sink, j) || r.sees(key_part::list, j) || r.sees(key_part::window, j)));
    }
}
