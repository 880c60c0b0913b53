// attend in bf16: random samples of everything it supports against the oracle, and properties that hold bit for bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "winnow/reference/visible.hpp"

using namespace winnow;
using testing::attend_input;
using testing::device_copy;
using testing::input_shape;

namespace {

using input = attend_input<bf16>;
using params = attend_params<bf16>;

bf16 const not_a_number = from_float<bf16>(std::numeric_limits<float>::quiet_NaN());

auto const as_it_is = [](params&) {};

// Rows of request b by (row, head, channel), whatever the tensors' layout.
std::vector<double> rows_of(input& in, testing::attend_outcome const& r, std::int32_t b) {
    auto const& shape = in.shape();
    std::vector<double> rows;
    std::int64_t first = static_cast<std::int64_t>(b) * shape.queries[0];
    if (shape.ragged_queries) {
        first = 2;  // as attend_input places them
        for (std::int32_t i = 0; i < b; ++i) first += shape.queries[static_cast<std::size_t>(i)];
    }
    std::int64_t const width = static_cast<std::int64_t>(shape.heads) * shape.head_dim;
    auto const count = shape.queries[shape.ragged_queries ? static_cast<std::size_t>(b) : 0];
    rows.insert(rows.end(), r.output.begin() + first * width, r.output.begin() + (first + count) * width);
    rows.insert(rows.end(), r.lse.begin() + first * shape.heads, r.lse.begin() + (first + count) * shape.heads);
    return rows;
}

// Rows per request for each class of tile: one token, several, a chunk that fills large tiles.
std::int32_t const row_counts[] = {1, 30, 150};

// Every part of the mask at once.
void three_parts(params& p) { p.window = {.sinks = 20, .recent = 50}; }

}  // namespace

TEST_CASE("attend bf16: samples, head_dim 64", "[gpu]") { testing::check_samples<bf16>(64, 160); }
TEST_CASE("attend bf16: samples, head_dim 128", "[gpu]") { testing::check_samples<bf16>(128, 160); }
TEST_CASE("attend bf16: samples, head_dim 256", "[gpu]") { testing::check_samples<bf16>(256, 128); }

TEST_CASE("attend bf16: small samples", "[gpu][small]") {
    for (std::int32_t const head_dim : {64, 128, 256}) testing::check_samples<bf16>(head_dim, 8, true);
}

TEST_CASE("attend: lengths 0 and 1, no rows, no requests", "[gpu][small]") {
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list}) {
        input in({.queries = {3, 3, 3}, .keys = {0, 1, 2}, .heads = 2, .layout = layout});
        testing::check_attend(in, as_it_is);
    }
    input rows({.queries = {0, 1, 0}, .keys = {5, 0, 9}, .ragged_queries = true});
    testing::check_attend(rows, as_it_is);
    input in({.queries = {4}, .keys = {40}});
    auto const untouched = testing::run_attend(
        in, [](params& p) { p.queries.extent[1] = p.output.extent[1] = p.lse.values.extent[1] = 0; });
    CHECK(std::all_of(untouched.output.begin(), untouched.output.end(), [](double x) { return std::isnan(x); }));
    auto const nobody = testing::run_attend(in, [](params& p) {
        p.queries.extent[0] = p.output.extent[0] = p.lse.values.extent[0] = p.keys.extent[0] = p.values.extent[0] = 0;
    });
    CHECK(std::all_of(nobody.output.begin(), nobody.output.end(), [](double x) { return std::isnan(x); }));
}

TEST_CASE("attend: a length on every side of a tile's, a split's and a granule's end", "[gpu]") {
    for (std::int32_t const rows : row_counts)
        for (std::int32_t const keys : {7, 8, 9, 15, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513}) {
            input in({.queries = {rows}, .keys = {keys}, .heads = 4, .kv_heads = 2, .spare_keys = 3});
            INFO(rows << " rows, " << keys << " keys");
            testing::check_attend(in, as_it_is);
        }
}

