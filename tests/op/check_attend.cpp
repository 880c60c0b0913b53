// Bad input of attend: every rule of check, and plans.
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/reference/attend.hpp"

using namespace winnow;

namespace {

using params = attend_params<bf16>;
using row = testing::bad_input<params>;
constexpr std::int64_t too_long = max_tokens + 1;

testing::attend_input<bf16> input_of(kv_layout layout, bool ragged_queries = false) {
    testing::attend_input<bf16> input({.queries = {5, 5},
                                       .keys = {40, 23},
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .layout = layout,
                                       .page_size = 8,
                                       .ragged_queries = ragged_queries});
    input.add_selection(8, 16, sharing::per_kv_group, 4, 0.5);
    return input;
}

params with_window(params p) {
    p.window = {4, 8};
    return p;
}

status run(params const& p) { return check(p); }

template <class T>
T* shifted(T* p, std::uintptr_t bytes = 2) {
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + bytes);
}

float const base_frequency[32] = {};

// What no C++ program writes, but a binding passes through a cast.
template <class Enum>
void set_enum(Enum& e, std::int32_t value) {
    e = static_cast<Enum>(value);
}

}  // namespace

TEST_CASE("check attend: tensors", "[op]") {
    auto input = input_of(kv_layout::contiguous);
    testing::require_statuses(
        with_window(input.params()),
        std::vector<row>{
            {[](params& p) { p.queries.extent[1] = -1; }, errc::bad_extent, "queries.extent", -1},
            {[](params& p) { p.queries.extent[2] = too_long; }, errc::bad_extent, "queries.extent", too_long},
            {[](params& p) { p.keys.extent[1] = -2; }, errc::bad_extent, "keys.extent", -2},
            {[](params& p) { p.keys.extent[0] = too_long; }, errc::bad_extent, "keys.extent", too_long},
            {[](params& p) { p.queries.extent[3] = 96; }, errc::unsupported, "queries.extent[3]", 96},
            {[](params& p) { p.queries.extent[3] = 0; }, errc::unsupported, "queries.extent[3]", 0},
            {[](params& p) { p.keys.extent[3] = 128; }, errc::bad_extent, "keys.extent[3]", 128},
            {[](params& p) { p.keys.extent[2] = 0; }, errc::bad_extent, "keys.extent[2]", 0},
            {[](params& p) { p.queries.extent[2] = 5; }, errc::bad_extent, "queries.extent[2]", 5},
            {[](params& p) { p.queries.extent[2] = 0; }, errc::bad_extent, "queries.extent[2]", 0},
            {[](params& p) { p.queries.data = nullptr; }, errc::null_pointer, "queries.data", 0},
            {[](params& p) { p.queries.stride[3] = 2; }, errc::bad_stride, "queries.stride[3]", 2},
            {[](params& p) { p.queries.stride[1] = 260; }, errc::misaligned, "queries.stride", 260},
            {[](params& p) { p.queries.data = shifted(p.queries.data); }, errc::misaligned, "queries.data", 2},
            {[](params& p) { p.keys.data = nullptr; }, errc::null_pointer, "keys.data", 0},
            {[](params& p) { p.keys.stride[3] = 0; }, errc::bad_stride, "keys.stride[3]", 0},
            {[](params& p) { p.keys.stride[0] = -4; }, errc::misaligned, "keys.stride", -4},
            {[](params& p) { p.keys.data = shifted(p.keys.data); }, errc::misaligned, "keys.data", 2},
            {[](params& p) { p.values.data = nullptr; }, errc::null_pointer, "values.data", 0},
            {[](params& p) { p.values.stride[3] = 64; }, errc::bad_stride, "values.stride[3]", 64},
            {[](params& p) { p.values.stride[2] = 65; }, errc::misaligned, "values.stride", 65},
            {[](params& p) { p.values.data = shifted(p.values.data); }, errc::misaligned, "values.data", 2},
            {[](params& p) { p.values.extent[1] = 39; }, errc::bad_extent, "values.extent", 39},
            {[](params& p) { p.output.extent[1] = 4; }, errc::bad_extent, "output.extent", 4},
            {[](params& p) { p.output.data = nullptr; }, errc::null_pointer, "output.data", 0},
            {[](params& p) { p.output.stride[3] = 2; }, errc::bad_stride, "output.stride[3]", 2},
            {[](params& p) { p.output.stride[2] = 68; }, errc::misaligned, "output.stride", 68},
            {[](params& p) { p.output.data = shifted(p.output.data); }, errc::misaligned, "output.data", 2},
            {[](params& p) { p.output.stride[1] = 0; }, errc::bad_stride, "output.stride", 0},
            {[](params& p) { p.lse.values.extent[2] = 3; }, errc::bad_extent, "lse.values.extent", 3},
            {[](params& p) { p.lse.values.data = shifted(p.lse.values.data); }, errc::misaligned, "lse.values.data", 2},
            {[](params& p) { p.lse.values.stride[2] = 0; }, errc::bad_stride, "lse.values.stride", 0},
            {[](params& p) { set_enum(p.lse.base, 2); }, errc::out_of_range, "lse.base", 2},
            {[](params& p) { p.queries.extent[2] = 65536 * 2; }, errc::unsupported, "queries.extent[2]", 65536 * 2},
        },
        run);
}

