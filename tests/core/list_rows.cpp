// Per-list functions of conversions: places and rows, clamping of what is read, words of what is written, packed pages.
#include "winnow/core/list_rows.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/core/pack_pages.hpp"

using namespace winnow;
using testing::random_source;

TEST_CASE("list rows: places are counted over [batch, head, query block], BSR rows over [head, batch, query block]",
          "[core]") {
    list_axes const axes{3, 4, 5};
    std::set<std::int64_t> rows;
    std::int32_t index = 0;
    for (std::int32_t b = 0; b < 3; ++b)
        for (std::int32_t h = 0; h < 4; ++h)
            for (std::int32_t m = 0; m < 5; ++m, ++index) {
                list_place const at = list_place_of(axes, index);
                CHECK((at.batch == b && at.head == h && at.block == m));
                CHECK(bsr_row_of(axes, at) == (h * 3 + b) * 5 + m);
                rows.insert(bsr_row_of(axes, at));
            }
    CHECK(rows.size() == static_cast<std::size_t>(axes.count()));
    CHECK(bsr_row_of({65536, 8, 32768}, {65535, 7, 32767}) == (std::int64_t{1} << 34) - 1);
}

TEST_CASE("list rows: blocks_of at the limits", "[core]") {
    CHECK(blocks_of(-1, 16) == 0);
    CHECK(blocks_of(0, 16) == 0);
    CHECK(blocks_of(1, 16) == 1);
    CHECK(blocks_of(16, 16) == 1);
    CHECK(blocks_of(17, 16) == 2);
    CHECK(blocks_of(std::numeric_limits<std::int32_t>::max(), 128) == 1 << 24);
    CHECK(blocks_of(std::numeric_limits<std::int32_t>::max(), 1) == std::numeric_limits<std::int32_t>::max());
}

TEST_CASE("list rows: counts, offsets and list rows that are out of range are clamped", "[core]") {
    std::vector<std::int32_t> blocks(2 * 8), counts{-5, 900};
    block_selection_buffer s;
    s.blocks = packed_view(blocks.data(), {2, 1, 1, 8});
    s.counts = packed_view(counts.data(), {2, 1, 1});
    s.block_size = 16;
    CHECK(row_of(s, {0, 0, 0}, 100).count == 0);
    CHECK(row_of(s, {1, 0, 0}, 100).count == 8);
    CHECK(row_of(s, {1, 0, 0}, 100).ids == blocks.data() + 8);
    std::vector<std::int32_t> const list_row{1, -1, 2, std::numeric_limits<std::int32_t>::min()};
    s.list_row = list_row.data();
    CHECK(row_of(s, {0, 0, 0}, 100).count == 8);
    for (std::int32_t const b : {1, 2, 3}) {
        CHECK(row_of(s, {b, 0, 0}, 100).count == 0);
        id_writer const nowhere = writer_of(s, {b, 0, 0}, 100);
        CHECK(nowhere.columns(100) == 0);
        nowhere.finish(0, false, 0, 1);  // writes nothing, and has nowhere to write to
    }

    std::vector<std::int32_t> indices(10);
    struct span {
        std::int32_t begin, end;
        std::int64_t first, count;
    };
    for (span const c :
         {span{2, 5, 2, 3}, span{-3, 4, 0, 4}, span{8, 99, 8, 2}, span{50, 60, 10, 0}, span{6, 3, 6, 0},
          span{std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max(), 0, 10}}) {
        std::int32_t const indptr[2] = {c.begin, c.end};
        bsr const f{indptr, indices.data(), 10, {1, 1, 1}, 0};
        CHECK(row_of(f, {0, 0, 0}, 100).ids == indices.data() + c.first);
        CHECK(row_of(f, {0, 0, 0}, 100).count == c.count);
    }
}

TEST_CASE("list rows: ids of another request's columns do not wrap around", "[core]") {
    std::int32_t const ids[] = {std::numeric_limits<std::int32_t>::min(), 2000, 0};
    id_row const row{ids, 3, 2000};
    CHECK(row.at(0) == std::int64_t{std::numeric_limits<std::int32_t>::min()} - 2000);
    CHECK(row.at(1) == 0);
    CHECK(row.at(2) == -2000);
}

