// What every launch promises: capture in a graph without allocation or synchronisation, replay after contents changed
// in place, and a status, with nothing written, for bad params, plans and workspaces.
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "support/gpu_prune.hpp"

using namespace winnow;
using testing::attend_input;
using testing::captured_graph;
using testing::current_device;
using testing::device_copy;
using testing::device_memory;
using testing::device_selection;

namespace {

constexpr prune_method two_stages{.stages = {{32, 2, 32, 6}, {16, 1, 8, 8}}, .stage_count = 2, .window = {16, 64}};

sparse_prefill_params<bf16> prefill_of(attend_params<bf16> const& a, std::int32_t dense_tail) {
    sparse_prefill_params<bf16> p;
    p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.kv = a.kv, p.rows = a.rows;
    p.output = a.output, p.lse = a.lse, p.scale = a.scale;
    p.method = two_stages, p.dense_tail = dense_tail;
    return p;
}

// Captures one launch of `p`, then for each change in turn: changes the inputs, replays, compares with a plain launch.
template <class Params>
void check_replays(device_copy<bf16>& memory, Params const& p, std::vector<std::function<void()>> const& changes) {
    auto const plan = testing::run_on_device(p);  // also brings the code to the device before the capture
    device_memory scratch(plan.workspace_bytes, 4096);
    captured_graph const graph([&](cudaStream_t stream) {
        status const s = testing::gpu_launch(p, plan, {scratch.data(), plan.workspace_bytes}, stream);
        INFO(s.field << " " << s.rule << " " << s.value);
        REQUIRE(s.ok());
    });
    CHECK(graph.kernels_and_others().first > 0);
    CHECK(graph.kernels_and_others().second == 0);
    for (std::size_t i = 0; i < changes.size(); ++i) {
        INFO("change " << i);
        changes[i]();
        memory.refresh();
        graph.replay();
        auto const replayed = memory.download();
        memory.refresh();
        testing::run_on_device(p);
        CHECK((memory.download() == replayed));
    }
    CHECK(scratch.guard_intact());
}

// Lengths, page table and lists of one request change; maxima stay.
std::vector<std::function<void()>> changes_of(attend_input<bf16>& in) {
    return {[] {}, [&in] { in.key_lengths()[0] = 123, in.key_lengths()[1] = 0; },
            [&in] { std::swap(in.pages()[0], in.pages()[1]), in.pages()[3] = -1; },
            [&in] {
                auto const lists = in.selection_buffer();
                if (in.params().selection.empty()) return;
                for (std::int64_t i = 0; i < lists.counts.size(); ++i) lists.counts.data[i] /= 2;
            },
            [&in] { in.key_lengths()[0] = 400, in.key_lengths()[1] = 390; }};
}

}  // namespace

TEST_CASE("launch: attention in a graph", "[gpu]") {
    for (std::int32_t const rows : {1, 40, 150})
        for (bool const listed : {false, true}) {
            INFO(rows << " rows, listed " << listed);
            attend_input<bf16> in({.queries = {rows, rows},
                                   .keys = {400, 390},
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .layout = kv_layout::block_table,
                                   .page_size = 16});
            if (listed) in.add_selection(16, 32, sharing::per_batch, 20, 0.5);
            device_copy<bf16> memory(in);
            auto p = memory.params();
            if (listed) p.window = {16, 64};
            check_replays(memory, p, changes_of(in));
        }
}

TEST_CASE("launch: prefill in a graph", "[gpu]") {
    for (std::int32_t const tail : {0, 20}) {
        attend_input<bf16> in({.queries = {70, 33},
                               .keys = {400, 390},
                               .heads = 4,
                               .kv_heads = 2,
                               .layout = kv_layout::block_table,
                               .page_size = 16,
                               .ragged_queries = true});
        device_copy<bf16> memory(in);
        check_replays(memory, prefill_of(memory.params(), tail), changes_of(in));
    }
}

