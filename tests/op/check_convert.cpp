// Bad input of conversions and of packed page tables: every rule of check.
#include <cstdint>
#include <limits>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "winnow/op/convert.hpp"
#include "winnow/reference/convert.hpp"

using namespace winnow;

namespace {

template <class T>
T* shifted(T* p) {
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + 1);
}

constexpr std::int64_t beyond = max_tokens + 1;

// Two requests, two list heads, three query blocks, five entries, 21 key blocks.
struct memory {
    std::vector<std::int32_t> blocks = std::vector<std::int32_t>(2 * 2 * 3 * 5), counts = std::vector<std::int32_t>(12);
    std::vector<std::int32_t> ids = std::vector<std::int32_t>(2 * 2 * 3 * 21, -5);
    std::vector<std::int32_t> id_counts = std::vector<std::int32_t>(12, -5), indptr = std::vector<std::int32_t>(13, -5);
    std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(2 * 2 * 3 * 21, 77);
    std::int64_t needed = -5;

    block_selection_buffer selection() {
        block_selection_buffer s;
        s.blocks = packed_view(blocks.data(), {2, 2, 3, 5});
        s.counts = packed_view(counts.data(), {2, 2, 3});
        s.block_size = 16, s.query_block = 64;
        return s;
    }
    bsr_buffer matrix() { return {indptr.data(), ids.data(), 60, {2, 2, 3}, 0}; }
    block_lists_buffer lists() {
        return {packed_view(ids.data(), {2, 2, 3, 21}), packed_view(id_counts.data(), {2, 2, 3}), 0};
    }
    block_bits_buffer bits() { return {packed_view(bytes.data(), {2, 2, 3, 3})}; }
    block_flags_buffer flags() { return {packed_view(bytes.data(), {2, 2, 3, 21})}; }
};

template <class To>
convert_params<block_selection, To> from_selection(memory& m, To to) {
    return {m.selection(), to, 21, nullptr, &m.needed};
}
template <class From>
convert_params<From, block_selection_buffer> to_selection(memory& m, From from) {
    return {from, m.selection(), 21, nullptr, &m.needed};
}

auto const checked = [](auto const& p) { return check(p); };

}  // namespace

TEST_CASE("check convert: the selection and what all formats share", "[op]") {
    memory m;
    std::int32_t const row[2] = {1, 0};
    using params = convert_params<block_selection, block_lists_buffer>;
    testing::require_statuses(
        from_selection(m, m.lists()),
        std::vector<testing::bad_input<params>>{
            {[](params& p) { p.key_blocks = -1; }, errc::out_of_range, "key_blocks", -1},
            {[](params& p) { p.key_blocks = 1 << 28; }, errc::out_of_range, "key_blocks", 1 << 28},
            {[](params& p) { p.from.block_size = 0; }, errc::unsupported, "selection.block_size", 0},
            {[](params& p) { p.from.block_size = 24; }, errc::unsupported, "selection.block_size", 24},
            {[](params& p) { p.from.query_block = 0; }, errc::out_of_range, "selection.query_block", 0},
            {[](params& p) { p.from.blocks.extent[0] = -1; }, errc::bad_extent, "selection.blocks.extent", -1},
            {[](params& p) { p.from.blocks.extent[1] = 0; }, errc::bad_extent, "selection.blocks.extent", 0},
            {[](params& p) { p.from.blocks.extent[2] = beyond; }, errc::bad_extent, "selection.blocks.extent", beyond},
            {[](params& p) { p.from.blocks.stride[3] = 2; }, errc::bad_stride, "selection.blocks.stride[3]", 2},
            {[](params& p) { p.from.counts.extent[2] = 4; }, errc::bad_extent, "selection.counts.extent", 4},
            {[](params& p) { p.from.blocks.data = nullptr; }, errc::null_pointer, "selection.blocks.data", 0},
            {[](params& p) { p.from.counts.data = nullptr; }, errc::null_pointer, "selection.counts.data", 0},
            {[](params& p) { p.from.counts.data = shifted(p.from.counts.data); }, errc::misaligned,
             "selection.counts.data", 1},
            {[&](params& p) { p.from.list_row = shifted(row); }, errc::misaligned, "selection.list_row", 1},
            {[](params& p) { p.to.ids.extent[0] = p.to.counts.extent[0] = 3; }, errc::bad_extent, "batch", 3},
            {[](params& p) { p.to.ids.extent[1] = p.to.counts.extent[1] = 3; }, errc::bad_extent, "heads", 3},
            {[](params& p) { p.to.ids.extent[1] = p.to.counts.extent[1] = 1; }, errc::bad_extent, "heads", 1},
            {[](params& p) { p.to.ids.extent[2] = p.to.counts.extent[2] = 4; }, errc::bad_extent,
             "selection.blocks.extent[2]", 3},
            {[](params& p) {
                 p.from.list_row = p.from.counts.data;
                 p.to.ids.extent[0] = p.to.counts.extent[0] = 1 << 30;
             },
             errc::unsupported, "lists", std::int64_t{1} << 31},
            {[](params& p) { p.key_length = shifted(p.from.counts.data); }, errc::misaligned, "key_length", 1},
            {[](params& p) { p.needed = shifted(p.needed); }, errc::misaligned, "needed", 1},
            // What is written
            {[](params& p) { p.to.ids.extent[3] = -1; }, errc::bad_extent, "ids.extent", -1},
            {[](params& p) { p.to.ids.stride[3] = 7; }, errc::bad_stride, "ids.stride[3]", 7},
            {[](params& p) { p.to.ids.stride[0] = 0; }, errc::bad_stride, "ids.stride", 0},
            {[](params& p) { p.to.ids.data = nullptr; }, errc::null_pointer, "ids.data", 0},
            {[](params& p) { p.to.counts.extent[1] = 4; }, errc::bad_extent, "counts.extent", 4},
            {[](params& p) { p.to.counts.data = shifted(p.to.counts.data); }, errc::misaligned, "counts.data", 1},
            {[](params& p) { p.to.counts.stride[2] = 0; }, errc::bad_stride, "counts.stride", 0},
        },
        checked);
}

