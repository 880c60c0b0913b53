// Bad input of sparse_prefill and sparse_decode: every rule of their own, rules of the parts, and plans.
#include <cstdint>
#include <string>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/quantised_cache.hpp"
#include "support/random_input.hpp"
#include "winnow/op/sparse.hpp"
#include "winnow/reference/sparse.hpp"

using namespace winnow;

namespace {

using prefill = sparse_prefill_params<bf16>;
using decode = sparse_decode_params<bf16>;

prefill prefill_of(attend_params<bf16> const& a) {
    prefill p;
    p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.kv = a.kv, p.rows = a.rows;
    p.output = a.output, p.lse = a.lse, p.scale = a.scale;
    p.method = hip_tiny;
    return p;
}

template <class T>
T* shifted(T* p) {
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + 1);
}

struct decode_memory {
    testing::attend_input<bf16> input{{.queries = {1, 1}, .keys = {200, 130}, .heads = 4, .kv_heads = 2}};
    std::vector<std::int32_t> step = std::vector<std::int32_t>(3, 0), slot = {2, 0};
    std::vector<std::int32_t> lists = std::vector<std::int32_t>(stage_cache_entries(hip_tiny, 4, 2, 3), -1);
    decode view() {
        attend_params<bf16> const a = input.params();
        decode p;
        p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.kv = a.kv;
        p.output = a.output, p.lse = a.lse, p.scale = a.scale;
        p.method = hip_tiny;
        p.cache = {step.data(), lists.data(), slot.data(), 3, {{8, 4}}};
        return p;
    }
};

}  // namespace

TEST_CASE("check sparse_prefill: every rule", "[op]") {
    testing::attend_input<bf16> input({.queries = {20, 20}, .keys = {200, 130}, .heads = 4, .kv_heads = 2});
    using row = testing::bad_input<prefill>;
    testing::require_statuses(
        prefill_of(input.params()),
        std::vector<row>{
            {[](prefill& p) { p.queries.extent[3] = 80; }, errc::unsupported, "queries.extent[3]", 80},
            {[](prefill& p) { p.method.stages[0].keep = 0; }, errc::out_of_range, "method.stages.keep", 0},
            {[](prefill& p) { p.method.window.recent = -1; }, errc::out_of_range, "method.window.recent", -1},
            {[](prefill& p) { p.dense_tail = -1; }, errc::out_of_range, "dense_tail", -1},
            {[](prefill& p) { p.delta.gamma = -1; }, errc::out_of_range, "delta.gamma", -1},
            {[](prefill& p) { p.delta = {.gamma = 16, .dense_tail = -3}; }, errc::out_of_range, "delta.dense_tail", -3},
            {[](prefill& p) { p.delta = {.gamma = 16, .form = static_cast<delta_form>(9)}; }, errc::out_of_range,
             "delta.form", 9},
            {[](prefill& p) { p.delta.gamma = 16, p.mask = full{}; }, errc::unsupported, "mask", 1},
            {[](prefill& p) { p.delta.gamma = 16, p.dense_tail = 7; }, errc::out_of_range, "dense_tail", 7},
            {[](prefill& p) { p.delta.gamma = 16, p.sink_logits = reinterpret_cast<float const*>(p.queries.data); },
             errc::unsupported, "sink_logits", 1},
            {[](prefill& p) { p.values.data = nullptr; }, errc::null_pointer, "values.data", 0},
            {[](prefill& p) { p.output.extent[0] = 1; }, errc::bad_extent, "output.extent", 1},
            {[](prefill& p) { p.lse.values.extent[1] = 1; }, errc::bad_extent, "lse.values.extent", 1},
            {[](prefill& p) { p.scale = 0; }, errc::out_of_range, "scale", 0},
            {[](prefill& p) { p.soft_cap = -2; }, errc::out_of_range, "soft_cap", -2},
            {[](prefill& p) { p.rotation.theta = 0.25f; }, errc::out_of_range, "rotation.theta", 1},
            {[](prefill& p) { p.rotation.theta = 10, p.method.scorer = scorer::centre_probe; }, errc::unsupported,
             "method.scorer", 2},
            {[](prefill& p) { p.rotation.theta = 10, p.mask = full{}; }, errc::unsupported, "mask.kind", 1},
            {[](prefill& p) { p.mask = causal{-2}; }, errc::out_of_range, "mask.offset", -2},
            {[](prefill& p) {  // 65535 requests x 512 heads x 128 last query blocks in a first one
                 p.method.stages[0].query_block = 128, p.method.stages[0].query_stride = 1;
                 p.method.stages[1].query_block = p.method.stages[1].query_stride = 1;
                 p.method.sharing = sharing::per_head;
                 p.queries.extent[0] = p.keys.extent[0] = 65535, p.queries.extent[2] = 512;
             },
             errc::unsupported, "batch", 65535},
        },
        [](prefill const& p) { return check(p); });
}