TEST_CASE("list rows: a word becomes ids, up to the capacity; finish counts and pads", "[core]") {
    std::vector<std::int32_t> ids(8, -9);
    std::int32_t count = -9;
    id_writer const w{ids.data(), 5, 100, &count, 8, -1};
    w.put(1, 0x80000005u, 0);  // ids 32, 34, 63
    w.put(2, 0x00000007u, 3);  // 64, 65, and 66, which does not fit
    CHECK(ids == std::vector<std::int32_t>{132, 134, 163, 164, 165, -9, -9, -9});
    CHECK_FALSE(w.holds(6));
    CHECK(w.holds(5));
    for (std::int32_t t = 0; t < 2; ++t) w.finish(6, false, t, 2);
    CHECK(count == 5);
    CHECK(ids == std::vector<std::int32_t>{132, 134, 163, 164, 165, -1, -1, -1});
}

TEST_CASE("list rows: bits and flags end where the key blocks end", "[core]") {
    for (std::int32_t const n : {1, 7, 8, 9, 31, 32, 33, 40, 41, 64, 70}) {
        std::vector<std::uint8_t> bytes(20, 0xee), flags(100, 0xee);
        bit_writer const bits{bytes.data(), n};
        flag_writer const bools{flags.data(), n};
        for (std::int32_t word = 0; word < (n + 31) / 32; ++word) {
            std::int32_t const left = n - word * 32;
            std::uint32_t const all = left >= 32 ? ~0u : (1u << left) - 1;
            bits.put(word, all & 0xdb6db6dbu, 0);
            bools.put(word, all & 0xdb6db6dbu, 0);
        }
        for (std::int32_t j = 0; j < 100; ++j) {
            int const expected = 0xdb6db6dbu >> (j % 32) & 1;
            if (j < n) {
                CHECK((bytes[static_cast<std::size_t>(j / 8)] >> j % 8 & 1) == expected);
                CHECK(flags[static_cast<std::size_t>(j)] == expected);
            } else {
                CHECK(flags[static_cast<std::size_t>(j)] == 0xee);
            }
        }
        std::size_t const width = static_cast<std::size_t>(bit_bytes_of(n));
        if (n % 8 != 0) CHECK(bytes[width - 1] >> n % 8 == 0);
        CHECK(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(width), bytes.end(),
                          [](std::uint8_t x) { return x == 0xee; }));
    }
}

TEST_CASE("pack pages: the length of packed pages", "[core]") {
    CHECK(packed_length(0, false, 40, 16) == 0);
    CHECK(packed_length(1, true, 40, 16) == 8);  // keys 32 .. 39
    CHECK(packed_length(1, false, 40, 16) == 16);
    CHECK(packed_length(3, true, 40, 16) == 40);
    CHECK(packed_length(2, true, 32, 16) == 32);  // the last page is full
    CHECK(packed_length(2, false, 33, 16) == 32);
    CHECK(packed_length(3, true, 33, 16) == 33);
    CHECK(packed_length(1, true, 1, 16) == 1);
    CHECK(packed_length(16384, true, (1 << 30) - 5, 65536) == (1 << 30) - 5);
}

TEST_CASE("pack pages: the bound holds whatever is listed, and is reached", "[core]") {
    random_source random(5);
    for (int round = 0; round < 400; ++round) {
        std::int32_t const page = 1 << random.between(0, 7), block = 1 << random.between(3, 7);
        std::int32_t const capacity = random.between(0, 5), most = random.between(1, 600);
        attention_window const window{random.between(0, 40), random.between(0, 3) == 0 ? 0 : random.between(0, 90)};
        block_selection lists;
        lists.block_size = block, lists.blocks.extent[3] = capacity;
        std::int32_t const bound = packed_pages_bound(lists, window, page, most);
        std::int32_t const keys = random.between(1, most);
        std::set<std::int32_t> pages;
        for (std::int32_t j = 0; j < keys; ++j)
            if (j < window.sinks || j > keys - 1 - window.recent) pages.insert(j / page);
        for (std::int32_t i = 0; i < capacity; ++i) {
            std::int32_t const id = random.below((keys + block - 1) / block);
            for (std::int32_t j = id * block; j < std::min(keys, (id + 1) * block); ++j) pages.insert(j / page);
        }
        CHECK(static_cast<std::int32_t>(pages.size()) <= bound);
        CHECK(bound <= (most + page - 1) / page);
    }
    CHECK(packed_pages_bound({}, {}, 16, 1000) == 63);
    CHECK(packed_pages_bound({}, {.sinks = 4, .recent = 0}, 16, 1000) == 1);
    // 17 keys touch two pages of 16 wherever they begin, 18 keys may touch three: 15 .. 32.
    CHECK(packed_pages_bound({}, {.sinks = 0, .recent = 17}, 16, 1000) == 2);
    CHECK(packed_pages_bound({}, {.sinks = 0, .recent = 18}, 16, 1000) == 3);
    CHECK(packed_pages_bound({}, {.sinks = 0, .recent = 1}, 16, 1000) == 1);
}