TEST_CASE("check convert: a selection that is written", "[op]") {
    memory m;
    std::int32_t const row[2] = {1, 0};
    using params = convert_params<block_lists, block_selection_buffer>;
    testing::require_statuses(
        to_selection<block_lists>(m, m.lists()),
        std::vector<testing::bad_input<params>>{
            {[](params& p) { p.to.block_size = 0; }, errc::unsupported, "selection.block_size", 0},
            {[](params& p) { p.to.blocks.stride[1] = 0; }, errc::bad_stride, "selection.blocks.stride", 0},
            {[](params& p) { p.to.counts.stride[0] = 0; }, errc::bad_stride, "selection.counts.stride", 0},
            {[](params& p) { p.to.blocks.extent[2] = p.to.counts.extent[2] = 2; }, errc::bad_extent,
             "selection.blocks.extent[2]", 2},
            {[](params& p) { p.from.ids.extent[0] = p.from.counts.extent[0] = 1; }, errc::bad_extent, "batch", 2},
        },
        checked);
    // Lists of one head serve several; a slot for each request makes the batch that of the other side.
    auto p = to_selection<block_lists>(m, m.lists());
    p.from.ids.extent[1] = p.from.counts.extent[1] = 1;
    CHECK(check(p).ok());
    p.to.list_row = row;
    p.from.ids.extent[0] = p.from.counts.extent[0] = 1;
    CHECK(check(p).ok());
    // Both sides by slot: nobody knows how many requests there are.
    convert_params<block_selection, block_selection_buffer> both{m.selection(), m.selection(), 21, nullptr, nullptr};
    CHECK(check(both).ok());
    both.from.list_row = both.to.list_row = row;
    CHECK(std::string(check(both).field) == "selection.list_row");
}

