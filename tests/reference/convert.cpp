// Conversions on host pointers: the exact shapes of engines, round trips through every format, disorder and overflow,
// and page tables against attention.
#include "winnow/reference/convert.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "support/stored_lists.hpp"
#include "winnow/reference/attend.hpp"

using namespace winnow;
using testing::arena;
using testing::attend_input;
using testing::block_sets;
using testing::disorder;
using testing::random_sets;
using testing::random_source;
using testing::stored_selection;

namespace {

// Selection -> format -> selection; each step is read by loops that know nothing of the library.
template <class Stored>
void round_trip(list_axes axes, std::int32_t key_blocks, double density, std::uint64_t seed, disorder how) {
    INFO(axes.batch << " x " << axes.heads << " x " << axes.query_blocks << " lists of " << key_blocks
                    << " blocks, density " << density << ", seed " << seed);
    block_sets const sets = random_sets(axes, key_blocks, density, seed);
    random_source random(seed);
    arena memory;
    stored_selection const before(memory, axes, key_blocks, stored_selection::room_for(sets));
    stored_selection const after(memory, axes, key_blocks, sets.longest());  // capacity exactly full
    Stored const format(memory, axes, key_blocks, Stored::capacity_for(sets));
    Stored const given(memory, axes, key_blocks, Stored::room_for(sets));
    testing::poison(memory);
    before.write(memory.base(), sets, how, random);
    given.write(memory.base(), sets, how, random);

    std::int64_t needed = -1;
    convert_params<block_selection, typename Stored::buffer> to{before.view(memory.base()), format.view(memory.base()),
                                                                key_blocks, nullptr, &needed};
    status const written = reference::convert(to);
    INFO(written.field << " " << written.rule << " " << written.value);
    REQUIRE(written.ok());
    CHECK(needed == 0);
    block_sets found(axes, key_blocks);
    CHECK(format.read(memory.base(), found));
    CHECK((found == sets));

    for (Stored const* const source : {&format, &given}) {
        std::memset(memory.base() + after.blocks, 0x5a, 64);
        convert_params<typename Stored::reading, block_selection_buffer> from{
            source->view(memory.base()), after.view(memory.base()), key_blocks, nullptr, &needed};
        REQUIRE(reference::convert(from).ok());
        CHECK(needed == 0);
        block_sets back(axes, key_blocks);
        CHECK(after.read(memory.base(), back));
        CHECK((back == sets));
        CHECK(check_contents(after.view(memory.base()), key_blocks * 16).ok());
    }
}

}  // namespace

TEMPLATE_TEST_CASE("convert: round trips", "[reference]", testing::stored_bsr, testing::stored_block_lists,
                   testing::stored_padded_lists, testing::stored_bits, testing::stored_flags,
                   testing::stored_selection) {
    for (disorder const how : {disorder::none, disorder::mixed}) {
        std::uint64_t seed = 1;
        for (std::int32_t const key_blocks : {1, 2, 7, 8, 9, 31, 32, 33, 64, 100, 1000})
            for (double const density : {0.0, 0.1, 0.6, 1.0})
                round_trip<TestType>({1 + static_cast<std::int32_t>(seed % 3), 1 + static_cast<std::int32_t>(seed % 2),
                                      1 + static_cast<std::int32_t>(seed % 4)},
                                     key_blocks, density, seed++, how);
        round_trip<TestType>({0, 1, 3}, 10, 0.5, 3, how);
        round_trip<TestType>({2, 2, 0}, 10, 0.5, 3, how);
        round_trip<TestType>({2, 2, 2}, 0, 0.5, 3, how);
        round_trip<TestType>({1, 1, 1}, 70000, 0.01, 3, how);
    }
}