TEST_CASE("check sparse_decode: every rule", "[op]") {
    decode_memory m;
    using row = testing::bad_input<decode>;
    testing::require_statuses(
        m.view(),
        std::vector<row>{
            {[](decode& p) { p.keys.extent[3] = 128; }, errc::bad_extent, "keys.extent[3]", 128},
            {[](decode& p) { p.method.stage_count = 12; }, errc::out_of_range, "method.stage_count", 12},
            {[](decode& p) { p.rotation.theta = 10, p.scan = static_cast<scan_style>(-1); }, errc::out_of_range, "scan",
             -1},
            {[](decode& p) { p.rotation.theta = 10, p.method.scorer = scorer::centre_probe; }, errc::unsupported,
             "method.scorer", 2},
            {[](decode& p) { p.queries.extent[1] = 2; }, errc::unsupported, "queries.extent[1]", 2},
            {[](decode& p) { p.cache.step = nullptr; }, errc::null_pointer, "cache.step", 0},
            {[](decode& p) { p.cache.lists = nullptr; }, errc::null_pointer, "cache.lists", 0},
            {[](decode& p) { p.cache.slots = 0; }, errc::bad_extent, "cache.slots", 0},
            {[](decode& p) { p.cache.slot = nullptr, p.cache.slots = 1; }, errc::bad_extent, "cache.slots", 1},
            {[](decode& p) { p.cache.intervals.steps[1] = 0; }, errc::out_of_range, "cache.intervals.steps", 0},
            {[](decode& p) { p.cache.intervals.steps[0] = 65; }, errc::out_of_range, "cache.intervals.steps[0]", 65},
            {[](decode& p) { p.method.window.recent = -1; }, errc::out_of_range, "method.window.recent", -1},
            {[](decode& p) { p.cache.slots = 1 << 30, p.method.sharing = sharing::per_head; }, errc::unsupported,
             "cache.slots", 1 << 30},
            {[](decode& p) { p.cache.step = shifted(p.cache.step); }, errc::misaligned, "cache.step", 1},
            {[](decode& p) { p.cache.lists = shifted(p.cache.lists); }, errc::misaligned, "cache.lists", 1},
            {[](decode& p) { p.cache.slot = shifted(p.cache.slot); }, errc::misaligned, "cache.slot", 1},
            {[](decode& p) { p.values.extent[1] = 7; }, errc::bad_extent, "values.extent", 7},
            {[](decode& p) { p.output.data = nullptr; }, errc::null_pointer, "output.data", 0},
            {[](decode& p) { p.scale = -1; }, errc::out_of_range, "scale", -1},
        },
        [](decode const& p) { return check(p); });
}

TEST_CASE("check sparse_decode: an fp8 cache", "[op]") {
    decode_memory m;
    decode const wide = m.view();
    testing::quantised_cache<bf16> const cache(m.input.params(), 2, 1, 1, 2);
    using narrow = sparse_decode_params<bf16, fp8_e4m3>;
    narrow p;
    p.queries = wide.queries, p.kv = wide.kv, p.output = wide.output, p.lse = wide.lse, p.scale = wide.scale;
    p.keys = wide.keys.over(cache.keys.data());
    p.values = wide.values.over(cache.values.data());
    p.method = wide.method, p.cache = wide.cache, p.scales = cache.scales();
    testing::require_statuses(
        p,
        std::vector<testing::bad_input<narrow>>{
            {[](narrow& n) { n.queries.extent[1] = 2; }, errc::unsupported, "queries.extent[1]", 2},
            {[](narrow& n) { n.keys.data += 8; }, errc::misaligned, "keys.data", 8},
            {[](narrow& n) { n.values.data += 8; }, errc::misaligned, "values.data", 8},
            {[](narrow& n) { n.values.extent[1] = 7; }, errc::bad_extent, "values.extent", 7},
            {[](narrow& n) { n.method.scorer = scorer::min_max_bound; }, errc::unsupported, "method.scorer", 4},
            {[](narrow& n) { n.summary.data = n.queries.data; }, errc::unsupported, "summary.data", 0},
            {[](narrow& n) { n.rotation.theta = 10; }, errc::unsupported, "rotation", 1},
            {[](narrow& n) { n.scales.heads = 4; }, errc::bad_extent, "scales.heads", 4},
            {[](narrow& n) { n.scales.value = shifted(n.scales.value); }, errc::misaligned, "scales.value", 1},
            {[](narrow& n) { n.cache.lists = nullptr; }, errc::null_pointer, "cache.lists", 0},
            {[](narrow& n) { n.scale = 0; }, errc::out_of_range, "scale", 0},
        },
        [](narrow const& n) { return check(n); });
    decode scaled = wide;
    scaled.scales = cache.scales();
    CHECK(std::string(check(scaled).field) == "scales");
    // Its plan is that of the wider cache, and 16 query heads of a KV head are the most.
    CHECK(plan(p, device_info{}).workspace_bytes == plan(wide, device_info{}).workspace_bytes);
    testing::attend_input<bf16> many({.queries = {1, 1}, .keys = {200, 130}, .heads = 34, .kv_heads = 2});
    auto const a = many.params();
    p.queries = a.queries, p.output = a.output, p.lse = a.lse;
    CHECK(check(p).ok());
    CHECK(plan(p, device_info{}).why.code == errc::unsupported);
    CHECK(std::string(plan(p, device_info{}).why.field) == "queries.extent[1]");
}

