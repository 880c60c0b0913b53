// The granules that a tile walks hold every key that one of its rows sees, in exactly one part, against brute force.
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/policy/attend_policy.hpp"

using namespace winnow;

namespace {

// How often the row that looks from `look` meets each key when it walks its tile's granules.
std::vector<int> times_met(granule_sequence const& g, std::vector<std::int32_t> const& list, std::int32_t block_size,
                           std::int32_t look, std::int32_t keys, attention_window window) {
    visible_ranges const sees = ranges_of(look, keys, window);
    std::vector<int> met(static_cast<std::size_t>(keys), 0);
    auto const walk = [&](key_part part, std::int32_t first) {
        for (std::int32_t j = first; j < first + granule_keys; ++j)
            if (j >= 0 && j < keys && sees.sees(part, j)) ++met[static_cast<std::size_t>(j)];
    };
    for (std::int32_t i = 0; i < g.sinks; ++i) walk(key_part::sink, i * granule_keys);
    std::int32_t const per_block = block_size / granule_keys;
    for (std::int32_t i = 0; i < g.listed; ++i)
        walk(key_part::list, list[static_cast<std::size_t>(i / per_block)] * block_size + i % per_block * granule_keys);
    for (std::int32_t i = 0; i < g.window; ++i) walk(key_part::window, g.window_origin + i * granule_keys);
    return met;
}

}  // namespace

TEST_CASE("granules: every visible key once, no other key", "[policy]") {
    testing::random_source random(11);
    int wrong = 0;
    for (int i = 0; i < 4000; ++i) {
        std::int32_t const keys = random.between(0, 200);
        attention_window const window =
            random.below(5) == 0 ? attention_window{} : attention_window{random.between(0, 40), random.between(0, 70)};
        std::int32_t const block_size = 8 << random.below(4);
        std::vector<std::int32_t> list;
        std::vector<bool> listed(static_cast<std::size_t>(ceil_div(keys, block_size)), false);
        for (std::int32_t id = 0; id < ceil_div(keys, block_size); ++id)
            if (random.below(2)) list.push_back(id), listed[static_cast<std::size_t>(id)] = true;
        std::int32_t const first = random.between(-10, keys + 10), last = first + random.below(64);
        granule_sequence const g =
            granules_of(first, last, keys, window, static_cast<std::int32_t>(list.size()), block_size);
        for (std::int32_t look = first; look <= last; ++look) {
            auto const met = times_met(g, list, block_size, look, keys, window);
            for (std::int32_t j = 0; j < keys; ++j) {
                bool const near = std::int64_t{j} > std::int64_t{look} - window.recent;
                bool const in_list = listed[static_cast<std::size_t>(j / block_size)];
                bool const visible = j <= look && (near || j < window.sinks || in_list);
                wrong += met[static_cast<std::size_t>(j)] != (visible ? 1 : 0);
            }
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("granules: nothing to see, nothing to walk", "[policy]") {
    CHECK(granules_of(0, 15, 0, {16, 64}, 0, 8).size() == 0);
    CHECK(granules_of(-20, -5, 100, {16, 64}, 4, 8).size() == 0);
    CHECK(granules_of(40, 90, 100, {16, 0}, 0, 8).window == 0);  // no window: what lies between the rows is no row's
}

TEST_CASE("granules: dense attention walks each granule of the context once", "[policy]") {
    granule_sequence const g = granules_of(100, 163, 164, {}, 9, 32);
    CHECK(g.sinks == 0);
    CHECK(g.listed == 0);
    CHECK(g.window == 21);
    CHECK(g.window_origin == 0);
}

TEST_CASE("granules: a list is not walked while the window hides nothing", "[policy]") {
    CHECK(granules_of(0, 63, 64, {16, 64}, 5, 8).listed == 0);
    CHECK(granules_of(0, 64, 65, {16, 64}, 5, 8).listed == 0);  // key 0 is hidden, but it is a sink
    CHECK(granules_of(64, 80, 81, {16, 64}, 5, 8).listed == 5);
}

TEST_CASE("granules: positions near the limit do not overflow", "[policy]") {
    std::int32_t const keys = 2'146'000'000;
    granule_sequence const g = granules_of(keys - 64, keys - 1, keys, {256, 1024}, 256, 8);
    CHECK(g.sinks == 32);
    CHECK(g.listed == 256);
    CHECK(g.window * granule_keys >= 1024 + 63);
    CHECK(g.window_origin == (keys - 64 - 1023) / 8 * 8);
}