TEST_CASE("convert: FlashInfer's BSR", "[reference]") {
    // The mask [[0, 0, 1], [1, 0, 1], [0, 1, 1]] of its documentation: indptr [0, 1, 3, 5], indices [2, 0, 2, 1, 2].
    std::vector<std::int32_t> blocks{2, -1, -1, 0, 2, -1, 1, 2, -1, 9, 9, 9}, counts{1, 2, 2, 3};
    block_selection s;
    s.blocks = packed_view<std::int32_t const>(blocks.data(), {1, 1, 4, 3});  // one query block more than the matrix
    s.counts = packed_view<std::int32_t const>(counts.data(), {1, 1, 4});
    s.block_size = 16, s.query_block = 16;
    std::vector<std::int32_t> indptr(4, -1), indices(6, -1);
    // [bsr]
    bsr_buffer const matrix{.indptr = indptr.data(),
                            .indices = indices.data(),
                            .capacity = 5,
                            .axes = {.batch = 1, .heads = 1, .query_blocks = 3}};
    convert_params<block_selection, bsr_buffer> p{.from = s, .to = matrix, .key_blocks = 3};
    // [/bsr]
    REQUIRE(reference::convert(p).ok());
    CHECK(indptr == std::vector<std::int32_t>{0, 1, 3, 5});
    CHECK(indices == std::vector<std::int32_t>{2, 0, 2, 1, 2, -1});

    // Back into lists of one query block more: the last one is empty.
    std::vector<std::int32_t> back(4 * 2, -1), back_counts(4, -1);
    block_selection_buffer to;
    to.blocks = packed_view(back.data(), {1, 1, 4, 2});
    to.counts = packed_view(back_counts.data(), {1, 1, 4});
    to.block_size = 16, to.query_block = 16;
    convert_params<bsr, block_selection_buffer> q{matrix, to, 3, nullptr, nullptr};
    REQUIRE(reference::convert(q).ok());
    CHECK(back_counts == std::vector<std::int32_t>{1, 2, 2, 0});
    CHECK(back == std::vector<std::int32_t>{2, -1, 0, 2, 1, 2, -1, -1});
}

TEST_CASE("convert: stacked BSR, each request's matrix in it, and the block-diagonal one", "[reference]") {
    list_axes const axes{3, 2, 4};
    std::int32_t const key_blocks = 11;
    block_sets const sets = random_sets(axes, key_blocks, 0.4, 7);
    random_source random(7);
    arena memory;
    stored_selection const lists(memory, axes, key_blocks, sets.longest());
    testing::stored_bsr stacked(memory, axes, key_blocks, sets.entries());
    stored_selection const back(memory, axes, key_blocks, sets.longest());
    for (std::int32_t const stride : {0, 11, 20}) {
        stacked.column_stride = stride;
        lists.write(memory.base(), sets, disorder::none, random);
        convert_params<block_selection, bsr_buffer> p{lists.view(memory.base()), stacked.view(memory.base()),
                                                      key_blocks, nullptr, nullptr};
        REQUIRE(reference::convert(p).ok());
        auto const f = stacked.view(memory.base());
        // The matrix of request b and head h begins at row (h * batch + b) * query_blocks.
        sets.for_each([&](std::int32_t b, std::int32_t h, std::int32_t m, auto const& list) {
            std::int32_t const* const indptr = f.indptr + (h * axes.batch + b) * axes.query_blocks;
            std::vector<std::int32_t> expected;
            for (std::int32_t const j : list) expected.push_back(j + b * stride);
            CHECK(std::vector<std::int32_t>(f.indices + indptr[m], f.indices + indptr[m + 1]) == expected);
        });
        CHECK(f.indptr[0] == 0);
        CHECK(f.indptr[axes.count()] == sets.entries());
        convert_params<bsr, block_selection_buffer> q{f, back.view(memory.base()), key_blocks, nullptr, nullptr};
        REQUIRE(reference::convert(q).ok());
        block_sets found(axes, key_blocks);
        CHECK(back.read(memory.base(), found));
        CHECK((found == sets));
    }
}