TEST_CASE("launch: pruning in a graph", "[gpu]") {
    attend_input<bf16> in({.queries = {70, 70},
                           .keys = {400, 390},
                           .heads = 4,
                           .layout = kv_layout::block_table,
                           .page_size = 16,
                           .values = testing::draw::integers});
    device_copy<bf16> memory(in);
    auto p = testing::prune_params_of(memory.params(), two_stages);
    device_selection const selection(two_stages, p.shape()), again(two_stages, p.shape());
    p.selection = selection.view();
    auto const plan = testing::run_on_device(p);
    device_memory scratch(plan.workspace_bytes, 4096);
    captured_graph const graph([&](cudaStream_t stream) {
        REQUIRE(testing::gpu_launch(p, plan, {scratch.data(), plan.workspace_bytes}, stream).ok());
    });
    CHECK(graph.kernels_and_others().second == 0);
    for (auto const& change : changes_of(in)) {
        change();
        memory.refresh();
        graph.replay();
        auto q = p;
        q.selection = again.view();
        testing::run_on_device(q);
        auto const a = selection.download(), b = again.download();
        CHECK((a.counts == b.counts));
        for (std::int32_t r = 0; r < 2; ++r)
            for (std::int32_t m = 0; m < a.view.blocks.extent[2]; ++m)
                CHECK(testing::list_of(a, r, 0, m) == testing::list_of(b, r, 0, m));
    }
    CHECK(scratch.guard_intact());
}

TEST_CASE("launch: merging in a graph", "[gpu]") {
    device_memory outputs(3 * 4 * 2 * 64 * sizeof(float)), lses(3 * 4 * 2 * sizeof(float)),
        output(4 * 2 * 64 * sizeof(float));
    merge_params<float> p;
    p.outputs = packed_view<float const>(outputs.as<float>(), {3, 4, 2, 64});
    p.lses = packed_view<float const>(lses.as<float>(), {3, 4, 2});
    p.output = packed_view(output.as<float>(), {4, 2, 64});
    std::vector<float> ones(3 * 4 * 2 * 64, 1.0f);
    outputs.upload(ones.data(), outputs.size());
    lses.upload(ones.data(), lses.size());
    auto const plan = testing::run_on_device(p);
    captured_graph const graph([&](cudaStream_t stream) { REQUIRE(testing::gpu_launch(p, plan, {}, stream).ok()); });
    CHECK(graph.kernels_and_others() == std::pair{1, 0});
    for (float& x : ones) x = 5.0f;
    outputs.upload(ones.data(), outputs.size());
    graph.replay();
    for (float const x : output.download<float>()) REQUIRE(x == 5.0f);
}

TEST_CASE("launch: attention with bad params", "[gpu]") {
    attend_input<bf16> in({.queries = {2, 2}, .keys = {600, 600}, .heads = 4, .kv_heads = 2, .head_dim = 128});
    in.add_selection(16, 16, sharing::per_batch, 40, 0.3);
    device_copy<bf16> memory(in);
    auto valid = memory.params();
    valid.window = {16, 64};
    auto const plan = winnow::plan(valid, current_device());
    REQUIRE(plan.why.ok());
    REQUIRE(plan.workspace_bytes > 0);
    device_memory scratch(plan.workspace_bytes + 512);
    using p = attend_params<bf16>;
    auto const before = memory.download();
    std::vector<testing::bad_input<p>> const table = {
        {[](p& a) { a.queries.data = nullptr; }, errc::null_pointer, "queries.data", 0},
        {[](p& a) { a.keys.data = nullptr; }, errc::null_pointer, "keys.data", 0},
        {[](p& a) { a.values.data = nullptr; }, errc::null_pointer, "values.data", 0},
        {[](p& a) { a.output.data = nullptr; }, errc::null_pointer, "output.data", 0},
        {[](p& a) { a.queries.data += 1; }, errc::misaligned, "queries.data", 2},
        {[](p& a) { a.keys.stride[3] = 2; }, errc::bad_stride, "keys.stride[3]", 2},
        {[](p& a) { a.keys.stride[1] += 4; }, errc::misaligned, "keys.stride", 2 * 128 + 4},
        {[](p& a) { a.queries.extent[3] = a.keys.extent[3] = 96; }, errc::unsupported, "queries.extent[3]", 96},
        {[](p& a) { a.selection.block_size = 24; }, errc::unsupported, "selection.block_size", 24},
        {[](p& a) { a.selection.counts.data = nullptr; }, errc::null_pointer, "selection.counts.data", 0},
        {[](p& a) { a.scale = 0; }, errc::out_of_range, "scale", 0},
        {[](p& a) { a.window.sinks = -1; }, errc::out_of_range, "window.sinks", -1},
        {[](p& a) { a.kv.max_length = 601; }, errc::out_of_range, "kv.max_length", 601},
    };
    int launches = 0;
    testing::require_statuses(valid, table, [&](p const& a) {
        auto const s = testing::gpu_launch(a, plan, {scratch.data(), plan.workspace_bytes}, nullptr);
        testing::require_cuda(cudaDeviceSynchronize());
        if (launches++ > 0) CHECK((memory.download() == before));
        memory.refresh();  // the valid launch wrote
        return s;
    });

    auto const refuses = [&](status const& s, errc code, char const* field) {
        INFO("expected " << field << ", found '" << s.field << " " << s.rule << "' " << s.value);
        CHECK(name(s.code) == std::string(name(code)));
        CHECK(std::string(s.field) == field);
        testing::require_cuda(cudaDeviceSynchronize());
        CHECK((memory.download() == before));
    };
    refuses(testing::gpu_launch(valid, plan, {}, nullptr), errc::null_pointer, "workspace.data");
    refuses(testing::gpu_launch(valid, plan, {scratch.data(), plan.workspace_bytes - 1}, nullptr),
            errc::workspace_too_small, "workspace.bytes");
    refuses(testing::gpu_launch(valid, plan, {scratch.data() + 16, plan.workspace_bytes}, nullptr), errc::misaligned,
            "workspace.data");
    // A plan that is none comes back with its own reason.
    auto bad = valid;
    bad.scale = -1;
    auto const none = winnow::plan(bad, current_device());
    refuses(testing::gpu_launch(valid, none, {scratch.data(), scratch.size()}, nullptr), errc::out_of_range, "scale");
}

