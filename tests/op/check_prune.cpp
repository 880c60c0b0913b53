// Bad input of prune: every rule of check, and plans.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/quantised_cache.hpp"
#include "support/random_input.hpp"
#include "winnow/op/prune.hpp"
#include "winnow/reference/prune.hpp"
#include "winnow/stage/prune_row_set.hpp"

using namespace winnow;

namespace {

using params = prune_params<fp16>;
using row = testing::bad_input<params>;

status run(params const& p) { return check(p); }

}  // namespace

TEST_CASE("check prune: the method", "[op]") {
    using method_row = testing::bad_input<prune_method>;
    prune_method valid = hip_tiny;
    testing::require_statuses(
        valid,
        std::vector<method_row>{
            {[](prune_method& m) { m.stage_count = 0; }, errc::out_of_range, "method.stage_count", 0},
            {[](prune_method& m) { m.stage_count = 9; }, errc::out_of_range, "method.stage_count", 9},
            {[](prune_method& m) { m.stages[0].query_block = 0; }, errc::out_of_range, "method.stages.query_block", 0},
            {[](prune_method& m) { m.stages[0].query_block = 256; }, errc::out_of_range, "method.stages.query_block",
             256},
            {[](prune_method& m) { m.stages[1].query_block = 32; }, errc::out_of_range, "method.stages.query_block",
             32},
            {[](prune_method& m) { m.stages[1].query_block = 6; }, errc::out_of_range, "method.stages.query_block", 6},
            {[](prune_method& m) { m.stages[0].query_stride = 0; }, errc::out_of_range, "method.stages.query_stride",
             0},
            {[](prune_method& m) { m.stages[0].query_stride = 3; }, errc::out_of_range, "method.stages.query_stride",
             3},
            {[](prune_method& m) {
                 m.scorer = scorer::antidiagonal;
                 m.stages[0].query_block = m.stages[0].query_stride = 48;
             },
             errc::out_of_range, "method.stages.query_stride", 48},
            {[](prune_method& m) {
                 m.scorer = scorer::antidiagonal;
                 m.stages[0].query_block = m.stages[0].query_stride = 32;
             },
             errc::out_of_range, "method.stages.query_stride", 32},
            {[](prune_method& m) { m.scorer = scorer::antidiagonal, m.stages[1].query_stride = 16; },
             errc::out_of_range, "method.stages.query_stride", 16},
            {[](prune_method& m) { m.stages[0].chunk = 0; }, errc::out_of_range, "method.stages.chunk", 0},
            {[](prune_method& m) { m.stages[0].chunk = 48; }, errc::out_of_range, "method.stages.chunk", 48},
            {[](prune_method& m) { m.stages[0].chunk = 131072; }, errc::out_of_range, "method.stages.chunk", 131072},
            {[](prune_method& m) { m.stages[1].chunk = 32; }, errc::out_of_range, "method.stages.chunk", 32},
            {[](prune_method& m) { m.stages[1].chunk = 64; }, errc::out_of_range, "method.stages.chunk", 64},
            {[](prune_method& m) { m.stages[1].chunk = 4; }, errc::unsupported, "method.stages.chunk", 4},
            {[](prune_method& m) { m.stages[0].chunk = 256, m.stage_count = 1; }, errc::unsupported,
             "method.stages.chunk", 256},
            {[](prune_method& m) { m.stages[0].keep = 0; }, errc::out_of_range, "method.stages.keep", 0},
            {[](prune_method& m) { m.stages[1].keep = 65537; }, errc::out_of_range, "method.stages.keep", 65537},
            {[](prune_method& m) { m.window.sinks = 12; }, errc::out_of_range, "method.window.sinks", 12},
            {[](prune_method& m) { m.window.sinks = -16; }, errc::out_of_range, "method.window.sinks", -16},
            {[](prune_method& m) { m.window.recent = -1; }, errc::out_of_range, "method.window.recent", -1},
            {[](prune_method& m) { m.scorer = static_cast<scorer>(6); }, errc::out_of_range, "method.scorer", 6},
            {[](prune_method& m) { m.path = static_cast<probe_path>(2); }, errc::out_of_range, "method.path", 2},
            {[](prune_method& m) { m.sharing = static_cast<sharing>(-1); }, errc::out_of_range, "method.sharing", -1},
        },
        [](prune_method const& m) { return check(m); });
}