TEST_CASE("convert: BlockMask, one head for all or broadcast to every head", "[reference]") {
    // kv_num_blocks [B, H, Mb], kv_indices [B, H, Mb, Nb]; entries behind the count are 0.
    std::int32_t const B = 2, Mb = 2, Nb = 5;
    std::vector<std::int32_t> blocks{1, 4, 0, 3, -1, -1, 0, 1, 2, -1, -1, -1}, counts{2, 1, 3, 0};
    block_selection s;
    s.blocks = packed_view<std::int32_t const>(blocks.data(), {B, 1, Mb, 3});
    s.counts = packed_view<std::int32_t const>(counts.data(), {B, 1, Mb});
    s.block_size = 128, s.query_block = 128;
    for (std::int64_t const H : {1, 6}) {
        std::vector<std::int32_t> kv_num_blocks(static_cast<std::size_t>(B * H * Mb), -1);
        std::vector<std::int32_t> kv_indices(kv_num_blocks.size() * Nb, -1);
        block_lists_buffer const mask{packed_view(kv_indices.data(), {B, H, Mb, Nb}),
                                      packed_view(kv_num_blocks.data(), {B, H, Mb}), 0};
        convert_params<block_selection, block_lists_buffer> p{s, mask, Nb, nullptr, nullptr};
        REQUIRE(reference::convert(p).ok());
        for (std::int64_t h = 0; h < H; ++h) {
            CHECK(mask.counts(0, h, 0) == 2);
            CHECK(mask.counts(1, h, 1) == 0);
            auto const row = [&](std::int64_t b, std::int64_t m) {
                return std::vector<std::int32_t>(&mask.ids(b, h, m, 0), &mask.ids(b, h, m, 0) + Nb);
            };
            CHECK(row(0, 0) == std::vector<std::int32_t>{1, 4, 0, 0, 0});
            CHECK(row(0, 1) == std::vector<std::int32_t>{3, 0, 0, 0, 0});
            CHECK(row(1, 0) == std::vector<std::int32_t>{0, 1, 2, 0, 0});
            CHECK(row(1, 1) == std::vector<std::int32_t>{0, 0, 0, 0, 0});
        }
    }
    // What PyTorch itself writes behind the count, the ids that are not listed, is not read.
    std::vector<std::int32_t> indices{2, 3, 0, 1, 4}, num{2};
    block_lists const mask{packed_view<std::int32_t const>(indices.data(), {1, 1, 1, Nb}),
                           packed_view<std::int32_t const>(num.data(), {1, 1, 1}), 0};
    std::vector<std::int32_t> to_blocks(2, -1), to_counts(1, -1);
    block_selection_buffer to;
    to.blocks = packed_view(to_blocks.data(), {1, 1, 1, 2});
    to.counts = packed_view(to_counts.data(), {1, 1, 1});
    to.block_size = 128, to.query_block = 128;
    convert_params<block_lists, block_selection_buffer> q{mask, to, Nb, nullptr, nullptr};
    REQUIRE(reference::convert(q).ok());
    CHECK(to_counts[0] == 2);
    CHECK(to_blocks == std::vector<std::int32_t>{2, 3});
}

TEST_CASE("convert: heads of a group get their group's list", "[reference]") {
    list_axes const axes{2, 3, 2};
    block_sets const sets = random_sets(axes, 20, 0.3, 11);
    random_source random(1);
    arena memory;
    stored_selection const lists(memory, axes, 20, sets.longest());
    testing::stored_flags const flags(memory, {2, 12, 2}, 20, 0);
    lists.write(memory.base(), sets, disorder::none, random);
    convert_params<block_selection, block_flags_buffer> p{lists.view(memory.base()), flags.view(memory.base()), 20,
                                                          nullptr, nullptr};
    REQUIRE(reference::convert(p).ok());
    block_sets found({2, 12, 2}, 20);
    CHECK(flags.read(memory.base(), found));
    found.for_each([&](std::int32_t b, std::int32_t h, std::int32_t m, auto const& list) {
        CHECK((list == sets.at(b, h / 4, m)));
    });
}