TEST_CASE("attend: every row length up to a few tiles", "[gpu]") {
    for (std::int32_t rows = 1; rows <= 140; rows += rows < 36 ? 1 : 13) {
        input in({.queries = {rows}, .keys = {180}, .heads = 3});
        in.add_selection(16, 32, sharing::per_head, 12, 0.5);
        INFO(rows << " rows");
        testing::check_attend(in, three_parts);
    }
}

TEST_CASE("attend: without an lse", "[gpu][small]") {
    for (std::int32_t const rows : {1, 66}) {
        input in({.queries = {rows}, .keys = {70}, .heads = 4, .head_dim = 128});
        auto const found = testing::run_attend(in, [](params& p) { p.lse = {}; });  // and nothing is written there
        auto const with = testing::run_attend(in, as_it_is);
        CHECK((found.output == with.output));
    }
}

TEST_CASE("attend: layouts, page sizes and orders, NHD and HND agree bit for bit", "[gpu]") {
    for (std::int32_t const rows : row_counts) {
        input_shape const base{
            .queries = {rows, rows, rows}, .keys = {300, 0, 511}, .heads = 6, .kv_heads = 2, .head_dim = 128};
        input plain(base);
        plain.add_selection(32, 16, sharing::per_kv_group, 20, 0.5);
        auto const expected = testing::run_attend(plain, three_parts);
        auto const compare = [&](input_shape const& shape) {
            input in(shape);
            in.add_selection(32, 16, sharing::per_kv_group, 20, 0.5);
            // The lists are drawn after the page order; take the first input's.
            auto const from = plain.selection_buffer(), to = in.selection_buffer();
            std::copy(from.blocks.data, from.blocks.data + from.blocks.size(), to.blocks.data);
            std::copy(from.counts.data, from.counts.data + from.counts.size(), to.counts.data);
            auto const found = testing::run_attend(in, three_parts);
            INFO(rows << " rows, layout " << static_cast<int>(shape.layout) << ", page size " << shape.page_size
                      << ", HND " << shape.head_major << ", ragged rows " << shape.ragged_queries);
            for (std::int32_t b = 0; b < 3; ++b) CHECK((rows_of(in, found, b) == rows_of(plain, expected, b)));
        };
        for (bool const head_major : {false, true})
            for (bool const ragged : {false, true})
                for (auto const layout :
                     {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
                    for (std::int32_t const page : {1, 3, 16, 64}) {
                        bool const paged = layout == kv_layout::block_table || layout == kv_layout::page_list;
                        if (!paged && page != 16) continue;
                        auto shape = base;
                        shape.head_major = head_major, shape.ragged_queries = ragged;
                        shape.layout = layout, shape.page_size = page, shape.spare_keys = 5;
                        shape.lengths = page % 2 == 0;
                        compare(shape);
                    }
    }
}

TEST_CASE("attend: a request alone and in a batch, and run again, gives the same bits", "[gpu]") {
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (bool const ragged : {false, true})
            for (std::int32_t const rows : row_counts) {
                input in({.queries = ragged ? std::vector<std::int32_t>{rows, 0, 1, rows}
                                            : std::vector<std::int32_t>{rows, rows, rows, rows},
                          .keys = {700, 90, 0, 331},
                          .heads = 8,
                          .kv_heads = 2,
                          .layout = layout,
                          .ragged_queries = ragged});
                in.add_selection(16, 16, sharing::per_batch, 30, 0.4);
                INFO("layout " << static_cast<int>(layout) << ", ragged rows " << ragged << ", " << rows << " rows");
                auto const together = testing::run_attend(in, three_parts);
                CHECK((testing::run_attend(in, three_parts).bytes == together.bytes));
                device_copy<bf16> memory(in);
                for (std::int32_t b = 0; b < 4; ++b) {
                    auto p = memory.params();
                    three_parts(p);
                    testing::run_on_device(testing::only_request(p, b));
                }
                CHECK((memory.download() == together.bytes));
            }
}

TEST_CASE("attend: a list of everything gives dense attention", "[gpu]") {
    for (std::int32_t const block : {8, 16, 32, 64, 128})
        for (std::int32_t const rows : row_counts) {
            input in({.queries = {rows, rows}, .keys = {600, 411}, .heads = 4, .kv_heads = 2, .head_dim = 128});
            auto const dense = testing::expect_attend(in, as_it_is);
            in.add_selection(block, 64, sharing::per_kv_group, ceil_div(600, block), 1.1);
            INFO("blocks of " << block << ", " << rows << " rows");
            for (attention_window const window : {attention_window{0, 0}, attention_window{10, 37}}) {
                auto const found = testing::run_attend(in, [&](params& p) { p.window = window; });
                testing::check_close<bf16>(found.output, found.lse, dense);
            }
        }
}

TEST_CASE("attend: NaN in keys that nobody sees changes nothing", "[gpu][small]") {
    for (std::int32_t const rows : {1, 21, 66}) {
        input in({.queries = {rows}, .keys = {190}, .heads = 2, .layout = kv_layout::block_table, .page_size = 16});
        in.add_selection(16, 64, sharing::per_batch, 12, 0.4);
        // Only the blocks between sinks and window are left out, and what lies before the first row's window end.
        auto const set = [](params& p) { p.window = {.sinks = 9, .recent = 20}; };
        auto const clean = testing::run_attend(in, set);
        auto p = in.params();
        set(p);
        std::vector<bool> seen(190, false);
        for (std::int32_t row = 0; row < rows; ++row) {
            std::vector<std::int32_t> keys;
            reference::visible_keys(p, reference::request_of_params(p, 0), 0, 0, row, keys);
            for (auto const j : keys) seen[static_cast<std::size_t>(j)] = true;
        }
        std::int32_t spoilt = 0;
        for (std::int32_t j = 0; j < 190; ++j) {
            if (seen[static_cast<std::size_t>(j)]) continue;
            ++spoilt;
            for (std::int32_t c = 0; c < 64; ++c) in.key(0, j, 0, c) = in.value(0, j, 0, c) = not_a_number;
        }
        CHECK(spoilt > 20);
        auto const found = testing::run_attend(in, set);
        CHECK((found.output == clean.output));
        CHECK((found.lse == clean.lse));
    }
}

TEST_CASE("attend: without a window nothing between the rows is read", "[gpu][small]") {
    for (std::int32_t const rows : {1, 4, 40, 130}) {
        input in({.queries = {rows}, .keys = {rows + 28}, .heads = 2});
        in.add_selection(8, 128, sharing::per_batch, 3, 1.1);  // blocks 0, 1 and 2
        auto const set = [](params& p) { p.window = {.sinks = 0, .recent = 0}; };
        for (std::int32_t j = 24; j < rows + 28; ++j)
            for (std::int32_t c = 0; c < 64; ++c) in.key(0, j, 0, c) = in.value(0, j, 0, c) = not_a_number;
        testing::check_attend(in, set);
    }
}

TEST_CASE("attend: NaN that is seen reaches the rows that see it, and no others", "[gpu]") {
    for (std::int32_t const rows : row_counts) {
        input in({.queries = {rows, rows}, .keys = {600, 600}, .heads = 2});
        // Half of the rows (or the only one) see key `at` of request 0; request 1 does not.
        std::int32_t const at = 600 - 1 - rows / 2;
        in.key(0, at, 0, 5) = not_a_number;
        testing::check_attend(in, as_it_is);
        // Nor do rows whose window has passed it.
        testing::check_attend(in, [&](params& p) { p.window = {.sinks = 3, .recent = larger(rows / 4, 1)}; });
        in.query(0, 0, 1, 3) = not_a_number;
        testing::check_attend(in, as_it_is);
    }
}

TEST_CASE("attend: bad block ids and counts are ignored", "[gpu][small]") {
    for (std::int32_t const rows : {1, 40}) {
        input in({.queries = {rows}, .keys = {130}, .heads = 2, .layout = kv_layout::ragged});
        in.add_selection(8, 16, sharing::per_head, 17, 0.5);
        auto const lists = in.selection_buffer();
        std::int32_t const bad[] = {-1, std::numeric_limits<std::int32_t>::min(), 17, 1 << 20,
                                    std::numeric_limits<std::int32_t>::max()};
        for (std::int64_t m = 0; m < lists.blocks.extent[2]; ++m) {
            for (std::int32_t i = 0; i < 5; ++i) lists.blocks(0, 0, m, 2 * i) = bad[i];
            lists.counts(0, 0, m) = 10;
        }
        testing::check_attend(in, three_parts);
        // A negative count is none; one beyond the capacity ends there.
        for (std::int64_t m = 0; m < lists.blocks.extent[2]; ++m) {
            for (std::int32_t i = 0; i < 17; ++i) lists.blocks(0, 1, m, i) = i;
            lists.counts(0, 0, m) = -3, lists.counts(0, 1, m) = 1000;
        }
        testing::check_attend(in, three_parts);
    }
}

TEST_CASE("attend: bad page ids read as zeros", "[gpu][small]") {
    for (auto const layout : {kv_layout::block_table, kv_layout::page_list})
        for (std::int32_t const rows : {1, 40})
            for (std::int32_t const page : {1, 16}) {  // on Hopper keys one by one, and eight by eight
                input in({.queries = {rows}, .keys = {100}, .heads = 2, .layout = layout, .page_size = page});
                in.pages()[0] = -1;
                in.pages()[2] = std::numeric_limits<std::int32_t>::max();
                in.pages()[4] = static_cast<std::int32_t>(in.params().keys.extent[0]);  // one past the last page
                in.pages()[6] = std::numeric_limits<std::int32_t>::min();
                testing::check_attend(in, as_it_is);
            }
}

TEST_CASE("attend: lengths out of range are clamped", "[gpu][small]") {
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list}) {
        input in({.queries = {5, 5}, .keys = {100, 30}, .layout = layout});
        in.key_lengths()[0] = std::numeric_limits<std::int32_t>::max();
        in.key_lengths()[1] = -4;
        INFO("layout " << static_cast<int>(layout));
        testing::check_attend(in, as_it_is);
    }
}