TEST_CASE("check prune: presets are valid", "[op]") {
    for (auto const& m : {hip_3k, hip_3k_early_layer, hip_5k, hip_v1, hip_tiny}) CHECK(check(m).ok());
}

TEST_CASE("check prune: tensors, scalars and the selection", "[op]") {
    testing::attend_input<fp16> input({.queries = {20, 20}, .keys = {200, 130}, .heads = 4, .kv_heads = 2});
    params valid = testing::prune_params_of(input.params(), hip_tiny);
    reference::selection_storage const storage(valid.method, valid.shape());
    valid.selection = storage.view;
    testing::require_statuses(
        valid,
        std::vector<row>{
            {[](params& p) { p.queries.extent[3] = 32; }, errc::unsupported, "queries.extent[3]", 32},
            {[](params& p) { p.keys.data = nullptr; }, errc::null_pointer, "keys.data", 0},
            {[](params& p) { p.method.stage_count = 0; }, errc::out_of_range, "method.stage_count", 0},
            {[](params& p) { p.method.window.sinks = -16; }, errc::out_of_range, "method.window.sinks", -16},
            {[](params& p) { p.method.window.recent = -1; }, errc::out_of_range, "method.window.recent", -1},
            {[](params& p) { p.mask = causal{-9}; }, errc::out_of_range, "mask.offset", -9},
            {[](params& p) { p.lookahead = -1; }, errc::out_of_range, "lookahead", -1},
            {[](params& p) { p.selection = {}; }, errc::unsupported, "selection.block_size", 0},
            {[](params& p) { p.selection.block_size = 16; }, errc::bad_extent, "selection.block_size", 16},
            {[](params& p) { p.selection.query_block = 32; }, errc::bad_extent, "selection.query_block", 32},
            {[](params& p) { p.method.sharing = sharing::per_head; }, errc::bad_extent, "selection.blocks.extent[1]",
             1},
            {[](params& p) { p.selection.blocks.extent[3] = 7; }, errc::bad_extent, "selection.blocks.extent[3]", 7},
            {[](params& p) { p.selection.blocks.extent[2] = p.selection.counts.extent[2] = 2; }, errc::bad_extent,
             "selection.blocks.extent[2]", 2},
            {[](params& p) { p.selection.blocks.data = nullptr; }, errc::null_pointer, "selection.blocks.data", 0},
            {[](params& p) { p.selection.list_row = p.kv.length; }, errc::unsupported, "selection.list_row", 0},
            {[](params& p) { p.selection.blocks.stride[2] = 0; }, errc::bad_stride, "selection.blocks.stride", 0},
            {[](params& p) { p.selection.counts.stride[0] = 0; }, errc::bad_stride, "selection.counts.stride", 0},
        },
        run);

    SECTION("a rotation") {
        params turned = valid;
        turned.rotation.theta = 1e4f;
        REQUIRE(check(turned).ok());
        auto const indexed = [](params& p) { p.scan = scan_style::chunk_indexed; };
        testing::require_statuses(
            turned,
            std::vector<row>{
                {[](params& p) { p.rotation.theta = -1; }, errc::out_of_range, "rotation.theta", -1},
                {[](params& p) { p.scan = static_cast<scan_style>(2); }, errc::out_of_range, "scan", 2},
                {[](params& p) { p.method.scorer = scorer::mean_key; }, errc::unsupported, "method.scorer", 3},
                {[](params& p) { p.mask = full{}; }, errc::unsupported, "mask.kind", 1},
                {[=](params& p) { indexed(p), p.rotation.rotary_dim = 32; }, errc::unsupported, "rotation.rotary_dim",
                 32},
                {[=](params& p) { indexed(p), p.rotation.pairing = rope_pairing::adjacent; }, errc::unsupported,
                 "rotation.pairing", 1},
            },
            run);
    }

    SECTION("fp8 keys") {
        testing::quantised_cache<fp16> const cache(input.params(), 2, 1, 1, 2);
        using narrow = prune_params<fp16, fp8_e4m3>;
        narrow p;
        p.queries = valid.queries, p.kv = valid.kv, p.method = valid.method, p.selection = valid.selection;
        p.keys = valid.keys.over(cache.keys.data()), p.scales = cache.scales();
        float const* const crooked =
            reinterpret_cast<float const*>(reinterpret_cast<std::uintptr_t>(cache.key_scale.data()) + 1);
        testing::require_statuses(
            p,
            std::vector<testing::bad_input<narrow>>{
                {[](narrow& n) { n.queries.extent[3] = 32; }, errc::unsupported, "queries.extent[3]", 32},
                {[](narrow& n) { n.method.stage_count = 0; }, errc::out_of_range, "method.stage_count", 0},
                {[](narrow& n) { n.keys.data += 8; }, errc::misaligned, "keys.data", 8},
                {[](narrow& n) { n.keys.stride[1] += 8; }, errc::misaligned, "keys.stride", 2 * 64 + 8},
                {[](narrow& n) { n.method.scorer = scorer::tree_probe_first; }, errc::unsupported, "method.scorer", 1},
                {[](narrow& n) { n.method.scorer = scorer::mean_key; }, errc::unsupported, "method.scorer", 3},
                {[](narrow& n) { n.method.scorer = scorer::antidiagonal; }, errc::unsupported, "method.scorer", 5},
                {[](narrow& n) { n.summary.data = n.queries.data; }, errc::unsupported, "summary.data", 0},
                {[](narrow& n) { n.rotation.theta = 1e4f; }, errc::unsupported, "rotation", 1},
                {[](narrow& n) { n.scales.heads = 3; }, errc::bad_extent, "scales.heads", 3},
                {[](narrow& n) { n.scales.heads = 0; }, errc::bad_extent, "scales.heads", 0},
                {[=](narrow& n) { n.scales.key = crooked; }, errc::misaligned, "scales.key", 1},
                {[](narrow& n) { n.lookahead = -1; }, errc::out_of_range, "lookahead", -1},
            },
            [](narrow const& n) { return check(n); });
        CHECK(plan(p, device_info{}).workspace_bytes == plan(valid, device_info{}).workspace_bytes);
        params wide = valid;
        wide.scales = cache.scales();
        CHECK(check(wide).code == errc::unsupported);
        CHECK(std::string(check(wide).field) == "scales");
    }

    SECTION("a failed call writes nothing") {
        params p = valid;
        p.lookahead = -1;
        p.selection.counts(0, 0, 0) = 77;
        CHECK_FALSE(reference::prune(p).ok());
        CHECK(p.selection.counts(0, 0, 0) == 77);
    }
}