TEST_CASE("launch: attention with the plan of another problem", "[gpu]") {
    attend_input<bf16> in({.queries = {30, 30}, .keys = {600, 600}, .heads = 4, .kv_heads = 2, .head_dim = 128});
    in.add_selection(16, 48, sharing::per_kv_group, 40, 0.3);
    device_copy<bf16> memory(in);
    auto const before = memory.download();
    auto valid = memory.params();
    valid.window = {16, 64};
    device_memory scratch(std::size_t{64} << 20);
    using p = attend_params<bf16>;
    std::vector<std::pair<char const*, std::function<void(p&)>>> const others = {
        {"fewer requests",
         [](p& a) {
             for (auto* v : {&a.keys, &a.values}) v->extent[0] = 1;
             a.queries.extent[0] = a.output.extent[0] = a.lse.values.extent[0] = 1;
             a.selection.blocks.extent[0] = a.selection.counts.extent[0] = 1;
         }},
        {"fewer rows", [](p& a) { a.queries.extent[1] = a.output.extent[1] = a.lse.values.extent[1] = 20; }},
        {"fewer keys", [](p& a) { a.kv.max_length = 300; }},
        // Same extents, but another schedule: tiles that cross query blocks, or too few splits for the keys.
        {"another query block", [](p& a) { a.selection.query_block = 32; }},
        {"no list", [](p& a) { a.selection = {}; }},
        {"a shorter list", [](p& a) { a.selection.blocks.extent[3] = 3; }},
        {"a shorter window", [](p& a) { a.window = {0, 8}; }},
        {"the last rows only", [](p& a) { a.range = row_range::tail_only, a.tail = 3; }},
    };
    for (auto const& [what, change] : others) {
        auto other = valid;
        change(other);
        auto const plan = winnow::plan(other, current_device());
        REQUIRE(plan.why.ok());
        auto const s = testing::gpu_launch(valid, plan, {scratch.data(), scratch.size()}, nullptr);
        INFO("plan of " << what << ", found '" << s.field << " " << s.rule << "'");
        CHECK(name(s.code) == std::string(name(errc::wrong_plan)));
        testing::require_cuda(cudaDeviceSynchronize());
        CHECK((memory.download() == before));
        memory.refresh();
    }
}