TEST_CASE("check attend: scalars", "[op]") {
    float const nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    auto input = input_of(kv_layout::contiguous);
    testing::require_statuses(
        with_window(input.params()),
        std::vector<row>{
            {[](params& p) { p.scale = 0; }, errc::out_of_range, "scale", 0},
            {[](params& p) { p.scale = -3.5f; }, errc::out_of_range, "scale", -4},
            {[](params& p) { p.scale = -0.25f; }, errc::out_of_range, "scale", -1},
            {[](params& p) { p.scale = std::numeric_limits<float>::max(); }, errc::out_of_range, "scale",
             std::int64_t{1} << 31},
            {[=](params& p) { p.scale = nan; }, errc::out_of_range, "scale", 0},
            {[=](params& p) { p.scale = infinity; }, errc::out_of_range, "scale", std::int64_t{1} << 31},
            {[](params& p) { p.soft_cap = -1; }, errc::out_of_range, "soft_cap", -1},
            {[=](params& p) { p.soft_cap = nan; }, errc::out_of_range, "soft_cap", 0},
            {[](params& p) { p.soft_cap = 1e-40f; }, errc::out_of_range, "soft_cap", 1},
            {[=](params& p) { p.soft_cap = infinity; }, errc::out_of_range, "soft_cap", std::int64_t{1} << 31},
            {[](params& p) { p.sink_logits = reinterpret_cast<float const*>(std::uintptr_t{4098}); }, errc::misaligned,
             "sink_logits", 2},
            {[](params& p) { p.window.sinks = -1; }, errc::out_of_range, "window.sinks", -1},
            {[](params& p) { p.window.recent = -2; }, errc::out_of_range, "window.recent", -2},
            {[](params& p) { p.mask = causal{-1}; }, errc::out_of_range, "mask.offset", -1},
            {[](params& p) { p.mask = full{static_cast<std::int32_t>(max_tokens) - 4}; }, errc::out_of_range,
             "mask.offset", max_tokens - 4},
            {[](params& p) { set_enum(p.mask.kind, -1); }, errc::out_of_range, "mask.kind", -1},
            {[](params& p) { set_enum(p.range, 9); }, errc::out_of_range, "range", 9},
            {[](params& p) { p.tail = -1; }, errc::out_of_range, "tail", -1},
            {[](params& p) { p.tail = 4; }, errc::out_of_range, "tail", 4},
        },
        run);
}