TEST_CASE("selection_extents_of: a method that check refuses is asked before check sees it", "[op]") {
    batch_shape const shape{2, 4, 2, 64, 100, 1000};
    prune_method forgotten{.stages = {{16, 2, 32, 8}, {16, 1, 8, 8}}};  // no stage_count
    CHECK(selection_extents_of(forgotten, shape).query_blocks == query_blocks_of(100, 16));
    forgotten.stage_count = 9;
    CHECK(selection_extents_of(forgotten, shape).capacity == 8);
    CHECK(selection_extents_of(prune_method{}, shape).list_count() == 0);
    prune_method const empty;
    auto const s = packed_selection<std::int32_t>(nullptr, nullptr, empty, shape);
    CHECK_FALSE(s.blocks.has_elements());
}

TEST_CASE("plan prune: refuses what check refuses, and old devices", "[op]") {
    testing::attend_input<fp16> input({.queries = {20}, .keys = {200}, .heads = 4, .kv_heads = 2});
    params p = testing::prune_params_of(input.params(), hip_tiny);
    reference::selection_storage const storage(p.method, p.shape());
    p.selection = storage.view;
    device_info device;
    CHECK(plan(p, device));
    device.compute_capability = 75;
    CHECK(plan(p, device).why.code == errc::unsupported);
    p.lookahead = -1;
    CHECK(std::string(plan(p, device_info{}).why.field) == "lookahead");
}

