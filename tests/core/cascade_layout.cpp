// Shapes of cascades, and positions of cached tokens.
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/cascade_params.hpp"
#include "winnow/core/dtype.hpp"

using namespace winnow;

namespace {

cascade_layout layout_of(std::int32_t sinks, std::vector<std::int32_t> const& sizes) {
    cascade_layout layout;
    layout.sinks = sinks, layout.levels = static_cast<std::int32_t>(sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i) layout.size[i] = sizes[i];
    return layout;
}

}  // namespace

TEST_CASE("cascade layout: periods", "[core]") {
    CHECK(acceptance{}.period[0] == 1);
    CHECK(acceptance{}.period[15] == 1 << 15);
    CHECK(acceptance{powers_of<3>{}}.period[4] == 81);
    CHECK(acceptance{powers_of<10>{}}.period[15] == 1 << 30);
    CHECK(acceptance{powers_of<1>{}}.period[15] == 1);
    CHECK(acceptance{arithmetic{}}.period[4] == 5);
    acceptance const first = always_first<3>{};
    CHECK(first.period[2] == 1);
    CHECK(first.period[3] == 8);
    CHECK(acceptance{} == acceptance{powers_of<2>{}});
    CHECK_FALSE(acceptance{} == first);
}

TEST_CASE("cascade layout: sizes and span", "[core]") {
    auto const layout = layout_of(3, {8, 4, 2});
    CHECK(layout.slots_before(0) == 0);
    CHECK(layout.slots_before(2) == 12);
    CHECK(layout.slots() == 14);
    CHECK(layout.rows() == 17);
    CHECK(layout.span() == 3 + 8 + 8 + 8);
    CHECK(layout.selects());
    // (T / C) (2^C - 1), as the paper counts.
    CHECK(even_cascade(0, 65536, 4).span() == 245760);
    CHECK(even_cascade(0, 65536, 8).span() == 2088960);
    auto const window = sliding_window(4, 100);
    CHECK(window.levels == 1);
    CHECK(window.span() == 104);
    CHECK_FALSE(window.selects());
}

TEST_CASE("cascade layout: acceptance counts the steps behind the sinks", "[core]") {
    auto layout = layout_of(2, {2, 2, 2});
    for (std::int64_t t = 0; t <= 8; ++t) CHECK(layout.accepts(2, t));  // one step longer than it takes to fill
    CHECK_FALSE(layout.accepts(2, 9));
    CHECK(layout.accepts(2, 10));
    CHECK(layout.accepts(0, 11));
    CHECK_FALSE(layout.accepts(1, 11));
    layout.eager_fill = false;
    CHECK(layout.accepts(2, 6));
    CHECK_FALSE(layout.accepts(2, 7));
    CHECK(layout.accepts(2, (std::int64_t{1} << 40) + 2));
}

TEST_CASE("cascade layout: positions after wrap", "[core]") {
    // E1 after 24 tokens: c2's oldest lies in slot 1.
    auto const layout = layout_of(2, {2, 2, 2});
    cascade_counters counters{24, {2, 2, 2}, {0, 0, 1}};
    std::vector<cascade_entry> entries;
    for (std::int32_t i = 0; i < live_tokens(layout, counters); ++i) entries.push_back(entry_at(layout, counters, i));
    std::vector<std::int32_t> const rows{0, 1, 2, 3, 4, 5, 6, 7}, positions{0, 1, 6, 7, 4, 5, 3, 2};
    REQUIRE(entries.size() == 8);
    for (std::size_t i = 0; i < 8; ++i) {
        CHECK(entries[i].row == rows[i]);
        CHECK(entries[i].position == positions[i]);
    }
}

TEST_CASE("cascade layout: a partly filled cache has no holes in its positions", "[core]") {
    auto const layout = layout_of(3, {4, 4});
    CHECK(live_tokens(layout, {}) == 0);
    cascade_counters const few{2, {}, {}};
    CHECK(live_tokens(layout, few) == 2);
    CHECK(entry_at(layout, few, 1).position == 1);
    cascade_counters const some{9, {4, 2}, {3, 0}};
    CHECK(live_tokens(layout, some) == 9);
    std::vector<std::int32_t> const rows{0, 1, 2, 3, 4, 5, 6, 7, 8}, positions{0, 1, 2, 6, 7, 8, 5, 3, 4};
    for (std::int32_t i = 0; i < 9; ++i) {
        CHECK(entry_at(layout, some, i).row == rows[static_cast<std::size_t>(i)]);
        CHECK(entry_at(layout, some, i).position == positions[static_cast<std::size_t>(i)]);
    }
}

TEST_CASE("cascade layout: segments are runs of ascending positions", "[core]") {
    auto const layout = layout_of(3, {5, 4, 1});
    for (cascade_counters const& counters :
         {cascade_counters{}, cascade_counters{2, {}, {}}, cascade_counters{50, {5, 4, 1}, {3, 1, 0}},
          cascade_counters{50, {5, 4, 1}, {0, 3, 0}}, cascade_counters{9, {5, 2, 0}, {4, 0, 0}},
          cascade_counters{9, {100, -2, 7}, {99, -5, 3}}}) {
        std::int32_t next = 0;
        for (std::int32_t i = 0; i < segments_of(layout); ++i) {
            cascade_segment const s = segment_at(layout, counters, i);
            REQUIRE(s.rows >= 0);
            if (s.rows > 0) REQUIRE(s.first == next);
            for (std::int32_t r = 0; r < s.rows; ++r) {
                cascade_entry const entry = entry_at(layout, counters, s.first + r);
                REQUIRE(entry.row == s.first_row + r);
                if (counters.head[0] < 5) REQUIRE(entry.position == entry.row - s.row_origin);
            }
            next += s.rows;
        }
        for (std::int32_t row = 0; row < layout.rows(); ++row) {
            bool in_segment = false;
            for (std::int32_t i = 0; i < segments_of(layout); ++i) {
                cascade_segment const s = segment_at(layout, counters, i);
                in_segment |= row >= s.first_row && row < s.first_row + s.rows;
            }
            CHECK(holds_token(layout, counters, row) == in_segment);
        }
        CHECK(next == live_tokens(layout, counters));
    }
}