TEST_CASE("check attend: selection", "[op]") {
    auto input = input_of(kv_layout::contiguous);
    testing::require_statuses(
        with_window(input.params()),
        std::vector<row>{
            {[](params& p) { p.selection.block_size = 4; }, errc::unsupported, "selection.block_size", 4},
            {[](params& p) { p.selection.block_size = 24; }, errc::unsupported, "selection.block_size", 24},
            {[](params& p) { p.selection.block_size = 0; }, errc::unsupported, "selection.block_size", 0},
            {[](params& p) { p.selection.query_block = 0; }, errc::out_of_range, "selection.query_block", 0},
            {[](params& p) { p.selection.query_block = (1 << 20) + 1; }, errc::out_of_range, "selection.query_block",
             (1 << 20) + 1},
            {[](params& p) { p.selection.blocks.extent[1] = 3; }, errc::bad_extent, "selection.blocks.extent[1]", 3},
            {[](params& p) { p.selection.blocks.extent[0] = 1; }, errc::bad_extent, "selection.blocks.extent[0]", 1},
            {[](params& p) { p.selection.blocks.extent[0] = 3; }, errc::bad_extent, "selection.blocks.extent[0]", 3},
            {[](params& p) { p.selection.query_block = 1; }, errc::bad_extent, "selection.blocks.extent[2]", 2},
            {[](params& p) { p.selection.blocks.extent[3] = -1; }, errc::bad_extent, "selection.blocks.extent[3]", -1},
            {[](params& p) { p.selection.blocks.extent[3] = std::int64_t{1} << 61; }, errc::bad_extent,
             "selection.blocks.extent[3]", std::int64_t{1} << 61},
            {[](params& p) { p.selection.blocks.stride[3] = 2; }, errc::bad_stride, "selection.blocks.stride[3]", 2},
            {[](params& p) { p.selection.blocks.data = nullptr; }, errc::null_pointer, "selection.blocks.data", 0},
            {[](params& p) { p.selection.counts.data = nullptr; }, errc::null_pointer, "selection.counts.data", 0},
            {[](params& p) { p.selection.counts.extent[2] = 9; }, errc::bad_extent, "selection.counts.extent", 9},
            {[](params& p) { p.selection.blocks.data = shifted(p.selection.blocks.data); }, errc::misaligned,
             "selection.blocks.data", 2},
            {[](params& p) { p.selection.counts.data = shifted(p.selection.counts.data, 1); }, errc::misaligned,
             "selection.counts.data", 1},
            {[](params& p) { p.selection.list_row = shifted(p.kv.length); }, errc::misaligned, "selection.list_row", 2},
            {[](params& p) { p.selection.list_row = p.kv.length, p.selection.blocks.extent[0] = -1; }, errc::bad_extent,
             "selection.blocks.extent[0]", -1},
        },
        run);
}

TEST_CASE("check attend: ragged rows", "[op]") {
    auto input = input_of(kv_layout::ragged, true);
    testing::require_statuses(
        with_window(input.params()),
        std::vector<row>{
            {[](params& p) { p.queries.extent[0] = 2; }, errc::bad_extent, "queries.extent[0]", 2},
            {[](params& p) { p.rows.batch = -1; }, errc::bad_extent, "rows.batch", -1},
            {[](params& p) { p.rows.batch = 0; }, errc::bad_extent, "rows.batch", 0},
            {[](params& p) { p.rows.start = nullptr; }, errc::null_pointer, "rows.start", 0},
            {[](params& p) { p.rows.start = shifted(p.rows.start); }, errc::misaligned, "rows.start", 2},
            {[](params& p) { p.rows.max_length = -1; }, errc::out_of_range, "rows.max_length", -1},
            {[](params& p) { p.rows.max_length = 0; }, errc::out_of_range, "rows.max_length", 0},
            {[](params& p) { p.rows.max_length = 99; }, errc::out_of_range, "rows.max_length", 99},
            {[](params& p) { p.rows.batch = 65536; }, errc::unsupported, "batch", 65536},
        },
        run);
}

