// attend in tiles of 192 rows (head_dim 64, Hopper): against the oracle, and the same bits as tiles of 128 rows give.
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"

using namespace winnow;
using testing::attend_input;
using testing::input_shape;

namespace {

// A device with few multiprocessors has enough tiles for wide ones where a test has few: see wide_tiles_pay.
bool chooses_wide_tiles(device_info const& device) {
    return device.compute_capability == 90 && device.instructions >= 90;
}

// Runs in wide tiles alone, each block one after the other, and compares with the oracle and with tiles of 128 rows.
template <class T, class Set>
void check_wide(input_shape const& shape, Set const& set, attend_rows rows = attend_rows::wide) {
    attend_input<T> in(shape);
    auto const expected = testing::expect_attend(in, set);
    auto const found = testing::run_attend(in, set, testing::single_block_device());
    if (chooses_wide_tiles(testing::current_device())) CHECK(found.plan.schedule.rows == rows);
    testing::check_close<T>(found.output, found.lse, expected);
    auto const large = testing::run_attend(in, set);
    CHECK(large.plan.schedule.rows != attend_rows::wide);
    if (found.plan.schedule.path == attend_path::sm90) {
        CHECK(testing::same_bits(found.output, large.output));
        CHECK(testing::same_bits(found.lse, large.lse));
    }
}

auto const as_it_is = [](auto&) {};

}  // namespace

TEST_CASE("attend: one tile of 192 rows", "[gpu][small]") {
    // One request of six has rows, so that the block has one tile to do.
    for (std::int32_t const rows : {129, 192})
        check_wide<bf16>({.queries = {0, 0, rows, 0, 0, 0}, .keys = {1, 1, 200, 1, 1, 1}, .ragged_queries = true},
                         as_it_is);
}

TEST_CASE("attend: tiles of 192 rows in every layout", "[gpu]") {
    if (!testing::runs_tiles_in_turn()) return;
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (bool const ragged : {false, true})
            for (bool const head_major : {false, true}) {
                INFO("layout " << static_cast<int>(layout) << ", ragged " << ragged << ", HND " << head_major);
                check_wide<bf16>({.queries = ragged ? std::vector<std::int32_t>{370, 0, 1, 193, 64}
                                                    : std::vector<std::int32_t>{370, 370, 370, 370, 370},
                                  .keys = {1100, 3, 129, 400, 0},
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layout = layout,
                                  .page_size = head_major ? 64 : 16,
                                  .ragged_queries = ragged,
                                  .head_major = head_major,
                                  .sink_logits = ragged},
                                 as_it_is);
            }
    // Pages that hold no whole granule keep the tiles whose warps copy single rows.
    check_wide<bf16>(
        {.queries = {370}, .keys = {400}, .heads = 8, .kv_heads = 2, .layout = kv_layout::block_table, .page_size = 1},
        as_it_is, attend_rows::large);
}

TEST_CASE("attend: tiles of 192 rows under masks, soft caps and offsets", "[gpu]") {
    if (!testing::runs_tiles_in_turn()) return;
    input_shape const shape{.queries = {570, 570}, .keys = {2000, 570}, .heads = 6, .kv_heads = 2};
    check_wide<bf16>(shape, [](auto& p) { p.mask = full{}; });
    check_wide<bf16>(shape, [](auto& p) { p.mask = causal{100}; });
    check_wide<bf16>(shape, [](auto& p) { p.soft_cap = 5, p.lse.base = lse_base::two; });
    check_wide<bf16>(shape, [](auto& p) { p.window.sinks = 64; });
    check_wide<bf16>(shape, [](auto& p) { p.range = row_range::tail_only, p.tail = 380; });
    check_wide<bf16>(shape, [](auto& p) { p.range = row_range::without_tail, p.tail = 100; });
    check_wide<fp16>(shape, as_it_is);
    // A window's steps begin where a tile's rows do, so that taller tiles would give other bits.
    check_wide<bf16>(
        shape, [](auto& p) { p.window = {.sinks = 8, .recent = 700}; }, attend_rows::large);
}

TEST_CASE("attend: queries that TMA does not bring to tiles of 192 rows", "[gpu]") {
    if (!testing::runs_tiles_in_turn()) return;
    // Heads in reverse order: TMA takes no negative strides, and warps copy the rows themselves.
    check_wide<bf16>({.queries = {380, 380}, .keys = {700, 450}, .heads = 8, .kv_heads = 2}, [](auto& p) {
        auto& q = p.queries;
        q.data += (q.extent[2] - 1) * q.stride[2];
        q.stride[2] = -q.stride[2];
    });
}