TEST_CASE("attend: lists found by row, as a decode cache gives them", "[gpu]") {
    for (std::int32_t const rows : {1, 30}) {
        input in({.queries = {rows, rows, rows}, .keys = {400, 300, 200}, .heads = 4, .kv_heads = 2});
        in.add_selection(16, 16, sharing::per_kv_group, 25, 0.3);
        std::vector<std::int32_t> const order = {2, -1, 0};  // the second request has no list
        testing::device_memory device_order(order.size() * 4);
        device_order.upload(order.data(), order.size() * 4);
        auto const found = testing::run_attend(in, [&](params& p) {
            three_parts(p);
            p.selection.list_row = device_order.as<std::int32_t>();
        });
        auto const expected = testing::expect_attend(in, [&](params& p) {
            three_parts(p);
            p.selection.list_row = order.data();
        });
        testing::check_close<bf16>(found.output, found.lse, expected);
    }
}

TEST_CASE("attend: strides of every kind", "[gpu]") {
    // Queries, keys and values as slices of one [row, 8 heads, 72 channels] tensor, heads in reverse order for the
    // keys; output in the place of the queries' neighbours; lse head by head.
    for (std::int32_t const rows : row_counts) {
        std::int64_t const tokens = 200, width = 8 * 72;
        input in({.queries = {rows}, .keys = {200}, .heads = 4, .kv_heads = 2});
        auto const host = in.params();
        std::vector<bf16> fused(static_cast<std::size_t>(tokens * width * 2), not_a_number);
        auto const copy = [&](tensor_view<bf16 const, 4> const& from, std::int64_t head, std::int64_t step) {
            for (std::int64_t t = 0; t < from.extent[1]; ++t)
                for (std::int64_t h = 0; h < from.extent[2]; ++h)
                    for (std::int64_t c = 0; c < 64; ++c)
                        fused[static_cast<std::size_t>(t * width + (head + h * step) * 72 + c)] = from(0, t, h, c);
        };
        copy(host.queries, 0, 1), copy(host.keys, 5, -1), copy(host.values, 6, 1);
        testing::device_memory device(fused.size() * sizeof(bf16));
        device.upload(fused.data(), device.size());
        testing::device_memory lse(static_cast<std::size_t>(rows) * 4 * sizeof(float));
        auto p = in.params(device.data());  // for all but the tensors
        auto const slice = [&](auto& view, std::int64_t offset, std::int64_t step) {
            view.data = device.as<bf16>() + offset;
            view.stride[0] = 8;  // extent 1: never used
            view.stride[1] = width, view.stride[2] = step * 72, view.stride[3] = 1;
        };
        slice(p.queries, 0, 1), slice(p.keys, 5 * 72, -1), slice(p.values, 6 * 72, 1);
        slice(p.output, tokens * width + 8, 2);
        p.lse.values.data = lse.as<float>();
        p.lse.values.stride[1] = 1, p.lse.values.stride[2] = rows;
        p.kv = {};  // contiguous, all 200 keys
        testing::run_on_device(p);
        auto const after = device.download<bf16>();
        auto const lses = lse.download<float>();
        auto const packed = testing::run_attend(in, as_it_is);
        std::size_t outside = 0;
        for (std::size_t i = 0; i < after.size(); ++i) {
            auto const at = static_cast<std::int64_t>(i) - tokens * width - 8;
            std::int64_t const t = at / width, h = at % width / 144, c = at % 144;
            if (at >= 0 && t < rows && h < 4 && c < 64) {
                auto const n = static_cast<std::size_t>((t * 4 + h) * 64 + c);
                REQUIRE(static_cast<double>(to_float(after[i])) == packed.output[n]);
            } else {
                outside += after[i].bits != fused[i].bits;
            }
        }
        CHECK(outside == 0);
        for (std::int32_t t = 0; t < rows; ++t)
            for (std::int32_t h = 0; h < 4; ++h)
                REQUIRE(static_cast<double>(lses[static_cast<std::size_t>(h * rows + t)]) ==
                        packed.lse[static_cast<std::size_t>(t * 4 + h)]);
    }
}