TEST_CASE("check attend: keys in each layout", "[op]") {
    SECTION("contiguous") {
        auto input = input_of(kv_layout::contiguous);
        testing::require_statuses(
            with_window(input.params()),
            std::vector<row>{
                {[](params& p) { p.keys.extent[0] = 3; }, errc::bad_extent, "keys.extent[0]", 3},
                {[](params& p) { p.kv.max_length = -1; }, errc::out_of_range, "kv.max_length", -1},
                {[](params& p) { p.kv.max_length = 41; }, errc::out_of_range, "kv.max_length", 41},
                {[](params& p) { p.kv.start = p.kv.length; }, errc::unsupported, "kv.layout", 0},
                {[](params& p) { p.kv.pages = p.kv.length; }, errc::unsupported, "kv.layout", 0},
                {[](params& p) { p.kv.length = shifted(p.kv.length, 3); }, errc::misaligned, "kv.length", 3},
                {[](params& p) { set_enum(p.kv.layout, 9), p.kv.max_length = 9; }, errc::out_of_range, "kv.layout", 9},
                {[](params& p) { p.kv.max_length = static_cast<std::int32_t>(too_long); }, errc::out_of_range,
                 "kv.max_length", too_long},
            },
            run);
    }
    SECTION("ragged") {
        auto input = input_of(kv_layout::ragged);
        testing::require_statuses(
            with_window(input.params()),
            std::vector<row>{
                {[](params& p) { p.keys.extent[0] = 2; }, errc::bad_extent, "keys.extent[0]", 2},
                {[](params& p) { p.kv.start = nullptr; }, errc::null_pointer, "kv.start", 0},
                {[](params& p) { p.kv.start = shifted(p.kv.start); }, errc::misaligned, "kv.start", 2},
                {[](params& p) { p.kv.max_length = 0; }, errc::out_of_range, "kv.max_length", 0},
                {[](params& p) { p.kv.max_length = 500; }, errc::out_of_range, "kv.max_length", 500},
            },
            run);
    }
    SECTION("block table") {
        auto input = input_of(kv_layout::block_table);
        testing::require_statuses(
            with_window(input.params()),
            std::vector<row>{
                {[](params& p) { p.kv.pages = nullptr; }, errc::null_pointer, "kv.pages", 0},
                {[](params& p) { p.kv.length = nullptr; }, errc::null_pointer, "kv.length", 0},
                {[](params& p) { p.kv.max_length = 0; }, errc::out_of_range, "kv.max_length", 0},
                {[](params& p) { p.keys.extent[1] = p.values.extent[1] = 0; }, errc::bad_extent, "keys.extent[1]", 0},
                {[](params& p) { p.kv.table_stride = 4; }, errc::out_of_range, "kv.table_stride", 4},
                {[](params& p) { p.kv.table_stride = -6; }, errc::out_of_range, "kv.table_stride", -6},
                {[](params& p) { p.kv.table_stride = 0; }, errc::out_of_range, "kv.table_stride", 0},
                {[](params& p) { p.kv.pages = shifted(p.kv.pages); }, errc::misaligned, "kv.pages", 2},
            },
            run);
        // A table of one request needs no stride, but one that is given holds.
        params one = with_window(input.params());
        one.queries.extent[0] = one.output.extent[0] = 1;
        one.selection = {}, one.lse = {};
        CHECK(check(one).ok());
        one.kv.table_stride = 0;
        CHECK(check(one).ok());
        one.kv.table_stride = 4;
        CHECK(std::string(check(one).field) == "kv.table_stride");
        one.kv.table_stride = -1;
        CHECK(std::string(check(one).field) == "kv.table_stride");
        one.kv.table_stride = std::numeric_limits<std::int64_t>::max();
        CHECK(check(one).ok());
    }
    SECTION("page list") {
        auto input = input_of(kv_layout::page_list);
        testing::require_statuses(
            with_window(input.params()),
            std::vector<row>{
                {[](params& p) { p.kv.pages = nullptr; }, errc::null_pointer, "kv.pages", 0},
                {[](params& p) { p.kv.start = nullptr; }, errc::null_pointer, "kv.start", 0},
                {[](params& p) { p.kv.length = nullptr, p.kv.last_page_length = nullptr; }, errc::null_pointer,
                 "kv.last_page_length", 0},
                {[](params& p) { p.kv.max_length = 0; }, errc::out_of_range, "kv.max_length", 0},
                {[](params& p) { p.keys.extent[1] = p.values.extent[1] = 0; }, errc::bad_extent, "keys.extent[1]", 0},
            },
            run);
    }
}

TEST_CASE("check attend: a block table holds the pages of the longest request", "[op]") {
    auto input = input_of(kv_layout::block_table);
    params p = with_window(input.params());
    auto const page = static_cast<std::int32_t>(p.keys.extent[1]);
    REQUIRE(page > 1);
    p.kv.max_length = 2 * page + 1;  // a key on a third page
    p.kv.table_stride = 3;
    CHECK(check(p).ok());
    p.kv.table_stride = 2;
    CHECK(std::string(check(p).field) == "kv.table_stride");
    p.kv.max_length = 2 * page;
    CHECK(check(p).ok());
}