TEST_CASE("plan prune: slabs cover all query blocks, and their memory is bounded", "[op]") {
    // The last one has four blocks of the last stage in one of the first.
    prune_method const nested{.stages = {{64, 4, 64, 32}, {16, 1, 8, 16}}, .stage_count = 2, .window = {16, 64}};
    for (auto method : {hip_3k, hip_5k, hip_v1, hip_tiny, nested})
        for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
            for (std::int32_t const queries : {0, 1, 64, 5000, 131072})
                for (std::int32_t const keys : {0, 1, 4096, 131072, 3'000'000}) {
                    method.sharing = share;
                    batch_shape const shape{2, 32, 8, 128, queries, keys};
                    prune_plan const plan = prune_plan_of(method, shape);
                    std::int32_t const coarse = method.stages[0].query_block;
                    std::int32_t const ratio = coarse / method.last().query_block;
                    std::int32_t const lists = 2 * list_heads_of(share, 32, 8);
                    CHECK(plan.slab_blocks >= 1);
                    CHECK(std::int64_t{plan.slabs} * plan.slab_blocks >= query_blocks_of(queries, coarse));
                    CHECK(plan.list_rows == lists * plan.slab_blocks * ratio);
                    CHECK(plan.score_width() >= plan.max_candidates);
                    CHECK(plan.score_width() % 4 == 0);
                    std::size_t const rows = std::size_t(2 * units_of(method, 32, 8).units) *
                                             std::size_t(plan.slab_blocks) * std::size_t(ratio);
                    auto const scores = rows * std::size_t(plan.score_width()) * sizeof(std::uint32_t);
                    CHECK(
                        (plan.workspace_bytes <= prune_slab_bytes + 2 * workspace_alignment || plan.slab_blocks == 1));
                    CHECK(plan.scores + scores <= plan.lists);
                    auto const entries =
                        std::size_t(stage_region_of(method, 1, plan.list_rows, method.stage_count).counts);
                    CHECK(plan.lists + entries * sizeof(std::int32_t) <= plan.arrived);
                    // A row of decode: blocks count for each group of lists.
                    std::int32_t const groups = groups_of(lists / 2, units_of(method, 32, 8).units).count;
                    CHECK(plan.counters(method) == (queries == 1 ? std::size_t(2 * groups) : 0));
                    CHECK(plan.arrived + plan.counters(method) * sizeof(std::int32_t) <= plan.workspace_bytes);
                    CHECK(plan.workspace_bytes % workspace_alignment == 0);
                }
}

TEST_CASE("plan prune: 32k queries over a million keys take at most 64 MB", "[op]") {
    for (auto const& method : {hip_3k, hip_3k_early_layer, hip_5k, hip_v1})
        for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
            for (std::int32_t const keys : {1 << 15, 1 << 17, 1 << 20}) {
                prune_method m = method;
                m.sharing = share;
                prune_plan const plan = prune_plan_of(m, batch_shape{1, 32, 8, 128, 32768, keys});
                CHECK(plan.workspace_bytes <= 64'000'000);
                CHECK(plan.slabs * plan.slab_blocks < 2 * query_blocks_of(32768, m.stages[0].query_block));
            }
}