TEST_CASE("check sparse_decode: fewer slots than requests are allowed with cache.slot only", "[op]") {
    decode_memory m;
    decode p = m.view();
    p.cache.slots = 1;
    CHECK(check(p).ok());
    p.cache.slots = 3, p.cache.slot = nullptr;
    CHECK(check(p).ok());
}

TEST_CASE("sparse: a failed call writes nothing", "[op]") {
    decode_memory m;
    decode p = m.view();
    p.scale = 0;
    auto const step = m.step, lists = m.lists;
    CHECK_FALSE(reference::sparse_decode(p).ok());
    CHECK(m.step == step);
    CHECK(m.lists == lists);
}

TEST_CASE("plan sparse_prefill: the workspace holds the selection, then each part in turn", "[op]") {
    testing::attend_input<bf16> input({.queries = {40, 40}, .keys = {200, 130}, .heads = 4, .kv_heads = 2});
    for (std::int32_t const tail : {0, 16, 64}) {
        prefill p = prefill_of(input.params());
        p.dense_tail = tail;
        sparse_plan const made = plan(p, device_info{});
        REQUIRE(made);
        auto const extents = selection_extents_of(p.method, p.shape());
        std::size_t const entries = extents.list_count() * std::size_t(extents.capacity) * sizeof(std::int32_t);
        CHECK(made.selection_blocks + entries <= made.selection_counts);
        CHECK(made.selection_counts + extents.list_count() * sizeof(std::int32_t) <= made.scratch);
        CHECK(made.scratch + made.prune.workspace_bytes <= made.workspace_bytes);
        CHECK(made.scratch + made.attend.workspace_bytes <= made.workspace_bytes);
        CHECK(made.scratch + made.tail.workspace_bytes <= made.workspace_bytes);
        CHECK(made.scratch % workspace_alignment == 0);
    }
}

TEST_CASE("plan sparse_prefill: with a correction, it holds that of the anchors", "[op]") {
    testing::attend_input<bf16> input({.queries = {400, 400}, .keys = {500, 430}, .heads = 4, .kv_heads = 2});
    prefill p = prefill_of(input.params());
    sparse_plan const plain = plan(p, device_info{});
    p.delta.gamma = 16;
    sparse_plan const corrected = plan(p, device_info{});
    REQUIRE(plain);
    REQUIRE(corrected);
    CHECK(corrected.scratch == plain.scratch);
    CHECK(corrected.delta.workspace_bytes > plain.attend.workspace_bytes);
    CHECK(corrected.scratch + corrected.delta.workspace_bytes <= corrected.workspace_bytes);
    CHECK(corrected.scratch + corrected.prune.workspace_bytes <= corrected.workspace_bytes);
    CHECK_FALSE(corrected.same_layout(plain));
}