TEST_CASE("check attend: what is allowed", "[op]") {
    auto input = input_of(kv_layout::contiguous);
    params p = with_window(input.params());
    SECTION("an empty batch needs no pointers") {
        p = {};
        p.queries.extent[2] = p.output.extent[2] = 4, p.queries.extent[3] = p.output.extent[3] = 64;
        p.keys.extent[2] = p.values.extent[2] = 2, p.keys.extent[3] = p.values.extent[3] = 64;
        p.scale = 1;
        CHECK(check(p).ok());
    }
    SECTION("strides of axes with one element do not matter") {
        p.queries.extent[0] = p.output.extent[0] = p.keys.extent[0] = p.values.extent[0] = 1;
        p.lse = {};
        p.selection = {};
        p.queries.stride[0] = 3;
        CHECK(check(p).ok());
    }
    SECTION("lists found through list_row need no row per request") {
        std::int32_t const rows[] = {0, 0};
        p.selection.list_row = rows;
        p.selection.blocks.extent[0] = p.selection.counts.extent[0] = 1;
        CHECK(check(p).ok());
    }
    SECTION("a selection without entries") {
        p.selection.blocks.extent[3] = 0;
        p.selection.blocks.data = nullptr;
        CHECK(check(p).ok());
    }
    SECTION("lse is optional") {
        p.lse = {};
        CHECK(check(p).ok());
    }
}

TEST_CASE("check attend: a failed call writes nothing", "[op]") {
    auto input = input_of(kv_layout::contiguous);
    params p = with_window(input.params());
    std::vector<char> const before(input.memory().base(), input.memory().base() + input.memory().size());
    p.scale = -1;
    reference::attend_result exact;
    CHECK(reference::attend(p, &exact).code == errc::out_of_range);
    CHECK(exact.output.empty());
    CHECK(before == std::vector<char>(input.memory().base(), input.memory().base() + input.memory().size()));
}

TEST_CASE("check attend: contents of a selection", "[op]") {
    std::vector<std::int32_t> blocks = {0, 3, 7, 99, 1, 2, 99, 99}, counts = {3, 2};
    block_selection_buffer s;
    s.blocks = packed_view(blocks.data(), {1, 1, 2, 4});
    s.counts = packed_view(counts.data(), {1, 1, 2});
    s.block_size = 16;
    CHECK(check_contents(s, 128).ok());
    SECTION("id beyond the context") {
        status const r = check_contents(s, 112);
        CHECK(r.code == errc::out_of_range);
        CHECK(r.value == 7);
    }
    SECTION("negative id") {
        blocks[0] = -1;
        CHECK(check_contents(s, 128).code == errc::out_of_range);
    }
    SECTION("not ascending") {
        blocks[5] = 0;
        CHECK(check_contents(s, 128).code == errc::not_ascending);
    }
    SECTION("a duplicate") {
        blocks[5] = 1;
        CHECK(check_contents(s, 128).code == errc::not_ascending);
    }
    SECTION("a context near the limit, a forgotten block size, forgotten lists") {
        CHECK(check_contents(s, std::numeric_limits<std::int32_t>::max()).ok());
        CHECK(check_contents(s, -1).code == errc::out_of_range);
        block_selection_buffer forgotten = s;
        forgotten.block_size = 0;
        CHECK(std::string(check_contents(forgotten, 128).field) == "selection.block_size");
        forgotten = s, forgotten.blocks.data = nullptr;
        CHECK(std::string(check_contents(forgotten, 128).field) == "selection.blocks.data");
        forgotten = s, forgotten.counts = {};
        CHECK(std::string(check_contents(forgotten, 128).field) == "selection.counts.extent");
        forgotten = s, forgotten.counts.data = nullptr;
        CHECK(std::string(check_contents(forgotten, 128).field) == "selection.counts.data");
    }
    SECTION("count beyond the capacity, and below 0") {
        counts[1] = 5;
        CHECK(check_contents(s, 2000).code == errc::out_of_range);
        counts[1] = -1;
        CHECK(check_contents(s, 2000).value == -1);
    }
}

TEST_CASE("plan attend: refuses what check refuses, and old devices", "[op]") {
    auto input = input_of(kv_layout::contiguous);
    params p = with_window(input.params());
    device_info device;
    CHECK(plan(p, device));
    device.compute_capability = 75;
    CHECK(plan(p, device).why.code == errc::unsupported);
    CHECK(std::string(plan(p, device).why.field) == "device.compute_capability");
    p.scale = 0;
    CHECK(std::string(plan(p, device_info{}).why.field) == "scale");
}