TEST_CASE("convert: cuDNN's bits", "[reference]") {
    // u8 [B, H, ceil(Sq / 128), ceil(ceil(Skv / 128) / 8)], bit i of byte n for key tile 8 n + i: 300 x 1400 tokens.
    std::int32_t const rows = (300 + 127) / 128, columns = (1400 + 127) / 128, width = (columns + 7) / 8;
    REQUIRE(rows == 3);
    REQUIRE(columns == 11);
    REQUIRE(width == 2);
    std::vector<std::int32_t> blocks{0, 7, 8, 10, 3, -1, -1, -1, -1, -1, -1, -1}, counts{4, 1, 0};
    block_selection s;
    s.blocks = packed_view<std::int32_t const>(blocks.data(), {1, 1, rows, 4});
    s.counts = packed_view<std::int32_t const>(counts.data(), {1, 1, rows});
    s.block_size = 128, s.query_block = 128;
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(rows * width), 0xee);
    convert_params<block_selection, block_bits_buffer> p{
        s, {packed_view(mask.data(), {1, 1, rows, width})}, columns, nullptr, nullptr};
    REQUIRE(reference::convert(p).ok());
    CHECK(mask == std::vector<std::uint8_t>{0x81, 0x05, 0x08, 0x00, 0x00, 0x00});
}

TEST_CASE("convert: SGLang's padded lists", "[reference]") {
    // selected_indices i32 [bs, max_selected] padded with -1, valid_lengths i32 [bs]; one list per request.
    std::int32_t const bs = 3, max_selected = 4;
    std::vector<std::int32_t> blocks{5, 9, 0, 0, 0, 0, 1, 2, 3}, counts{2, 0, 3}, slot{2, 0, -1};
    block_selection s;
    s.blocks = packed_view<std::int32_t const>(blocks.data(), {bs, 1, 1, 3});
    s.counts = packed_view<std::int32_t const>(counts.data(), {bs, 1, 1});
    s.block_size = 64, s.query_block = 1;
    s.list_row = slot.data();  // requests find their lists by slot; the last one is padding
    std::vector<std::int32_t> selected_indices(bs * max_selected, 77), valid_lengths(bs, 77);
    block_lists_buffer const out{packed_view(selected_indices.data(), {bs, 1, 1, max_selected}),
                                 packed_view(valid_lengths.data(), {bs, 1, 1}), -1};
    convert_params<block_selection, block_lists_buffer> p{s, out, 10, nullptr, nullptr};
    REQUIRE(reference::convert(p).ok());
    CHECK(selected_indices == std::vector<std::int32_t>{1, 2, 3, -1, 5, 9, -1, -1, -1, -1, -1, -1});
    CHECK(valid_lengths == std::vector<std::int32_t>{3, 2, 0});

    // And into slots: slot 1 belongs to nobody and is left alone.
    std::vector<std::int32_t> to_blocks(bs * 3, 77), to_counts(bs, 77);
    block_selection_buffer to;
    to.blocks = packed_view(to_blocks.data(), {bs, 1, 1, 3});
    to.counts = packed_view(to_counts.data(), {bs, 1, 1});
    to.block_size = 64, to.query_block = 1, to.list_row = slot.data();
    convert_params<block_lists, block_selection_buffer> q{out, to, 10, nullptr, nullptr};
    REQUIRE(reference::convert(q).ok());
    CHECK(to_counts == std::vector<std::int32_t>{2, 77, 3});
    CHECK(to_blocks == std::vector<std::int32_t>{5, 9, 77, 77, 77, 77, 1, 2, 3});
}

