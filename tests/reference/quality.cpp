// Quality measures on inputs where they are known: uniform attention, one heavy block, everything selected.
#include "winnow/reference/quality.hpp"

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/reference/prune.hpp"

using namespace winnow;
using testing::attend_input;

namespace {

// Queries of 0: every visible key weighs the same.
attend_input<bf16> uniform(std::int32_t queries, std::int32_t keys) {
    attend_input<bf16> in({.queries = {queries}, .keys = {keys}, .heads = 2});
    for (std::int32_t i = 0; i < queries; ++i)
        for (std::int32_t h = 0; h < 2; ++h)
            for (std::int32_t c = 0; c < 64; ++c) in.query(0, i, h, c) = from_float<bf16>(0.0f);
    return in;
}

reference::attention_quality measured(attend_params<bf16> const& p, int threads = 1) {
    reference::attention_quality q;
    REQUIRE(reference::measure(p, q, {.threads = threads}).ok());
    return q;
}

}  // namespace

TEST_CASE("quality: dense attention keeps everything", "[reference]") {
    attend_input<bf16> in({.queries = {20}, .keys = {100}, .heads = 2});
    auto const q = measured(in.params());
    CHECK(q.mass_kept == Catch::Approx(1.0).epsilon(1e-12));
    CHECK(q.lowest_mass_kept == Catch::Approx(1.0).epsilon(1e-12));
    CHECK(q.keys_per_query == q.keys_allowed);
    CHECK(q.keys_allowed == Catch::Approx(90.5));  // rows see 81 .. 100 keys
    CHECK(q.block_recall == 1);
}

TEST_CASE("quality: uniform attention keeps mass as it keeps keys", "[reference]") {
    auto in = uniform(4, 100);
    in.add_selection(8, 16, sharing::per_batch, 3, 0.0);
    auto const s = in.selection_buffer();
    s.blocks.data[0] = 2, s.blocks.data[1] = 5, s.counts.data[0] = 2;
    auto p = in.params();
    p.window = {4, 10};
    auto const q = measured(p);
    double mass = 0;
    for (double const keys : {97.0, 98.0, 99.0, 100.0}) mass += 30 / keys / 4;
    CHECK(q.keys_per_query == 30);
    CHECK(q.keys_allowed == 98.5);
    CHECK(q.mass_kept == Catch::Approx(mass));
    CHECK(q.lowest_mass_kept == Catch::Approx(0.3));
    CHECK(q.row_mass.size() == 8);
}

TEST_CASE("quality: recall of the heaviest blocks", "[reference]") {
    auto in = uniform(4, 100);
    for (std::int32_t i = 0; i < 4; ++i)
        for (std::int32_t h = 0; h < 2; ++h) in.query(0, i, h, 0) = from_float<bf16>(8.0f);
    for (std::int32_t j = 0; j < 100; ++j) {  // blocks 3 and 7 outweigh all others
        bool const heavy = j / 8 == 3 || j / 8 == 7;
        in.key(0, j, 0, 0) = from_float<bf16>(heavy ? 4.0f : 0.0f);
    }
    in.add_selection(8, 16, sharing::per_batch, 3, 0.0);
    auto const s = in.selection_buffer();
    auto p = in.params();
    p.window = {8, 10};
    auto const recall_of = [&](std::int32_t a, std::int32_t b) {
        s.blocks.data[0] = a, s.blocks.data[1] = b, s.counts.data[0] = 2;
        return measured(p).block_recall;
    };
    CHECK(recall_of(3, 7) == 1);
    CHECK(recall_of(3, 5) == 0.5);
    CHECK(recall_of(4, 5) == 0);
    s.counts.data[0] = 0;
    CHECK(measured(p).block_recall == 1);  // nothing was asked for
}

TEST_CASE("quality: recall holds each list against the mass of its own heads", "[reference]") {
    auto in = uniform(1, 100);  // 2 heads with a list each: head 0 looks at block 3, head 1 at block 7
    for (std::int32_t h = 0; h < 2; ++h) in.query(0, 0, h, h) = from_float<bf16>(8.0f);
    for (std::int32_t j = 0; j < 100; ++j)
        for (std::int32_t h = 0; h < 2; ++h) in.key(0, j, 0, h) = from_float<bf16>(j / 8 == (h ? 7 : 3) ? 4.0f : 0.0f);
    in.add_selection(8, 16, sharing::per_head, 1, 0.0);
    auto const s = in.selection_buffer();
    auto p = in.params();
    p.window = {8, 10};
    auto const recall_of = [&](std::int32_t a, std::int32_t b) {
        s.blocks(0, 0, 0, 0) = a, s.blocks(0, 1, 0, 0) = b, s.counts(0, 0, 0) = s.counts(0, 1, 0) = 1;
        return measured(p).block_recall;
    };
    CHECK(recall_of(3, 7) == 1);
    CHECK(recall_of(3, 3) == 0.5);
    CHECK(recall_of(7, 3) == 0);
}

