// Append's tuning: every vector of a head in one column, every rotation where its channels are.
#include "winnow/policy/append_policy.hpp"

#include <cstdint>
#include <vector>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("append policy: columns hold every vector once, rotated pairs together", "[policy]") {
    for (std::int32_t vectors = 1; vectors <= 128; ++vectors)
        for (std::int32_t rotary = 0; 2 * rotary <= vectors; ++rotary) {
            vector_columns const c{vectors, rotary};
            INFO(vectors << " vectors, " << rotary << " rotary columns");
            std::vector<int> seen(static_cast<std::size_t>(vectors), 0);
            for (std::int32_t i = 0; i < c.count(); ++i) {
                REQUIRE(c.first(i) < vectors);
                ++seen[static_cast<std::size_t>(c.first(i))];
                if (c.has_second(i)) ++seen[static_cast<std::size_t>(c.second(i))];
                if (i < rotary) REQUIRE((c.has_second(i) && c.second(i) == c.first(i) + rotary));
            }
            REQUIRE(seen == std::vector<int>(static_cast<std::size_t>(vectors), 1));
            REQUIRE(c.count() <= (vectors + 1) / 2 + 1);
        }
    // The picture in the header.
    vector_columns const c{11, 4};
    CHECK(c.count() == 6);
    CHECK(c.first(4) == 8);
    CHECK(c.second(4) == 10);
    CHECK(c.first(5) == 9);
    CHECK_FALSE(c.has_second(5));
}

TEST_CASE("append policy: a rotation turns channels that its column holds", "[policy]") {
    for (rope_pairing const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int32_t const rotary_dim : {16, 32, 80, 128, 1024}) {
            std::int32_t const pairs = rotary_dim / 2;
            vector_columns const columns{rotary_dim / vector_channels + 3, rotary_dim / 16};
            std::vector<int> seen(static_cast<std::size_t>(pairs), 0);
            for (std::int32_t c = 0; c < columns.rotary; ++c)
                for (std::int32_t k = 0; k < 8; ++k) {
                    std::int32_t const pair = rotary_pair(pairing, columns, c, k);
                    REQUIRE((pair >= 0 && pair < pairs));
                    ++seen[static_cast<std::size_t>(pair)];
                    channel_pair const at = channels_of(pairing, pairs, pair);
                    bool const halves = pairing == rope_pairing::halves;
                    std::int32_t const vector = k < 4 || halves ? columns.first(c) : columns.second(c);
                    CHECK(at.first / 8 == vector);
                    CHECK(at.second / 8 == (halves ? columns.second(c) : vector));
                    CHECK(at.first % 8 == (halves ? k : k % 4 * 2));
                }
            CHECK(seen == std::vector<int>(static_cast<std::size_t>(pairs), 1));
        }
}

TEST_CASE("append policy: a block holds the rotations of its rows, and few rows get a block each", "[policy]") {
    for (std::int64_t const rows : {std::int64_t{0}, std::int64_t{1}, std::int64_t{600}, std::int64_t{3000},
                                    std::int64_t{8192}, std::int64_t{1} << 28})
        for (std::int32_t pairs = 0; pairs <= append_pairs; pairs += 8) {
            std::int32_t const taken = append_rows_of(rows, pairs);
            CHECK(taken >= 1);
            CHECK(taken <= append_rows);
            CHECK(taken * pairs <= append_pairs);
            if (rows < 1024) CHECK(taken == 1);
        }
    CHECK(append_rows_of(8192, 64) == append_rows);
    CHECK(append_rows_of(8192, 0) == append_rows);
    CHECK(append_rows_of(8192, 512) == 1);
}