TEST_CASE("plan attend: workspace holds one partial result per row, head and split", "[op]") {
    for (std::int32_t const keys : {0, 1, 255, 256, 1000, 40000})
        for (std::int32_t const queries : {0, 1, 64, 65}) {
            params p;
            p.queries = packed_view(static_cast<bf16 const*>(nullptr), {3, queries, 8, 128});
            p.keys = p.values = packed_view(static_cast<bf16 const*>(nullptr), {3, keys, 2, 128});
            p.output = packed_view(static_cast<bf16*>(nullptr), {3, queries, 8, 128});
            p.scale = 1;
            attend_plan const plan = attend_plan_of(p, device_info{});
            REQUIRE(plan);
            CHECK(plan.workspace_bytes % workspace_alignment == 0);
            // On Hopper blocks draw their tiles from a counter.
            std::size_t const counter = plan.schedule.path == attend_path::sm90 ? workspace_alignment : 0;
            if (plan.schedule.splits == 1) {
                CHECK(plan.workspace_bytes == counter);
                continue;
            }
            CHECK((counter == 0 || plan.partial_output >= plan.next_tile + sizeof(std::int32_t)));
            std::size_t const rows = std::size_t{3} * std::size_t(queries) * 8 * std::size_t(plan.schedule.splits);
            CHECK(plan.partial_output + rows * 128 * sizeof(float) <= plan.partial_lse);
            CHECK(plan.partial_lse + rows * sizeof(float) <= plan.workspace_bytes);
        }
}

TEST_CASE("plan attend: path and loader by device, pages and strides", "[op]") {
    auto const target = [](kv_layout layout, std::int64_t page, auto const& change) {
        params p;
        bool const paged = layout == kv_layout::block_table;
        p.queries = packed_view(static_cast<bf16 const*>(nullptr), {2, 300, 8, 128});
        p.keys = packed_view(static_cast<bf16 const*>(nullptr), {paged ? 64 : 2, page, 2, 128});
        p.kv.layout = layout;
        p.kv.max_length = 512;
        device_info device;
        change(p, device);
        p.values = p.keys;
        return attend_target_of(p, device);
    };
    auto const as_it_is = [](params&, device_info&) {};
    CHECK(target(kv_layout::contiguous, 512, as_it_is).path == attend_path::sm90);
    CHECK(target(kv_layout::contiguous, 512, as_it_is).loader == key_loader::atoms);
    CHECK(target(kv_layout::contiguous, 511, as_it_is).loader == key_loader::atoms);
    CHECK(target(kv_layout::contiguous, 7, as_it_is).loader == key_loader::boxes);  // no row of 8 in a map
    CHECK(target(kv_layout::ragged, 512, as_it_is).loader == key_loader::boxes);
    CHECK(target(kv_layout::block_table, 16, as_it_is).loader == key_loader::atoms);
    for (std::int64_t const page : {1, 2, 4, 12})
        CHECK(target(kv_layout::block_table, page, as_it_is).loader == key_loader::rows);
    // Heads in reverse order; strides that TMA cannot hold; outer entries that are no whole number of heads apart.
    CHECK(target(kv_layout::contiguous, 512, [](params& p, device_info&) { p.keys.stride[2] = -128; }).loader ==
          key_loader::rows);
    CHECK(target(kv_layout::contiguous, 512, [](params& p, device_info&) {
              p.keys.stride[1] = std::int64_t{1} << 39;
          }).loader == key_loader::rows);
    CHECK(target(kv_layout::contiguous, 512, [](params& p, device_info&) { p.keys.stride[0] += 8; }).loader ==
          key_loader::boxes);
    CHECK(target(kv_layout::contiguous, 512, [](params&, device_info& d) { d.instructions = 80; }).path ==
          attend_path::sm80);
    CHECK(target(kv_layout::contiguous, 512, [](params&, device_info& d) { d.compute_capability = 100; }).path ==
          attend_path::sm80);
}

TEST_CASE("plan attend: a tail is planned for its own rows", "[op]") {
    auto input = input_of(kv_layout::contiguous);
    params p = input.params();
    attend_plan const whole = plan(p, device_info{});
    REQUIRE(whole);
    p.range = row_range::tail_only, p.tail = 1;
    attend_plan const tail = plan(p, device_info{});
    REQUIRE(tail);
    CHECK(tail.schedule.max_rows == 1);
    CHECK(whole.schedule.max_rows == p.shape().max_queries);
    CHECK_FALSE(tail.same_layout(whole));
    p.range = row_range::without_tail;
    CHECK(plan(p, device_info{}).same_layout(whole));
}