TEST_CASE("quality: a block counts where one of its keys is hidden by the window and is no sink", "[reference]") {
    auto in = uniform(1, 30);
    in.query(0, 0, 0, 0) = in.query(0, 0, 1, 0) = from_float<bf16>(8.0f);
    for (std::int32_t j = 0; j < 30; ++j) in.key(0, j, 0, 0) = from_float<bf16>(j == 16 ? 4.0f : 0.0f);
    in.add_selection(8, 16, sharing::per_batch, 1, 0.0);
    auto const s = in.selection_buffer();
    s.blocks(0, 0, 0, 0) = 2, s.counts(0, 0, 0) = 1;
    auto p = in.params();
    p.window = {8, 13};  // keys 17 .. 29: of block 2 key 16 alone is left for a list
    CHECK(measured(p).block_recall == 1);
    p.window = {8, 14};  // nothing is; the list holds what has no mass
    CHECK(measured(p).block_recall == 0);
    s.blocks(0, 0, 0, 0) = 1;
    CHECK(measured(p).block_recall == 1);
}

TEST_CASE("quality: rows that see nothing do not count; threads change nothing", "[reference]") {
    attend_input<bf16> in({.queries = {50}, .keys = {40}, .heads = 2});
    auto p = in.params();
    p.window = {2, 6};
    auto const one = measured(p, 1), three = measured(p, 3);
    CHECK(one.mass_kept == three.mass_kept);
    CHECK(one.mass_kept > 0);
    CHECK(one.mass_kept < 1);
    CHECK(std::isnan(one.row_mass[0]));
    CHECK_FALSE(std::isnan(one.row_mass[2 * 10]));
    for (double const x : in.output()) REQUIRE(std::isnan(x));  // measuring writes no output
}

TEST_CASE("quality: a selection made by pruning keeps more mass than a random one of its size", "[reference]") {
    attend_input<bf16> in({.queries = {32}, .keys = {600}, .heads = 2});
    // Smooth keys, so that neighbours resemble each other, as in real text.
    for (std::int32_t j = 1; j < 600; ++j)
        for (std::int32_t c = 0; c < 64; ++c)
            in.key(0, j, 0, c) =
                from_float<bf16>(0.9f * to_float(in.key(0, j - 1, 0, c)) + 0.4f * to_float(in.key(0, j, 0, c)));
    auto pruning = testing::prune_params_of(in.params(), hip_tiny);
    reference::selection_storage const chosen(hip_tiny, pruning.shape());
    pruning.selection = chosen.view;
    REQUIRE(reference::prune(pruning).ok());
    auto p = in.params();
    p.window = hip_tiny.window;
    p.selection = chosen.view;
    auto const by_pruning = measured(p);
    in.add_selection(8, 16, sharing::per_batch, 8, 0.13);
    auto random = in.params();
    random.window = hip_tiny.window;
    auto const at_random = measured(random);
    CHECK(by_pruning.mass_kept > at_random.mass_kept + 0.02);
    CHECK(by_pruning.block_recall > at_random.block_recall + 0.2);
}

TEST_CASE("quality: the map sums to 1 per query block and shows where mass is", "[reference]") {
    auto in = uniform(20, 100);
    reference::attention_map map;
    REQUIRE(reference::map_attention(in.params(), 16, 10, map, {.threads = 2}).ok());
    CHECK(map.query_blocks == query_blocks_of(20, 16));
    CHECK(map.key_blocks == 10);
    for (std::int32_t m = 0; m < 2; ++m) {  // rows 80 .. 95 and 96 .. 99
        double total = 0;
        for (std::int32_t k = 0; k < 10; ++k) total += map.at(0, 1, m, k);
        CHECK(total == Catch::Approx(1.0));
    }
    CHECK(map.at(0, 0, 1, 0) == Catch::Approx((10 / 97.0 + 10 / 98.0 + 10 / 99.0 + 10 / 100.0) / 4));
    CHECK(map.at(0, 0, 0, 9) == Catch::Approx((1 / 91.0 + 2 / 92.0 + 3 / 93.0 + 4 / 94.0 + 5 / 95.0 + 6 / 96.0) / 16));
    CHECK(reference::map_attention(in.params(), 0, 10, map).code == errc::out_of_range);
    CHECK(reference::map_attention(in.params(), 16, 0, map).code == errc::out_of_range);
}

TEST_CASE("quality: relative error", "[reference]") {
    double const nan = std::nan("");
    CHECK(reference::relative_error({3, 4}, {3, 4}) == 0);
    CHECK(reference::relative_error({3, 4}, {0, 4}) == Catch::Approx(0.75));
    CHECK(reference::relative_error({nan, 4}, {nan, 2}) == 1);
    CHECK(std::isinf(reference::relative_error({nan, 4}, {1, 2})));
    CHECK(reference::relative_error({0, 0}, {0, 0}) == 0);
}

TEST_CASE("parallel_for: every index once, on any number of threads", "[reference]") {
    for (int const threads : {0, 1, 2, 5})
        for (std::int64_t const count : {0, 1, 3, 200}) {
            std::vector<std::atomic<int>> met(static_cast<std::size_t>(count));
            reference::parallel_for(count, {.threads = threads},
                                    [&](std::int64_t i) { ++met[static_cast<std::size_t>(i)]; });
            bool once = true;
            for (auto const& n : met) once = once && n == 1;
            CHECK(once);
        }
}

TEST_CASE("quality: a map of one block, however long the block is said to be", "[reference]") {
    auto in = uniform(4, 40);
    constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
    reference::attention_map map;
    REQUIRE(reference::map_attention(in.params(), most, most, map).ok());
    CHECK(map.key_blocks == 1);
    for (std::int32_t h = 0; h < 2; ++h) CHECK(map.at(0, h, 0, 0) == Catch::Approx(1.0));
}