TEST_CASE("launch: one instance serves its own plans alone", "[gpu]") {
    attend_input<bf16> in({.queries = {150}, .keys = {300}, .heads = 2, .head_dim = 128});
    device_copy<bf16> memory(in);
    auto const p = memory.params();
    auto const plan = testing::run_on_device(p);
    CHECK(plan.schedule.rows == attend_rows::large);
    auto const expected = memory.download();
    memory.refresh();
    testing::device_memory const scratch(plan.workspace_bytes);
    CHECK(testing::gpu_launch_128_large(p, plan, {scratch.data(), scratch.size()}, nullptr).ok());
    testing::require_cuda(cudaDeviceSynchronize());
    CHECK((memory.download() == expected));

    for (std::int32_t const head_dim : {64, 128}) {  // another head_dim; another row class
        attend_input<bf16> other(
            {.queries = {head_dim == 64 ? 150 : 1}, .keys = {200}, .heads = 2, .head_dim = head_dim});
        device_copy<bf16> there(other);
        auto const q = there.params();
        auto const s = testing::gpu_launch_128_large(q, winnow::plan(q, current_device()), {}, nullptr);
        INFO(s.field << " " << s.rule);
        CHECK(name(s.code) == std::string(name(errc::wrong_plan)));
        testing::require_cuda(cudaDeviceSynchronize());
        CHECK(there.stray_write(there.download(), false) == -1);
    }
}

TEST_CASE("launch: pruning with bad params, workspace and plan", "[gpu]") {
    attend_input<bf16> in({.queries = {200}, .keys = {900}, .heads = 2, .layout = kv_layout::block_table});
    device_copy<bf16> memory(in);
    auto valid = testing::prune_params_of(memory.params(), two_stages);
    device_selection const selection(two_stages, valid.shape());
    valid.selection = selection.view();
    auto const plan = winnow::plan(valid, current_device());
    REQUIRE(plan.why.ok());
    REQUIRE(plan.workspace_bytes > 0);
    device_memory scratch(plan.workspace_bytes + 512);
    using p = prune_params<bf16>;
    std::vector<testing::bad_input<p>> const table = {
        {[](p& a) { a.queries.data = nullptr; }, errc::null_pointer, "queries.data", 0},
        {[](p& a) { a.kv.pages = nullptr; }, errc::null_pointer, "kv.pages", 0},
        {[](p& a) { a.kv.length = nullptr; }, errc::null_pointer, "kv.length", 0},
        {[](p& a) { a.method.stages[0].chunk = 48; }, errc::out_of_range, "method.stages.chunk", 48},
        {[](p& a) { a.method.window.sinks = 4; }, errc::out_of_range, "method.window.sinks", 4},
        {[](p& a) { a.selection.blocks.data = nullptr; }, errc::null_pointer, "selection.blocks.data", 0},
        {[](p& a) { a.selection.blocks.extent[3] = 7; }, errc::bad_extent, "selection.blocks.extent[3]", 7},
        {[](p& a) { a.lookahead = -1; }, errc::out_of_range, "lookahead", -1},
    };
    testing::require_statuses(valid, table, [&](p const& a) {
        return testing::gpu_launch(a, plan, {scratch.data(), plan.workspace_bytes}, nullptr);
    });
    testing::require_cuda(cudaDeviceSynchronize());

    // Fresh lists, all -1: no refused launch may write them.
    device_selection const untouched(two_stages, valid.shape());
    valid.selection = untouched.view();
    auto const code = [&](prune_plan const& other, workspace const& w) {
        return std::string(name(testing::gpu_launch(valid, other, w, nullptr).code));
    };
    CHECK(code(plan, {}) == name(errc::null_pointer));
    CHECK(code(plan, {scratch.data(), plan.workspace_bytes - 1}) == name(errc::workspace_too_small));
    CHECK(code(plan, {scratch.data() + 64, plan.workspace_bytes}) == name(errc::misaligned));
    auto other = valid;
    other.kv.max_length = 500;
    CHECK(code(winnow::plan(other, current_device()), {scratch.data(), scratch.size()}) == name(errc::wrong_plan));
    // Same extents, but a method that needs less room.
    other = valid;
    other.method.stages[0].keep = 2;
    REQUIRE(winnow::plan(other, current_device()).workspace_bytes < plan.workspace_bytes);
    CHECK(code(winnow::plan(other, current_device()), {scratch.data(), scratch.size()}) == name(errc::wrong_plan));
    testing::require_cuda(cudaDeviceSynchronize());
    for (auto const count : untouched.download().counts) CHECK(count == -1);
}