TEST_CASE("convert: a request's length bounds its ids", "[reference]") {
    std::vector<std::int32_t> const lengths{160, 1, 0, -4, 2000};  // 10, 1, 0, 0 and all 30 blocks of 16
    list_axes const axes{5, 1, 2};
    block_sets full(axes, 30);
    for (auto& list : full.lists)
        for (std::int32_t j = 0; j < 30; ++j) list.insert(j);
    random_source random(1);
    arena memory;
    stored_selection const lists(memory, axes, 30, 30);
    testing::stored_bits const bits(memory, axes, 30, 0);
    lists.write(memory.base(), full, disorder::none, random);
    convert_params<block_selection, block_bits_buffer> p{lists.view(memory.base()), bits.view(memory.base()), 30,
                                                         lengths.data(), nullptr};
    REQUIRE(reference::convert(p).ok());
    block_sets found(axes, 30);
    CHECK(bits.read(memory.base(), found));
    std::size_t const expected[] = {10, 1, 0, 0, 30};
    found.for_each([&](std::int32_t b, std::int32_t, std::int32_t, auto const& list) {
        CHECK(list.size() == expected[b]);
        CHECK((list.empty() || *list.rbegin() == static_cast<std::int32_t>(list.size()) - 1));
    });
}

TEST_CASE("convert: what does not fit is cut to the first ids, and reported", "[reference]") {
    list_axes const axes{2, 1, 3};
    block_sets const sets = random_sets(axes, 50, 0.5, 21);
    random_source random(1);
    std::int32_t const longest = sets.longest();
    REQUIRE(longest > 3);
    arena memory;
    stored_selection const lists(memory, axes, 50, longest), small(memory, axes, 50, longest - 3);
    testing::stored_flags const flags(memory, axes, 50, 0);
    testing::stored_bsr const matrix(memory, axes, 50, sets.entries() - 5);
    testing::stored_block_lists const mask(memory, axes, 50, longest - 1);
    testing::poison(memory);
    lists.write(memory.base(), sets, disorder::none, random);
    flags.write(memory.base(), sets, disorder::none, random);
    std::int64_t needed = -1;

    convert_params<block_flags, block_selection_buffer> p{flags.view(memory.base()), small.view(memory.base()), 50,
                                                          nullptr, &needed};
    status s = reference::convert(p);
    CHECK(s.code == errc::out_of_range);
    CHECK(std::string(s.field) == "selection.blocks.extent[3]");
    CHECK(s.value == longest);
    CHECK(needed == longest);
    block_sets found(axes, 50);
    CHECK(small.read(memory.base(), found));
    sets.for_each([&](std::int32_t b, std::int32_t h, std::int32_t m, std::set<std::int32_t> const& list) {
        std::vector<std::int32_t> first(list.begin(), list.end());
        first.resize(std::min(first.size(), static_cast<std::size_t>(longest - 3)));
        CHECK((found.at(b, h, m) == std::set<std::int32_t>(first.begin(), first.end())));
    });

    convert_params<block_selection, bsr_buffer> q{lists.view(memory.base()), matrix.view(memory.base()), 50, nullptr,
                                                  &needed};
    s = reference::convert(q);
    CHECK(std::string(s.field) == "capacity");
    CHECK(needed == sets.entries());
    auto const f = matrix.view(memory.base());
    CHECK(f.indptr[6] == sets.entries() - 5);
    CHECK(f.indices[sets.entries() - 5] == 0x5a5a5a5a);  // nothing behind the capacity
    block_sets cut(axes, 50);
    CHECK(matrix.read(memory.base(), cut));
    std::int64_t left = sets.entries() - 5;
    for (std::int32_t b = 0; b < 2; ++b)
        for (std::int32_t m = 0; m < 3; ++m) {
            std::vector<std::int32_t> first(sets.at(b, 0, m).begin(), sets.at(b, 0, m).end());
            first.resize(std::min(first.size(), static_cast<std::size_t>(left)));
            left -= static_cast<std::int64_t>(first.size());
            CHECK((cut.at(b, 0, m) == std::set<std::int32_t>(first.begin(), first.end())));
        }

    convert_params<block_selection, block_lists_buffer> r{lists.view(memory.base()), mask.view(memory.base()), 50,
                                                          nullptr, nullptr};
    s = reference::convert(r);
    CHECK(std::string(s.field) == "ids.extent[3]");
    CHECK(s.value == longest);
}

