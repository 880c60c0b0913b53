// Index arithmetic of selections: query blocks are aligned to absolute positions, heads share lists.
#include "winnow/core/selection.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("selection: a row's block follows its absolute position", "[core]") {
    int wrong = 0;
    for (std::int32_t const query_block : {1, 3, 8, 64})
        for (std::int32_t first = 0; first < 140; ++first)
            for (std::int32_t row = 0; row < 140; ++row)
                wrong += query_block_of(first + row, first, query_block) !=
                         (first + row) / query_block - first / query_block;
    CHECK(wrong == 0);
}

TEST_CASE("selection: rows before position 0 share block 0", "[core]") {
    CHECK(query_block_of(-5, -5, 8) == 0);
    CHECK(query_block_of(-1, -5, 8) == 0);
    CHECK(query_block_of(7, -5, 8) == 0);
    CHECK(query_block_of(8, -5, 8) == 1);
}

TEST_CASE("selection: query_blocks_of bounds what rows can touch, and no less is enough", "[core]") {
    for (std::int32_t const query_block : {1, 2, 7, 16, 64})
        for (std::int32_t rows = 0; rows < 150; ++rows) {
            std::int32_t most = 0;
            for (std::int32_t first = 0; rows > 0 && first < query_block; ++first)
                most = std::max(most, query_block_of(first + rows - 1, first, query_block) + 1);
            CHECK(query_blocks_of(rows, query_block) == most);
        }
    CHECK(query_blocks_of(0, 64) == 0);
    CHECK(query_blocks_of(std::numeric_limits<std::int32_t>::max() - (1 << 20), 64) == (1 << 25) - (1 << 14) + 1);
}

TEST_CASE("selection: which list a head uses", "[core]") {
    CHECK(list_heads_of(sharing::per_batch, 12, 4) == 1);
    CHECK(list_heads_of(sharing::per_kv_group, 12, 4) == 4);
    CHECK(list_heads_of(sharing::per_head, 12, 4) == 12);
    for (std::int32_t head = 0; head < 12; ++head) {
        CHECK(list_head_of(head, 12, 1) == 0);
        CHECK(list_head_of(head, 12, 4) == head / 3);
        CHECK(list_head_of(head, 12, 12) == head);
    }
}

TEST_CASE("selection: a buffer reads as a selection", "[core]") {
    std::vector<std::int32_t> blocks(2 * 3 * 4 * 5), counts(2 * 3 * 4), rows(2);
    block_selection_buffer buffer;
    buffer.blocks = packed_view(blocks.data(), {2, 3, 4, 5});
    buffer.counts = packed_view(counts.data(), {2, 3, 4});
    buffer.block_size = 16, buffer.query_block = 32, buffer.list_row = rows.data();
    block_selection const s = buffer;
    CHECK(s.list_heads() == 3);
    CHECK(s.capacity() == 5);
    CHECK(s.block_size == 16);
    CHECK(s.query_block == 32);
    CHECK(s.list_row == rows.data());
    CHECK(s.counts.data == counts.data());
    CHECK_FALSE(s.empty());
    CHECK(block_selection{}.empty());
}

TEST_CASE("selection: query blocks of any length do not overflow", "[core]") {
    constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
    CHECK(query_blocks_of(0, most) == 0);
    CHECK(query_blocks_of(1, most) == 1);
    CHECK(query_blocks_of(40, most) == 2);
    CHECK(query_blocks_of(most, most) == 2);
    CHECK(query_blocks_of(most, 1) == most);
}