TEST_CASE("plan sparse_prefill: the workspace holds lists of any length and splits of either half", "[op]") {
    // One row of many heads over a long context: the dense tail's partial results outweigh all else.
    prefill p;
    p.queries = packed_view(static_cast<bf16 const*>(nullptr), {1, 64, 64, 256});
    p.keys = p.values = packed_view(static_cast<bf16 const*>(nullptr), {1, 200000, 1, 256});
    p.output = packed_view(static_cast<bf16*>(nullptr), {1, 64, 64, 256});
    p.method = prune_method{.stages = {{64, 1, 64, 4096}}, .stage_count = 1, .window = {64, 64}};
    p.method.stages[0].keep = 1000;
    for (std::int32_t const tail : {0, 1, 64}) {
        p.dense_tail = tail;
        sparse_plan const made = sparse_plan_of(p, device_info{});
        REQUIRE(made);
        auto const extents = selection_extents_of(p.method, p.shape());
        std::size_t const entries = extents.list_count() * std::size_t(extents.capacity) * sizeof(std::int32_t);
        CHECK(entries > 2 * workspace_alignment);  // no rounding hides a missing factor
        CHECK(made.selection_blocks + entries <= made.selection_counts);
        CHECK(made.selection_counts + extents.list_count() * sizeof(std::int32_t) <= made.scratch);
        attend_plan const dense = attend_plan_of(tail_part(p), device_info{});
        if (tail > 0) {
            CHECK(made.tail.same_layout(dense));
            CHECK(dense.workspace_bytes > 0);
            CHECK(made.scratch + dense.workspace_bytes <= made.workspace_bytes);
        }
        if (tail == 64) CHECK(dense.workspace_bytes > larger(made.prune.workspace_bytes, made.attend.workspace_bytes));
        CHECK(made.scratch + made.prune.workspace_bytes <= made.workspace_bytes);
        CHECK(made.scratch + made.attend.workspace_bytes <= made.workspace_bytes);
    }
}

TEST_CASE("sparse_decode: lists are made for as many steps as they are kept", "[op]") {
    decode_memory m;
    decode const p = m.view();
    CHECK(prune_part(p).lookahead == 8);
    CHECK(prune_part(p).method.stage_count == p.method.stage_count);
}

TEST_CASE("plan sparse: refuses what check refuses, and old devices", "[op]") {
    decode_memory m;
    testing::attend_input<bf16> input({.queries = {40}, .keys = {200}, .heads = 4, .kv_heads = 2});
    device_info old;
    old.compute_capability = 75;
    CHECK(plan(m.view(), device_info{}));
    CHECK(plan(m.view(), old).why.code == errc::unsupported);
    CHECK(plan(prefill_of(input.params()), old).why.code == errc::unsupported);
    prefill p = prefill_of(input.params());
    p.scale = 0;
    CHECK(std::string(plan(p, device_info{}).why.field) == "scale");
    decode d = m.view();
    d.cache.step = nullptr;
    CHECK(std::string(plan(d, device_info{}).why.field) == "cache.step");
}

TEST_CASE("plan sparse_decode: depends on maxima, not on lengths or slots of the moment", "[op]") {
    decode_memory m;
    sparse_plan const before = plan(m.view(), device_info{});
    m.input.key_lengths()[0] = 3;
    m.slot = {-1, 1};
    sparse_plan const after = plan(m.view(), device_info{});
    CHECK(before.workspace_bytes == after.workspace_bytes);
    CHECK(before.attend.schedule.splits == after.attend.schedule.splits);
    CHECK(before.workspace_bytes >= larger(before.prune.workspace_bytes, before.attend.workspace_bytes));
}

TEST_CASE("sparse_plan_of: sizes a decode step before there are tensors", "[op]") {
    decode_memory m;
    decode p = m.view();
    std::size_t const bytes = plan(p, device_info{}).workspace_bytes;
    p.queries.data = p.keys.data = p.values.data = nullptr;
    p.output.data = nullptr;
    p.cache.step = p.cache.lists = nullptr;
    CHECK(cached_selection(p).blocks.data == nullptr);
    CHECK(cached_selection(p).counts.data == nullptr);
    CHECK(sparse_plan_of(p, device_info{}).workspace_bytes == bytes);
}

TEST_CASE("plan sparse_prefill: lists that no address space holds", "[op]") {
    testing::attend_input<bf16> input(
        {.queries = {20, 20}, .keys = {200, 130}, .heads = 4, .kv_heads = 2, .ragged_queries = true});
    prefill p = prefill_of(input.params());
    p.method = {.stages = {{1, 1, 8, 65536}}, .stage_count = 1, .window = {16, 64}, .sharing = sharing::per_head};
    p.queries.extent[1] = p.output.extent[1] = p.lse.values.extent[1] = max_tokens;
    p.rows.batch = 65535;
    p.rows.max_length = static_cast<std::int32_t>(max_tokens);
    p.kv = {.layout = kv_layout::ragged, .start = p.rows.start, .max_length = 100};
    p.keys.extent[0] = p.values.extent[0] = 1;
    CHECK(plan(p, device_info{}).why.code == errc::unsupported);
}