// --- Page tables ---

namespace {

struct packed {
    std::int32_t kv_heads, batch, capacity;
    std::vector<std::int32_t> pages, lengths;

    packed(std::int32_t h, std::int32_t b, std::int32_t n)
        : kv_heads(h), batch(b), capacity(n), pages(static_cast<std::size_t>(h * b * n), -77),
          lengths(static_cast<std::size_t>(h * b), -77) {}
    std::vector<std::int32_t> row(std::int32_t h, std::int32_t b, std::int32_t page_size) const {
        std::int32_t const n = (lengths[static_cast<std::size_t>(h * batch + b)] + page_size - 1) / page_size;
        auto const first = pages.begin() + (h * batch + b) * capacity;
        return {first, first + n};
    }
};

template <class T>
pack_pages_params pages_of(attend_params<T> const& a, packed& to) {
    pack_pages_params p;
    p.selection = a.selection;
    p.window = a.window;
    p.kv = a.kv;
    p.page_size = static_cast<std::int32_t>(a.keys.extent[1]);
    p.pages = packed_view(to.pages.data(), {to.kv_heads, to.batch, to.capacity});
    p.lengths = packed_view(to.lengths.data(), {to.kv_heads, to.batch});
    return p;
}

struct decode_case {
    std::int32_t page_size, block_size;
    attention_window window;
    sharing share;
    double density;
    kv_layout layout = kv_layout::block_table;
};

// Attention over the packed tables, dense, head by head, against attention with sinks, window and lists that were
// rounded out to whole pages by hand.
void check_against_attention(decode_case const& c, std::uint64_t seed) {
    INFO("page " << c.page_size << ", block " << c.block_size << ", sinks " << c.window.sinks << ", window "
                 << c.window.recent << ", list heads " << static_cast<int>(c.share) << ", density " << c.density
                 << ", layout " << static_cast<int>(c.layout));
    std::vector<std::int32_t> const keys{1, c.page_size, c.page_size + 1, 0, 250, 3 * c.page_size - 1, 129};
    auto const batch = static_cast<std::int32_t>(keys.size());
    attend_input<bf16> in({.queries = std::vector<std::int32_t>(keys.size(), 1),
                           .keys = keys,
                           .heads = 4,
                           .kv_heads = 2,
                           .layout = c.layout,
                           .page_size = c.page_size,
                           .seed = seed});
    in.add_selection(c.block_size, 64, c.share, 300 / c.block_size + 1, c.density);
    attend_params<bf16> a = in.params();
    a.window = c.window;

    std::int32_t const most = *std::max_element(keys.begin(), keys.end());
    std::int32_t const capacity = packed_pages_bound(a.selection, c.window, c.page_size, most);
    packed tables(2, batch, capacity);
    std::int64_t needed = -1;
    pack_pages_params p = pages_of(a, tables);
    p.needed = &needed;
    status const s = reference::pack_pages(p);
    INFO(s.field << " " << s.rule << " " << s.value);
    REQUIRE(s.ok());
    CHECK(needed == 0);

    // By the definition: pages that hold a sink, a key of the window, or a listed key.
    std::vector<std::int32_t> blocks(static_cast<std::size_t>(batch * 2 * 251)),
        counts(static_cast<std::size_t>(batch * 2));
    block_selection_buffer whole_pages;
    whole_pages.blocks = packed_view(blocks.data(), {batch, 2, 1, 251});
    whole_pages.counts = packed_view(counts.data(), {batch, 2, 1});
    whole_pages.query_block = 1;
    for (std::int32_t b = 0; b < batch; ++b)
        for (std::int32_t h = 0; h < 2; ++h) {
            std::int32_t const n = keys[static_cast<std::size_t>(b)];
            std::set<std::int32_t> seen;
            for (std::int32_t j = 0; j < n; ++j)
                if (j < c.window.sinks || j > n - 1 - c.window.recent) seen.insert(j / c.page_size);
            std::int32_t const list_head = a.selection.list_heads() == 2 ? h : 0;
            for (std::int32_t i = 0; i < a.selection.counts(b, list_head, 0); ++i)
                for (std::int32_t j = 0; j < c.block_size; ++j) {
                    std::int32_t const key = a.selection.blocks(b, list_head, 0, i) * c.block_size + j;
                    if (key < n) seen.insert(key / c.page_size);
                }
            std::vector<std::int32_t> expected;
            std::int32_t length = 0;
            std::int32_t const first =
                c.layout == kv_layout::block_table ? b * static_cast<std::int32_t>(a.kv.table_stride) : a.kv.start[b];
            for (std::int32_t const page : seen) {
                expected.push_back(a.kv.pages[first + page]);
                length += std::min(c.page_size, n - page * c.page_size);
            }
            CHECK(tables.lengths[static_cast<std::size_t>(h * batch + b)] == length);
            CHECK(tables.row(h, b, c.page_size) == expected);
            std::int32_t count = 0;
            // As lists of blocks of a page (or of 8 keys, where pages are not a size of blocks).
            std::int32_t const unit =
                c.page_size % 16 == 0 && c.page_size <= 128 && (c.page_size & (c.page_size - 1)) == 0 ? c.page_size : 8;
            whole_pages.block_size = unit;
            for (std::int32_t const page : seen)
                for (std::int32_t i = 0; i < c.page_size / unit; ++i)
                    if (page * c.page_size + i * unit < n)
                        whole_pages.blocks(b, h, 0, count++) = page * (c.page_size / unit) + i;
            whole_pages.counts(b, h, 0) = count;
        }
    attend_params<bf16> by_lists = a;
    by_lists.selection = whole_pages;
    by_lists.window = {0, 0};
    reference::attend_result exact;
    REQUIRE(reference::attend(by_lists, &exact).ok());

    for (std::int32_t h = 0; h < 2; ++h) {
        attend_params<bf16> dense = in.params();
        dense.selection = {};
        for (auto* const v : {&dense.queries}) v->data += v->offset(0, 0, h * 2), v->extent[2] = 2;
        dense.output.data += dense.output.offset(0, 0, h * 2), dense.output.extent[2] = 2;
        for (auto* const v : {&dense.keys, &dense.values}) v->data += v->offset(0, 0, h), v->extent[2] = 1;
        dense.lse = {};
        dense.kv = {.layout = kv_layout::block_table,
                    .length = tables.lengths.data() + h * batch,
                    .pages = tables.pages.data() + h * batch * capacity,
                    .table_stride = capacity,
                    .max_length = larger(capacity * c.page_size, 1)};
        reference::attend_result packed_result;
        status const run = reference::attend(dense, &packed_result);
        INFO(run.field << " " << run.rule << " " << run.value);
        REQUIRE(run.ok());
        for (std::int32_t b = 0; b < batch; ++b)
            for (std::int32_t g = 0; g < 2; ++g) {
                auto const from = static_cast<std::size_t>(b * 4 + h * 2 + g), to = static_cast<std::size_t>(b * 2 + g);
                CHECK(packed_result.lse[to] == exact.lse[from]);
                CHECK(std::equal(packed_result.output.begin() + static_cast<std::ptrdiff_t>(to * 64),
                                 packed_result.output.begin() + static_cast<std::ptrdiff_t>(to * 64 + 64),
                                 exact.output.begin() + static_cast<std::ptrdiff_t>(from * 64)));
            }
    }
}

}  // namespace