TEST_CASE("check convert: BSR, bits and flags", "[op]") {
    memory m;
    using compressed = convert_params<block_selection, bsr_buffer>;
    testing::require_statuses(
        from_selection(m, m.matrix()),
        std::vector<testing::bad_input<compressed>>{
            {[](compressed& p) { p.to.axes.batch = -1; }, errc::bad_extent, "axes.batch", -1},
            {[](compressed& p) { p.to.axes.heads = 0; }, errc::bad_extent, "axes.heads", 0},
            {[](compressed& p) { p.to.axes.query_blocks = -2; }, errc::bad_extent, "axes.query_blocks", -2},
            {[](compressed& p) { p.to.axes.query_blocks = 4; }, errc::bad_extent, "selection.blocks.extent[2]", 3},
            {[](compressed& p) { p.to.axes.batch = 1; }, errc::bad_extent, "batch", 1},
            {[](compressed& p) { p.to.capacity = -1; }, errc::out_of_range, "capacity", -1},
            {[](compressed& p) { p.to.capacity = std::int64_t{1} << 31; }, errc::out_of_range, "capacity",
             std::int64_t{1} << 31},
            {[](compressed& p) { p.to.column_stride = 20; }, errc::out_of_range, "column_stride", 20},
            {[](compressed& p) { p.to.column_stride = 1 << 30; }, errc::out_of_range, "column_stride", 1 << 30},
            {[](compressed& p) { p.to.indptr = nullptr; }, errc::null_pointer, "indptr", 0},
            {[](compressed& p) { p.to.indices = nullptr; }, errc::null_pointer, "indices", 0},
            {[](compressed& p) { p.to.indices = shifted(p.to.indices); }, errc::misaligned, "indices", 1},
        },
        checked);
    using packed = convert_params<block_selection, block_bits_buffer>;
    testing::require_statuses(
        from_selection(m, m.bits()),
        std::vector<testing::bad_input<packed>>{
            {[](packed& p) { p.to.bytes.extent[3] = 21; }, errc::bad_extent, "bytes.extent[3]", 21},
            {[](packed& p) { p.to.bytes.stride[3] = 2; }, errc::bad_stride, "bytes.stride[3]", 2},
            {[](packed& p) { p.to.bytes.stride[1] = 0; }, errc::bad_stride, "bytes.stride", 0},
            {[](packed& p) { p.to.bytes.extent[1] = -1; }, errc::bad_extent, "bytes.extent", -1},
            {[](packed& p) { p.to.bytes.data = nullptr; }, errc::null_pointer, "bytes.data", 0},
        },
        checked);
    using bools = convert_params<block_flags, block_selection_buffer>;
    testing::require_statuses(
        to_selection<block_flags>(m, m.flags()),
        std::vector<testing::bad_input<bools>>{
            {[](bools& p) { p.from.flags.extent[3] = 20; }, errc::bad_extent, "flags.extent[3]", 20},
            {[](bools& p) { p.from.flags.stride[3] = 2; }, errc::bad_stride, "flags.stride[3]", 2},
            {[](bools& p) { p.from.flags.extent[0] = -1; }, errc::bad_extent, "flags.extent", -1},
            {[](bools& p) { p.from.flags.data = nullptr; }, errc::null_pointer, "flags.data", 0},
        },
        checked);
    // What is read may name one element many times.
    auto p = to_selection<block_flags>(m, m.flags());
    p.from.flags.stride[1] = 0;
    CHECK(check(p).ok());
    // No lists need no memory.
    auto none = from_selection(m, m.flags());
    none.from.blocks.extent[2] = none.from.counts.extent[2] = none.to.flags.extent[2] = 0;
    none.from.blocks.data = nullptr, none.from.counts.data = nullptr, none.to.flags.data = nullptr;
    CHECK(check(none).ok());
}

namespace {

struct page_memory {
    std::vector<std::int32_t> blocks = std::vector<std::int32_t>(2 * 3 * 4), counts = std::vector<std::int32_t>(6);
    std::vector<std::int32_t> table = std::vector<std::int32_t>(2 * 7), length = {50, 100};
    std::vector<std::int32_t> pages = std::vector<std::int32_t>(3 * 2 * 7, -5),
                              lengths = std::vector<std::int32_t>(6, -5);
    std::int64_t needed = -5;

    pack_pages_params view() {
        pack_pages_params p;
        p.selection.blocks = packed_view<std::int32_t const>(blocks.data(), {2, 3, 1, 4});
        p.selection.counts = packed_view<std::int32_t const>(counts.data(), {2, 3, 1});
        p.selection.block_size = 32, p.selection.query_block = 64;
        p.window = {16, 16};
        p.kv = {.layout = kv_layout::block_table,
                .length = length.data(),
                .pages = table.data(),
                .table_stride = 7,
                .max_length = 112};
        p.page_size = 16;
        p.pages = packed_view(pages.data(), {3, 2, 7});
        p.lengths = packed_view(lengths.data(), {3, 2});
        p.needed = &needed;
        return p;
    }
};

}  // namespace