TEST_CASE("launch: merging with bad params", "[gpu]") {
    device_memory outputs(2 * 3 * 2 * 64 * 2), lses(2 * 3 * 2 * 4), output(3 * 2 * 64 * 2);
    merge_params<bf16> valid;
    valid.outputs = packed_view<bf16 const>(outputs.as<bf16>(), {2, 3, 2, 64});
    valid.lses = packed_view<float const>(lses.as<float>(), {2, 3, 2});
    valid.output = packed_view(output.as<bf16>(), {3, 2, 64});
    auto const plan = winnow::plan(valid, current_device());
    REQUIRE(plan.why.ok());
    using p = merge_params<bf16>;
    std::vector<testing::bad_input<p>> const table = {
        {[](p& a) { a.outputs.data = nullptr; }, errc::null_pointer, "outputs.data", 0},
        {[](p& a) { a.lses.data = nullptr; }, errc::null_pointer, "lses.data", 0},
        {[](p& a) { a.output.data = nullptr; }, errc::null_pointer, "output.data", 0},
        {[](p& a) { a.outputs.extent[0] = 0; }, errc::bad_extent, "outputs.extent[0]", 0},
        {[](p& a) { a.output.stride[2] = 3; }, errc::bad_stride, "output.stride[2]", 3},
    };
    testing::require_statuses(valid, table, [&](p const& a) { return testing::gpu_launch(a, plan, {}, nullptr); });
    testing::require_cuda(cudaDeviceSynchronize());
}

TEST_CASE("launch: prefill and decode with bad params, workspace and plan", "[gpu]") {
    attend_input<bf16> in({.queries = {200}, .keys = {900}, .heads = 2});
    device_copy<bf16> memory(in);
    auto const before = memory.download();
    auto const valid = prefill_of(memory.params(), 8);
    auto const plan = winnow::plan(valid, current_device());
    REQUIRE(plan.why.ok());
    device_memory scratch(plan.workspace_bytes + (std::size_t{1} << 20));
    auto const code = [&](sparse_prefill_params<bf16> const& p, sparse_plan const& with, workspace const& w) {
        std::string const found = name(testing::gpu_launch(p, with, w, nullptr).code);
        testing::require_cuda(cudaDeviceSynchronize());
        CHECK((memory.download() == before));
        return found;
    };
    workspace const whole{scratch.data(), scratch.size()};
    CHECK(code(valid, plan, {}) == name(errc::null_pointer));
    CHECK(code(valid, plan, {scratch.data(), plan.workspace_bytes - 1}) == name(errc::workspace_too_small));
    CHECK(code(valid, plan, {scratch.data() + 32, plan.workspace_bytes}) == name(errc::misaligned));
    auto bad = valid;
    bad.values.data = nullptr;
    CHECK(code(bad, plan, whole) == name(errc::null_pointer));
    bad = valid;
    bad.dense_tail = -1;
    CHECK(code(bad, plan, whole) == name(errc::out_of_range));
    auto other = valid;
    other.kv.max_length = 400;
    CHECK(code(valid, winnow::plan(other, current_device()), whole) == name(errc::wrong_plan));
    other = valid;
    other.method.stages[1].keep = 2;
    REQUIRE(winnow::plan(other, current_device()).workspace_bytes < plan.workspace_bytes);
    CHECK(code(valid, winnow::plan(other, current_device()), whole) == name(errc::wrong_plan));

    attend_input<bf16> one({.queries = {1}, .keys = {900}, .heads = 2});
    device_copy<bf16> there(one);
    auto const a = there.params();
    device_memory lists(stage_cache_entries(two_stages, 2, 2, 1) * 4), step(4);
    sparse_decode_params<bf16> decode;
    decode.queries = a.queries, decode.keys = a.keys, decode.values = a.values, decode.kv = a.kv;
    decode.output = a.output, decode.lse = a.lse, decode.scale = a.scale, decode.method = two_stages;
    decode.cache = {step.as<std::int32_t>(), lists.as<std::int32_t>(), nullptr, 1, refresh_default};
    auto const decode_plan = winnow::plan(decode, current_device());
    REQUIRE(decode_plan.why.ok());
    CHECK(testing::gpu_launch(decode, decode_plan, {}, nullptr).code == errc::null_pointer);
    auto spoilt = decode;
    spoilt.cache.step = nullptr;
    CHECK(testing::gpu_launch(spoilt, decode_plan, whole, nullptr).code == errc::null_pointer);
    spoilt = decode;
    spoilt.cache.slots = 0;
    CHECK(testing::gpu_launch(spoilt, decode_plan, whole, nullptr).code == errc::bad_extent);
    testing::require_cuda(cudaDeviceSynchronize());
    CHECK(there.stray_write(there.download(), false) == -1);
    for (auto const x : lists.download<std::int32_t>()) REQUIRE(x == -1);
}