TEST_CASE("plan attend: another schedule is another plan, whatever the workspace", "[op]") {
    params p;
    p.queries = packed_view(static_cast<bf16 const*>(nullptr), {1, 512, 8, 128});
    p.keys = p.values = packed_view(static_cast<bf16 const*>(nullptr), {1, 512, 2, 128});
    p.output = packed_view(static_cast<bf16*>(nullptr), {1, 512, 8, 128});
    attend_plan const dense = attend_plan_of(p, device_info{});
    p.selection.block_size = 16, p.selection.query_block = 48;
    p.selection.blocks.extent[1] = 2, p.selection.blocks.extent[3] = 8;
    attend_plan const listed = attend_plan_of(p, device_info{});
    CHECK(dense.workspace_bytes == listed.workspace_bytes);
    CHECK_FALSE(dense.same_layout(listed));
    CHECK(dense.same_layout(dense));
}

TEST_CASE("plan: workspaces that are too small or misaligned", "[op]") {
    alignas(256) char memory[1024];
    CHECK(check_workspace({}, 0).ok());
    CHECK(check_workspace({memory, sizeof memory}, 1024).ok());
    CHECK(check_workspace({nullptr, 1024}, 8).code == errc::null_pointer);
    CHECK(check_workspace({memory, 1023}, 1024).code == errc::workspace_too_small);
    CHECK(check_workspace({memory, 1023}, 1024).value == 1023);
    CHECK(check_workspace({memory + 16, 1000}, 100).code == errc::misaligned);
    CHECK(check_workspace({memory + 16, 1000}, 100).value == 16);
}

TEST_CASE("check attend: ragged keys of a batch that has none", "[op]") {
    std::int32_t const start[] = {0, 0, 0};
    alignas(16) bf16 memory[2 * 64] = {};
    params p;
    p.queries = packed_view(static_cast<bf16 const*>(memory), {2, 1, 1, 64});
    p.keys = p.values = packed_view(static_cast<bf16 const*>(nullptr), {1, 0, 1, 64});
    p.kv = {.layout = kv_layout::ragged, .start = start, .max_length = 1};
    p.output = packed_view(memory, {2, 1, 1, 64});
    p.scale = 1;
    reference::attend_result exact;
    REQUIRE(reference::attend(p, &exact).ok());
    for (double const lse : exact.lse) CHECK(lse == -std::numeric_limits<double>::infinity());
    p.kv.max_length = 2;
    CHECK(std::string(check(p).field) == "kv.max_length");
}

TEST_CASE("plan attend: more tiles than a grid holds", "[op]") {
    params p;
    p.queries = packed_view(static_cast<bf16 const*>(nullptr), {1, max_tokens, 512, 64});
    p.keys = p.values = packed_view(static_cast<bf16 const*>(nullptr), {1, 1000, 512, 64});
    p.output = packed_view(static_cast<bf16*>(nullptr), {1, max_tokens, 512, 64});
    p.scale = 1;
    attend_plan const made = attend_plan_of(p, device_info{});
    CHECK(made.why.code == errc::unsupported);
    CHECK(std::string(made.why.field) == "queries.extent");
}

TEST_CASE("check attend: rotation", "[op]") {
    auto input = input_of(kv_layout::contiguous);
    auto base = with_window(input.params());
    base.rotation.theta = 1e4f;
    REQUIRE(check(base).ok());
    testing::require_statuses(
        base,
        std::vector<row>{
            {[](params& p) { p.rotation.theta = 0.5f; }, errc::out_of_range, "rotation.theta", 1},
            {[](params& p) { p.rotation.rotary_dim = 24; }, errc::out_of_range, "rotation.rotary_dim", 24},
            {[](params& p) { p.rotation.rotary_dim = 80; }, errc::out_of_range, "rotation.rotary_dim", 80},
            {[](params& p) { set_enum(p.rotation.pairing, 2); }, errc::out_of_range, "rotation.pairing", 2},
            {[](params& p) { p.rotation.inverse_frequency = shifted(static_cast<float const*>(base_frequency), 1); },
             errc::misaligned, "rotation.inverse_frequency", 1},
            {[](params& p) { p.mask = full{}; }, errc::unsupported, "mask.kind", 1},
        },
        run);
}