TEST_CASE("check pack_pages: every rule", "[op]") {
    page_memory m;
    using params = pack_pages_params;
    testing::require_statuses(
        m.view(),
        std::vector<testing::bad_input<params>>{
            {[](params& p) { p.page_size = 0; }, errc::out_of_range, "page_size", 0},
            {[](params& p) { p.page_size = 24; }, errc::unsupported, "page_size", 24},
            {[](params& p) { p.page_size = 48; }, errc::unsupported, "page_size", 48},
            {[](params& p) { p.pages.extent[0] = 0; }, errc::bad_extent, "pages.extent[0]", 0},
            {[](params& p) { p.pages.extent[1] = 65536; }, errc::bad_extent, "pages.extent[1]", 65536},
            {[](params& p) { p.pages.extent[2] = -1; }, errc::bad_extent, "pages.extent[2]", -1},
            {[](params& p) { p.pages.stride[2] = 2; }, errc::bad_stride, "pages.stride[2]", 2},
            {[](params& p) { p.pages.stride[0] = 0; }, errc::bad_stride, "pages.stride", 0},
            {[](params& p) { p.pages.data = nullptr; }, errc::null_pointer, "pages.data", 0},
            {[](params& p) { p.lengths.extent[1] = 3; }, errc::bad_extent, "lengths.extent", 3},
            {[](params& p) { p.lengths.stride[1] = 0; }, errc::bad_stride, "lengths.stride", 0},
            {[](params& p) { p.lengths.data = nullptr; }, errc::null_pointer, "lengths.data", 0},
            {[](params& p) { p.kv.layout = kv_layout::contiguous; }, errc::unsupported, "kv.layout", 0},
            {[](params& p) { p.kv.layout = kv_layout::ragged; }, errc::unsupported, "kv.layout", 1},
            {[](params& p) { p.kv.layout = static_cast<kv_layout>(9); }, errc::unsupported, "kv.layout", 9},
            {[](params& p) { p.kv.pages = nullptr; }, errc::null_pointer, "kv.pages", 0},
            {[](params& p) { p.kv.length = nullptr; }, errc::null_pointer, "kv.length", 0},
            {[](params& p) { p.kv.table_stride = 6; }, errc::out_of_range, "kv.table_stride", 6},
            {[](params& p) { p.kv.max_length = 0; }, errc::out_of_range, "kv.max_length", 0},
            {[](params& p) { p.window.sinks = -1; }, errc::out_of_range, "window.sinks", -1},
            {[](params& p) { p.window.recent = -1; }, errc::out_of_range, "window.recent", -1},
            {[](params& p) { p.selection.block_size = 0; }, errc::unsupported, "selection.block_size", 0},
            {[](params& p) { p.selection.blocks.extent[1] = p.selection.counts.extent[1] = 2; }, errc::bad_extent,
             "selection.blocks.extent[1]", 2},
            {[](params& p) { p.selection.blocks.extent[0] = p.selection.counts.extent[0] = 3; }, errc::bad_extent,
             "selection.blocks.extent[0]", 3},
            {[](params& p) { p.selection.blocks.data = nullptr; }, errc::null_pointer, "selection.blocks.data", 0},
            {[](params& p) { p.needed = shifted(p.needed); }, errc::misaligned, "needed", 1},
        },
        checked);
    params p = m.view();
    p.selection = {};
    p.page_size = 24;  // no lists, no rule
    CHECK(check(p).ok());
}

TEST_CASE("check convert: a failed call writes nothing; plans carry the verdict and need no workspace", "[op]") {
    memory m;
    auto p = from_selection(m, m.lists());
    CHECK(plan(p, device_info{}));
    CHECK(plan(p, device_info{}).workspace_bytes == 0);
    p.to.ids.extent[1] = p.to.counts.extent[1] = 3;
    CHECK_FALSE(plan(p, device_info{}));
    CHECK_FALSE(reference::convert(p).ok());
    CHECK(m.ids == std::vector<std::int32_t>(2 * 2 * 3 * 21, -5));
    CHECK(m.id_counts == std::vector<std::int32_t>(12, -5));
    auto compressed = from_selection(m, m.matrix());
    compressed.to.column_stride = 1;
    CHECK_FALSE(reference::convert(compressed).ok());
    CHECK(m.indptr == std::vector<std::int32_t>(13, -5));
    CHECK(m.needed == -5);

    page_memory pages;
    CHECK(plan(pages.view(), device_info{}));
    auto bad = pages.view();
    bad.page_size = 24;
    CHECK_FALSE(plan(bad, device_info{}));
    CHECK_FALSE(reference::pack_pages(bad).ok());
    CHECK(pages.pages == std::vector<std::int32_t>(42, -5));
    CHECK(pages.lengths == std::vector<std::int32_t>(6, -5));
    CHECK(pages.needed == -5);
}