TEST_CASE("pack pages: dense attention over the packed table is sparse attention in whole pages", "[reference]") {
    std::uint64_t seed = 1;
    for (auto const& [page, block] : {std::pair{16, 16}, std::pair{16, 64}, std::pair{64, 16}, std::pair{8, 128},
                                      std::pair{128, 8}, std::pair{48, 16}})
        for (attention_window const window : {attention_window{0, 0}, attention_window{5, 20}, attention_window{16, 1},
                                              attention_window{0, 48}, attention_window{1000, 3}, attention_window{}})
            for (sharing const share : {sharing::per_batch, sharing::per_kv_group})
                check_against_attention({page, block, window, share, seed % 3 == 0 ? 0.0 : 0.3,
                                         seed % 2 ? kv_layout::block_table : kv_layout::page_list},
                                        seed++);
    check_against_attention({16, 16, {16, 16}, sharing::per_kv_group, 1.0}, 3);
}

TEST_CASE("pack pages: disorder, bad ids and bad counts in the lists change nothing", "[reference]") {
    attend_input<bf16> in({.queries = {1, 1},
                           .keys = {300, 170},
                           .heads = 2,
                           .kv_heads = 2,
                           .layout = kv_layout::block_table,
                           .page_size = 16});
    in.add_selection(32, 1, sharing::per_kv_group, 12, 0.0);
    auto const s = in.selection_buffer();
    auto const put = [&](std::vector<std::int32_t> const& ids) {
        for (std::int32_t b = 0; b < 2; ++b)
            for (std::int32_t h = 0; h < 2; ++h) {
                for (std::size_t i = 0; i < ids.size(); ++i) s.blocks(b, h, 0, i) = ids[i];
                s.counts(b, h, 0) = static_cast<std::int32_t>(ids.size());
            }
    };
    attend_params<bf16> a = in.params();
    a.window = {8, 8};
    packed sorted(2, 2, 19), mixed(2, 2, 19);
    put({1, 3, 5});
    REQUIRE(reference::pack_pages(pages_of(a, sorted)).ok());
    put({5, -1, 3, 2147483647, 1, 5, 10, 3, -2147483647 - 1});  // 10: beyond 300 keys, and beyond 170
    REQUIRE(reference::pack_pages(pages_of(a, mixed)).ok());
    CHECK(mixed.pages == sorted.pages);
    CHECK(mixed.lengths == sorted.lengths);
    CHECK(sorted.lengths[0] == 7 * 16 + 12);  // page 0, pages 2-3, 6-7, 10-11, and the last one with 12 keys
    CHECK(sorted.row(0, 0, 16).size() == 8);
    // A count beyond the capacity reads the capacity.
    put({1, 3, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    s.counts(0, 0, 0) = 1 << 30;
    REQUIRE(reference::pack_pages(pages_of(a, mixed)).ok());
    CHECK(mixed.lengths[0] == 8 * 16 + 12);
    // No lists: sinks and window alone.
    a.selection = {};
    REQUIRE(reference::pack_pages(pages_of(a, mixed)).ok());
    CHECK(mixed.lengths[0] == 16 + 12);
}

TEST_CASE("pack pages: a table that is too small keeps the first pages, and says what it needs", "[reference]") {
    attend_input<bf16> in({.queries = {1}, .keys = {100}, .layout = kv_layout::block_table, .page_size = 16});
    attend_params<bf16> a = in.params();  // 7 pages, the last one with 4 keys
    for (std::int32_t const capacity : {0, 1, 6, 7, 9}) {
        packed to(1, 1, capacity);
        to.pages.push_back(-77);
        std::int64_t needed = -1;
        pack_pages_params p = pages_of(a, to);
        p.needed = &needed;
        status const s = reference::pack_pages(p);
        CHECK(s.ok() == (capacity >= 7));
        CHECK(needed == (capacity >= 7 ? 0 : 7));
        CHECK(to.lengths[0] == (capacity >= 7 ? 100 : capacity * 16));
        for (std::int32_t i = 0; i <= capacity; ++i)
            CHECK(to.pages[static_cast<std::size_t>(i)] == (i < std::min(capacity, 7) ? a.kv.pages[i] : -77));
        if (!s) CHECK(std::string(s.field) == "pages.extent[2]");
    }
}