TEST_CASE("cascade layout: bad counters stay inside the cache", "[core]") {
    auto const layout = layout_of(3, {4, 4});
    cascade_counters const bad{-5, {100, -7}, {1000, -3}};
    CHECK(live_tokens(layout, bad) == 4);
    for (std::int32_t i = 0; i < 4; ++i) {
        CHECK(entry_at(layout, bad, i).row >= 3);
        CHECK(entry_at(layout, bad, i).row < 7);
    }
}

TEST_CASE("cascade cache: exact bytes, nothing overlaps", "[core]") {
    alignas(256) static char memory[1 << 20];
    cascade_cache<bf16> cache;
    cache.memory = memory;
    cache.layout = layout_of(3, {5, 4});
    cache.sequences = 3, cache.kv_heads = 2, cache.head_dim = 64;
    auto const at = [&](void const* p) { return static_cast<char const*>(p) - memory; };
    CHECK(cache.token_heads() == 2);
    CHECK(at(cache.counters(0)) == 0);
    CHECK(at(cache.keys(0, 0)) == 512);
    CHECK(at(cache.keys(0, 1)) == 512 + 12 * 64 * 2);
    CHECK(at(cache.values(0, 0)) == 512 + cache.row_bytes());
    CHECK(cache.row_bytes() == 2 * 12 * 64 * 2);
    CHECK(at(cache.scores(0, 0)) == 512 + 2 * cache.row_bytes());
    CHECK(at(cache.scores(0, 1)) == at(cache.scores(0, 0)) + 9 * 4);
    CHECK(at(cache.origins(0, 0)) == at(cache.scores(0, 0)) + 512);
    CHECK(at(cache.counters(1)) == cache.sequence_bytes());
    CHECK(cache.sequence_bytes() == 512 + 2 * cache.row_bytes() + 1024);
    CHECK(cascade_bytes(cache) == static_cast<std::size_t>(3 * cache.sequence_bytes()));
    for (std::int32_t const head_dim : {64, 128, 256}) {  // a rotated copy, and a row more; all on a grid of rows
        cache.head_dim = head_dim, cache.stored = cascade_keys::with_rotated;
        CHECK(cache.stored_rows() == 13);
        CHECK(at(cache.keys(0, 1)) - at(cache.keys(0, 0)) == 13 * head_dim * 2);
        CHECK(at(cache.rotated(0, 0)) == at(cache.origins(0, 0)) + 512);
        CHECK(at(cache.rotated(0, 0)) + cache.row_bytes() == at(cache.counters(1)));
        CHECK(cache.sequence_rows() * head_dim * 2 == cache.sequence_bytes());
        CHECK((at(cache.values(2, 1)) - at(cache.values(0, 0))) % (head_dim * 2) == 0);
    }
    cache.heads = cascade_heads::shared;
    CHECK(cache.token_heads() == 1);
    CHECK(cache.token_head_of(1) == 0);
}

TEST_CASE("cascade: heads are reduced by name", "[core]") {
    std::vector<double> const x{3, 1, 4, 2};
    auto const of = [&](std::int32_t i) { return x[static_cast<std::size_t>(i)]; };
    CHECK(reduce_heads(cascade_reduction::max, 4, of) == 4);
    CHECK(reduce_heads(cascade_reduction::mean, 4, of) == 2.5);
    CHECK(reduce_heads(cascade_reduction::median, 4, of) == 2);  // the lower of the middle two
    CHECK(reduce_heads(cascade_reduction::median, 3, of) == 3);
    CHECK(reduce_heads(cascade_reduction::median, 1, of) == 3);
    CHECK(reduce_heads(cascade_reduction::median, 3, [](std::int32_t) { return 7.0; }) == 7);
}

TEST_CASE("cascade: rows of a scorer", "[core]") {
    CHECK(cascade_scorer{}.counted(100) == 100);
    CHECK(cascade_scorer{last_queries<32>{}}.counted(100) == 32);
    CHECK(cascade_scorer{last_queries<32>{}}.counted(7) == 7);
    cascade_scorer const s{all_queries{}, 0.5, cascade_reduction::median};
    CHECK(s.rows == 0);
    CHECK(s.beta == 0.5);
    CHECK(s.reduction == cascade_reduction::median);
}

TEST_CASE("cascade: chunks of a batch", "[core]") {
    std::vector<std::int32_t> const start{2, 5, 5, 90}, sequence{4, -1, 0};
    query_index const rows{start.data(), 3, 10};
    auto const a = chunk_of(rows, sequence.data(), 5, 10, 0);
    CHECK((a.sequence == 4 && a.outer == 0 && a.first_row == 2 && a.tokens == 3));
    CHECK(chunk_of(rows, sequence.data(), 4, 10, 0).sequence == -1);  // beyond the cache: padding
    CHECK(chunk_of(rows, sequence.data(), 4, 10, 0).tokens == 0);
    CHECK(chunk_of(rows, sequence.data(), 5, 10, 1).tokens == 0);
    CHECK(chunk_of(rows, sequence.data(), 5, 10, 2).tokens == 10);  // never more than the plan's maximum
    auto const b = chunk_of({}, nullptr, 5, 10, 3);
    CHECK((b.sequence == 3 && b.outer == 3 && b.first_row == 0 && b.tokens == 10));
}