TEST_CASE("plan attend: a rotation takes the portable path, in tiles that fit", "[op]") {
    testing::attend_input<bf16> input({.queries = {500}, .keys = {500}, .heads = 4, .head_dim = 256});
    auto p = input.params();
    device_info hopper;
    hopper.compute_capability = 90, hopper.instructions = 90;
    CHECK(plan(p, hopper).schedule.path == attend_path::sm90);
    p.rotation.theta = 1e4f;
    auto const turned = plan(p, hopper);
    CHECK(turned.schedule.path == attend_path::sm80);
    CHECK(turned.schedule.rotation == key_rotation::streaming);
    CHECK(turned.schedule.rows == attend_rows::medium);
    device_info small = hopper;
    small.compute_capability = 86, small.shared_memory_per_block = 99 * 1024;
    auto const on_small = plan(p, small);
    CHECK(on_small.schedule.rows == attend_rows::decode);
    CHECK(attend_shared_bytes({256, attend_rows::decode}, key_rotation::streaming) <= 99 * 1024);
    p.rotation = {};
    CHECK_FALSE(plan(p, hopper).same_layout(turned));
}

TEST_CASE("plan attend: a decode plan has a counter a tile and one a request, first in its workspace", "[op]") {
    params p;
    p.queries = packed_view(static_cast<bf16 const*>(nullptr), {3, 1, 32, 128});
    p.keys = p.values = packed_view(static_cast<bf16 const*>(nullptr), {3, 4096, 8, 128});
    p.output = packed_view(static_cast<bf16*>(nullptr), {3, 1, 32, 128});
    p.scale = 1;
    attend_plan const decode = attend_plan_of(p, device_info{});
    REQUIRE(decode);
    CHECK(decode.merges_itself());
    CHECK(decode.counters() == 8 + 1);
    CHECK(decode.arrived == 0);
    CHECK(decode.partial_output >= 3 * 9 * sizeof(std::int32_t));
    // 64 rows that share keys take another tile, whose splits a kernel of its own merges.
    p.queries = packed_view(static_cast<bf16 const*>(nullptr), {3, 16, 32, 128});
    p.output = packed_view(static_cast<bf16*>(nullptr), {3, 16, 32, 128});
    attend_plan const chunk = attend_plan_of(p, device_info{});
    CHECK(chunk.schedule.splits > 1);
    CHECK(!chunk.merges_itself());
    CHECK(chunk.counter_bytes() == 0);
}

TEST_CASE("check attend: an fp8 cache, its strides and scales, and the rows it serves", "[op]") {
    attend_params<bf16, fp8_e4m3> p;
    alignas(16) static std::byte memory[16];
    p.queries = packed_view(reinterpret_cast<bf16 const*>(memory), {1, 1, 4, 64});
    p.keys = p.values = packed_view(reinterpret_cast<fp8_e4m3 const*>(memory), {1, 100, 2, 64});
    p.output = packed_view(reinterpret_cast<bf16*>(memory), {1, 1, 4, 64});
    p.scale = 1;
    CHECK(check(p).ok());
    CHECK(plan(p, device_info{}).why.ok());
    auto const broken = [&](auto const& change) {
        auto q = p;
        change(q);
        return check(q);
    };
    CHECK(broken([](auto& q) { q.keys.stride[1] = 136; }).code == errc::misaligned);  // 8 elements are 8 bytes
    CHECK(std::string_view(broken([](auto& q) { q.values.stride[2] = 72; }).field) == "values.stride");
    CHECK(std::string_view(broken([](auto& q) { q.scales.heads = 3; }).field) == "scales.heads");
    CHECK(std::string_view(broken([](auto& q) { q.scales.key = reinterpret_cast<float const*>(memory + 2); }).field) ==
          "scales.key");
    CHECK(std::string_view(broken([](auto& q) { q.rotation.theta = 1e4f; }).field) == "rotation");
    CHECK(std::string_view(broken([](auto& q) { q.tail_step = 0; }).field) == "tail_step");
    CHECK(broken([](auto& q) { q.scales = {reinterpret_cast<float const*>(memory), nullptr, 2}; }).ok());
    p.queries = packed_view(reinterpret_cast<bf16 const*>(memory), {1, 9, 4, 64});
    p.output = packed_view(reinterpret_cast<bf16*>(memory), {1, 9, 4, 64});
    CHECK(plan(p, device_info{}).why.code == errc::unsupported);
}