TEST_CASE("attend: rows of a request in two calls are the rows of one", "[gpu]") {
    // Both calls together write what one writes, within rounding: row classes may differ.
    input in({.queries = {90, 40}, .keys = {500, 380}, .heads = 4, .kv_heads = 2, .ragged_queries = true});
    in.add_selection(16, 32, sharing::per_kv_group, 20, 0.5);
    for (std::int32_t const tail : {1, 33, 64, 200}) {
        device_copy<bf16> memory(in);
        for (auto const range : {row_range::without_tail, row_range::tail_only}) {
            auto p = memory.params();
            three_parts(p);
            p.range = range, p.tail = tail;
            testing::run_on_device(p);
        }
        auto bytes = memory.download();
        INFO("tail " << tail);
        testing::check_close<bf16>(in.output(bytes.data()), in.lse(bytes.data()),
                                   testing::expect_attend(in, three_parts));
    }
}

TEST_CASE("attend: large scores", "[gpu]") {
    // Scores near +-1000: softmax is nearly one-hot, and nothing overflows on the way.
    for (std::int32_t const rows : row_counts) {
        input in({.queries = {rows}, .keys = {333}, .heads = 2, .values = testing::draw::integers});
        testing::check_attend(in, [](params& p) { p.scale = 2; });
        testing::check_attend(in, [](params& p) { p.scale = 2, p.soft_cap = 50; });
    }
}

TEST_CASE("attend: soft caps from tight to so wide that they do nothing", "[gpu]") {
    for (std::int32_t const rows : row_counts)
        for (float const cap : {0.01f, 1.0f, 30.0f, 1e3f, 1e5f, 1e8f, 1e30f}) {
            input in({.queries = {rows}, .keys = {333}, .heads = 2});
            INFO(rows << " rows, cap " << cap);
            testing::check_attend(in, [&](params& p) { p.soft_cap = cap; });
        }
}