TEST_CASE("plan prune: at decode lists of the 3K presets are selected where they are scored, up to 512k keys", "[op]") {
    for (auto const& method : {hip_3k, hip_3k_early_layer})
        for (int i = 0; i < method.stage_count; ++i) {
            CHECK(selects_in_place(true, stage_candidates(method, i, 1 << 19)));
            CHECK(selects_in_place(true, stage_candidates(method, i, 1 << 20)) == (i > 0));
        }
}

TEST_CASE("plan prune: rows held in shared memory hold every group that a block can touch", "[op]") {
    for (std::int32_t const stride : {1, 2, 4, 16})
        for (std::int32_t const rows : {1, 2, 5, 15, 16, 17, 40})
            for (std::int32_t const first : {0, 1, 3, 13, 15}) {
                request_view const r{0, 0, rows, 64, first};
                prune_stage const stage{16, stride, 32, 8};
                std::int32_t most = 0;
                for (std::int32_t m = 0; m < query_blocks_of(rows, 16); ++m) {
                    query_span const span = span_of(r, 16, m);
                    if (span.first <= span.last) most = larger(most, span.last / stride - span.first / stride + 1);
                }
                INFO("stride " << stride << ", rows " << rows << ", first " << first);
                CHECK(round_up(most * 3, prune_row_tile) * 2 <=
                      rows_held(stage, {2, 2, 3}, rows, prune_rows_held(64), prune_row_tile));
                CHECK(rows_held(stage, {2, 2, 3}, rows, prune_rows_held(64), prune_row_tile) % prune_row_tile == 0);
                CHECK(most * 3 <= walker_rows(stage, {2, 2, 3}, rows));
            }
}

TEST_CASE("prune: rows of antidiagonals come once each, eight groups' residues together", "[op]") {
    for (std::int32_t const stride : {1, 2, 4, 8, 16})
        for (std::int32_t const groups : {1, 3, 8})
            for (std::int32_t const heads : {1, 3}) {
                prune_row_set const set{5, groups, 6, heads, 1, prune_row_tile, stride};
                CHECK(set.padded() % (8 * stride) == 0);
                CHECK(prune_rows_held(256) % (8 * stride) == 0);  // slices are whole
                std::vector<int> met(static_cast<std::size_t>(groups * stride * heads), 0);
                int wrong = 0;
                for (std::int32_t row = 0; row < set.padded(); ++row) {
                    auto const r = single_row_of(set, row);
                    wrong += r.first % stride != 0 || r.position - r.first != row / 8 % stride;
                    std::int32_t const local = (r.position - 5 * stride) * heads + r.head - 6;
                    wrong += local < 0 || local >= groups * stride * heads;
                    if (row / (8 * stride) * 8 + row % 8 < set.rows()) ++met.at(static_cast<std::size_t>(local));
                }
                CHECK(wrong == 0);
                CHECK(std::count(met.begin(), met.end(), 1) == static_cast<std::ptrdiff_t>(met.size()));
            }
}

TEST_CASE("prune: rows of a scoring block are whole walkers or slices of one, each group once", "[op]") {
    for (std::int32_t const product : {8, 64})
        for (std::int32_t const heads : {1, 3, 8})
            for (std::int32_t const groups : {1, 16, 37}) {
                prune_row_set const set{5, groups, 24, heads, 4, product};
                CHECK(set.rows() == groups * heads);
                CHECK(set.padded() % product == 0);
                CHECK(set.padded() - set.rows() < product);
                for (std::int32_t const held : {64, 128, 512}) {
                    CHECK(set.walkers_held(held) >= 1);
                    CHECK(set.walkers_held(held) <= 4);
                    bool const fits = set.walkers_held(held) * set.padded() <= held;
                    CHECK((fits || (set.walkers_held(held) == 1 && set.slices(held) > 1)));
                    CHECK(set.slices(held) * held >= set.padded());
                }
                // Rows 40 .. of stride 4: group 5 holds positions 20 .. 23, cut to the span.
                query_span const span{21, 20 + 4 * groups - 2};
                std::vector<int> seen(static_cast<std::size_t>(groups * heads), 0);
                for (std::int32_t row = 0; row < set.padded(); ++row) {
                    prune_query_row const from = query_row_of(set, span, 4, 2, row);
                    CHECK(from.head >= 24 + 2 * heads);
                    CHECK(from.head < 24 + 3 * heads);
                    CHECK(from.first >= span.first);
                    CHECK(from.last <= span.last);
                    CHECK(from.first / 4 == from.last / 4);
                    if (row < set.rows())
                        ++seen[static_cast<std::size_t>((from.first / 4 - 5) * heads + from.head - 24 - 2 * heads)];
                }
                CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
            }
}

TEST_CASE("plan prune: no list has more candidates than the plan has room for", "[op]") {
    prune_method method = hip_tiny;
    method.window = {16, 0};
    for (std::int32_t const keep : {1, 3, 8, 100})
        for (std::int32_t const keys : {0, 1, 17, 48, 49, 300, 777}) {
            method.stages[0].keep = keep;
            testing::attend_input<fp16> input({.queries = {20}, .keys = {keys}, .heads = 2, .kv_heads = 1});
            params p = testing::prune_params_of(input.params(), method);
            reference::selection_storage const storage(method, p.shape());
            p.selection = storage.view;
            reference::prune_trace trace;
            REQUIRE(reference::prune(p, &trace).ok());
            std::size_t most = 0;
            for (std::int32_t stage = 0; stage < method.stage_count; ++stage)
                for (auto const& list : trace.lists[stage]) most = larger(most, list.left.size());
            CHECK(most <= std::size_t(max_candidates_of(method, keys)));
        }
}

TEST_CASE("check prune: lists are counted in int32, the finest query blocks of a slab included", "[op]") {
    prune_method method{.stages = {{128, 1, 64, 8}, {1, 1, 8, 8}}, .stage_count = 2};
    method.sharing = sharing::per_head;
    batch_shape const shape{60000, 256, 8, 64, 1, 1000};
    CHECK_FALSE(check_list_rows(method, shape, 65536, "batch").ok());  // 65536 * 256 * 128 = 2^31
    CHECK(check_list_rows(method, shape, 65535, "batch").ok());
    CHECK(check_list_rows(method, shape, 65536, "batch").value == 65536);
}

TEST_CASE("prune: extents of the selection", "[op]") {
    batch_shape const shape{3, 12, 4, 64, 130, 4096};
    prune_method method = hip_3k;
    auto const e = selection_extents_of(method, shape);
    CHECK(e.batch == 3);
    CHECK(e.list_heads == 1);
    CHECK(e.query_blocks == 4);  // 130 rows touch at most 4 blocks of 64
    CHECK(e.capacity == 256);
    CHECK(e.list_count() == 12);
    std::int32_t* const nowhere = nullptr;
    auto const s = packed_selection(nowhere, nowhere, method, shape);
    CHECK(s.block_size == 8);
    CHECK(s.query_block == 64);
    CHECK(s.blocks.stride[2] == 256);
    method.sharing = sharing::per_head;
    CHECK(selection_extents_of(method, shape).list_heads == 12);
}

TEST_CASE("plan prune: as many query blocks as there are positions", "[op]") {
    prune_method method = hip_tiny;
    for (auto& stage : method.stages) stage.query_block = stage.query_stride = 1;
    batch_shape const shape{1, 1, 1, 64, static_cast<std::int32_t>(max_tokens), 8};
    prune_plan const made = prune_plan_of(method, shape);
    CHECK(made.slabs > 0);
    CHECK(std::int64_t{made.slabs} * made.slab_blocks >= max_tokens);
    CHECK(std::int64_t{made.slabs} * made.slab_blocks <= std::numeric_limits<std::int32_t>::max());
}
