// Pruning and sparse_decode over an fp8 cache against the oracle, which reads the same quantised elements and scales.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "support/gpu_decode.hpp"
#include "support/gpu_prune.hpp"
#include "support/gpu_quantised_cache.hpp"
#include "winnow/reference/sparse.hpp"

using namespace winnow;
using testing::attend_input;
using testing::cache_copy;
using testing::device_copy;
using testing::device_memory;
using testing::draw;
using testing::quantised_cache;

namespace {

constexpr prune_method mixed{
    .stages = {{64, 8, 128, 5}, {32, 2, 32, 9}, {16, 1, 16, 7}}, .stage_count = 3, .window = {32, 48}};
constexpr prune_method three_stages{
    .stages = {{16, 2, 64, 3}, {16, 1, 32, 4}, {16, 1, 8, 6}}, .stage_count = 3, .window = {16, 32}};

prune_method with(prune_method m, scorer how, sharing share, probe_path path = probe_path::per_kv_group) {
    m.scorer = how, m.sharing = share, m.path = path;
    return m;
}

// --- Pruning ---------------------------------------------------------------------------------------------------------

template <class T>
prune_params<T, fp8_e4m3> prune_over(attend_params<T> const& a, prune_method const& method, fp8_e4m3 const* keys,
                                     cache_scales const& scales) {
    prune_params<T, fp8_e4m3> p;
    p.queries = a.queries, p.kv = a.kv, p.rows = a.rows, p.method = method;
    p.keys = a.keys.over(keys), p.scales = scales;
    return p;
}

// The device's lists against the oracle's; `margin` as in compare_selection.
template <class T>
void check_prune(attend_input<T>& in, cache_copy<T> const& cache, prune_method const& method, double margin = 0) {
    device_copy<T> memory(in);
    auto p = prune_over(memory.params(), method, cache.keys.template as<fp8_e4m3>(), cache.device_scales());
    testing::device_selection const selection(method, p.shape());
    p.selection = selection.view();
    testing::run_on_device(p);
    CHECK(memory.stray_write(memory.download()) == -1);
    CHECK(cache.untouched());
    auto const found = selection.download();

    p = prune_over(in.params(), method, cache.host.keys.data(), cache.host.scales());
    reference::selection_storage const own(method, p.shape());
    p.selection = own.view;
    reference::prune_trace trace;
    REQUIRE(reference::prune(p, &trace, testing::all_threads()).ok());
    p.selection = found.view;
    auto const verdict = testing::compare_selection(p, trace, margin);
    INFO(verdict.message);
    CHECK(verdict.ok);
    CHECK(verdict.lists > 0);
}

// --- Decode ----------------------------------------------------------------------------------------------------------

// Everything is quantised beforehand. Integers: the oracle and the device must choose the same lists.
template <class T>
struct decoding : testing::decode_state<T> {
    using state = testing::decode_state<T>;
    cache_copy<T> cache;

    decoding(std::vector<std::int32_t> const& first_lengths, std::int32_t steps, prune_method const& m,
             std::int32_t scales, std::int32_t channels = 64, kv_layout layout = kv_layout::block_table)
        : state({.keys = first_lengths,
                 .heads = 8,
                 .kv_heads = 2,
                 .head_dim = channels,
                 .layout = layout,
                 .page_size = scales == 1 ? 1 : 16,
                 .head_major = scales == 2,
                 .values = draw::integers},
                steps, m),
          cache(this->in, scales) {}

    sparse_decode_params<T, fp8_e4m3> params(attend_params<T> const& a, stage_cache const& stages, fp8_e4m3 const* keys,
                                             fp8_e4m3 const* values, cache_scales const& scales) const {
        sparse_decode_params<T, fp8_e4m3> p;
        p.queries = a.queries, p.kv = a.kv, p.output = a.output, p.lse = a.lse, p.scale = a.scale;
        p.keys = a.keys.over(keys), p.values = a.values.over(values);
        p.method = this->method, p.cache = stages, p.scales = scales;
        return p;
    }
    sparse_decode_params<T, fp8_e4m3> host_params() {
        return params(this->in.params(), this->host_cache(), cache.host.keys.data(), cache.host.values.data(),
                      cache.host.scales());
    }
    sparse_decode_params<T, fp8_e4m3> device_params() const {
        return params(this->memory.params(), this->device_cache(), cache.keys.template as<fp8_e4m3>(),
                      cache.values.template as<fp8_e4m3>(), cache.device_scales());
    }
    void check() {
        CHECK(state::check(host_params()).entries > 0);
        CHECK(cache.untouched());
    }
    void run(std::int32_t steps) {
        for (std::int32_t s = 0; s < steps; ++s) {
            INFO("step " << s);
            this->begin(s);
            testing::run_on_device(device_params());
            check();
            this->grow();
        }
    }
};

}  // namespace

TEMPLATE_TEST_CASE("prune fp8: scorers, sharing, paths, head sizes", "[gpu]", bf16, fp16) {
    for (std::int32_t const head_dim : {64, 128, 256})
        for (std::int32_t const rows : {1, 75}) {
            attend_input<TestType> in({.queries = {rows, rows},
                                       .keys = {1500, 803},
                                       .heads = 6,
                                       .kv_heads = 2,
                                       .head_dim = head_dim,
                                       .values = draw::integers});
            cache_copy<TestType> const cache(in, 2);
            for (auto const how : {scorer::tree_probe, scorer::centre_probe})
                for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
                    for (auto const path : {probe_path::per_head, probe_path::per_kv_group})
                        for (auto const& method : {hip_tiny, mixed}) {
                            INFO("head_dim " << head_dim << ", rows " << rows << ", scorer " << static_cast<int>(how)
                                             << ", sharing " << static_cast<int>(share) << ", path "
                                             << static_cast<int>(path) << ", stages " << method.stage_count);
                            check_prune(in, cache, with(method, how, share, path));
                        }
        }
}

TEST_CASE("prune fp8: small", "[gpu][small]") {
    for (auto const how : {scorer::tree_probe, scorer::centre_probe})
        for (std::int32_t const head_dim : {64, 128, 256}) {
            attend_input<bf16> in({.queries = {20, 20},
                                   .keys = {300, 190},
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .head_dim = head_dim,
                                   .layout = kv_layout::block_table,
                                   .values = draw::integers});
            check_prune(in, cache_copy<bf16>(in, 2), with(hip_tiny, how, sharing::per_batch));
        }
}

TEST_CASE("prune fp8: more rows than a scoring block holds at a time", "[gpu][small]") {
    constexpr prune_method tall{.stages = {{128, 2, 32, 6}, {128, 1, 8, 9}}, .stage_count = 2, .window = {16, 64}};
    for (auto const path : {probe_path::per_head, probe_path::per_kv_group}) {
        attend_input<bf16> in(
            {.queries = {100}, .keys = {500}, .heads = 6, .kv_heads = 2, .head_dim = 256, .values = draw::integers});
        check_prune(in, cache_copy<bf16>(in, 2), with(tall, scorer::tree_probe, sharing::per_batch, path));
    }
}

TEST_CASE("prune fp8: ragged batches, pages, both orders of axes, one scale and none", "[gpu]") {
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (std::int32_t const page : {1, 3, 16, 64})
            for (bool const ragged : {false, true}) {
                attend_input<bf16> in({.queries = ragged ? std::vector<std::int32_t>{40, 0, 1, 67}
                                                         : std::vector<std::int32_t>{40, 40, 40, 40},
                                       .keys = {700, 90, 0, 1331},
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_dim = 128,
                                       .layout = layout,
                                       .page_size = page,
                                       .ragged_queries = ragged,
                                       .head_major = page == 3,
                                       .lengths = page != 16,
                                       .values = draw::integers});
                INFO("layout " << static_cast<int>(layout) << ", page size " << page << ", ragged rows " << ragged);
                check_prune(in, cache_copy<bf16>(in, page == 1 ? 0 : page == 3 ? 1 : 2), mixed);
            }
}

TEST_CASE("prune fp8: every value ranks as the oracle has it, NaN lowest", "[gpu][small]") {
    // Keys have one channel that a query looks at, so that products are exact whatever their size.
    attend_input<bf16> in({.queries = {1}, .keys = {3000}, .heads = 2, .kv_heads = 2, .head_dim = 128});
    for (std::int32_t h = 0; h < 2; ++h)
        for (std::int32_t c = 0; c < 128; ++c) in.query(0, 0, h, c) = from_float<bf16>(c == 77 * h ? 1.0f : 0.0f);
    quantised_cache<bf16> elements(in.params(), 2, 0.25f, 1, 2);
    auto const view = in.params().keys.over(elements.keys.data());
    testing::random_source random(3);
    for (std::int32_t j = 0; j < 3000; ++j)
        for (std::int32_t h = 0; h < 2; ++h)
            for (std::int32_t c = 0; c < 128; ++c)
                view(0, j, h, c).bits =
                    static_cast<std::uint8_t>(c == 77 * h && random.below(4) == 0 ? random.below(256) : 0);
    cache_copy<bf16> const cache(elements);
    constexpr prune_method flat{.stages = {{1, 1, 8, 40}}, .stage_count = 1, .window = {16, 64}};
    for (auto const how : {scorer::tree_probe, scorer::centre_probe})
        for (auto const share : {sharing::per_batch, sharing::per_kv_group})
            check_prune(in, cache, with(flat, how, share));
}

TEMPLATE_TEST_CASE("prune fp8: normal inputs and any scales, by score margin", "[gpu]", bf16, fp16) {
    for (auto const how : {scorer::tree_probe, scorer::centre_probe})
        for (auto const share : {sharing::per_batch, sharing::per_head}) {
            attend_input<TestType> in(
                {.queries = {100}, .keys = {4000}, .heads = 4, .kv_heads = 2, .head_dim = 128, .seed = 5});
            constexpr prune_method flat{.stages = {{32, 4, 64, 20}}, .stage_count = 1, .window = {64, 128}};
            check_prune(in, cache_copy<TestType>(in, 2, 0.037f, 1.13f), with(flat, how, share), 1e-5);
        }
}

TEST_CASE("prune fp8: the presets at lengths that fill every stage", "[gpu]") {
    for (auto const& method : {hip_3k, hip_5k, hip_v1})
        for (std::int32_t const rows : {1, 70}) {
            attend_input<bf16> in({.queries = {rows},
                                   .keys = {36000},
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .layout = kv_layout::block_table,
                                   .page_size = 16,
                                   .values = draw::integers});
            INFO(method.stage_count << " stages, " << rows << " rows");
            check_prune(in, cache_copy<bf16>(in, 2), method);
        }
}

TEMPLATE_TEST_CASE("sparse_decode fp8: 20 steps with growing contexts", "[gpu]", bf16, fp16) {
    for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
        for (std::int32_t const scales : {0, 1, 2})
            for (auto const layout : {kv_layout::contiguous, kv_layout::block_table}) {
                INFO("sharing " << static_cast<int>(share) << ", scales " << scales << ", layout "
                                << static_cast<int>(layout));
                auto const how = scales == 1 ? scorer::centre_probe : scorer::tree_probe;
                decoding<TestType> d({400, 30, 170}, 20, with(three_stages, how, share), scales, scales == 2 ? 128 : 64,
                                     layout);
                d.run(20);
            }
}

TEST_CASE("sparse_decode fp8: small", "[gpu][small]") {
    for (std::int32_t const head_dim : {64, 256}) {
        decoding<bf16> d({150, 0}, 3, three_stages, 2, head_dim);
        d.run(3);
    }
}

TEST_CASE("sparse_decode fp8: small, attention merges its splits and counts the step", "[gpu][small]") {
    prune_method method = three_stages;
    method.window.recent = 150;
    decoding<bf16> d({260, 0, 40}, 5, method, 2);
    CHECK(plan(d.device_params(), testing::current_device()).attend.merges_itself());
    d.run(5);
}

TEST_CASE("sparse_decode fp8: the default preset with its own intervals", "[gpu]") {
    decoding<bf16> d({9000, 2000}, 18, hip_3k, 2, 128);
    d.intervals = refresh_default;
    d.run(18);
}

TEST_CASE("sparse_decode fp8: padding, requests that pause, move and start afresh, in one captured graph", "[gpu]") {
    decoding<bf16> d({300, 120, 40}, 24, with(three_stages, scorer::tree_probe, sharing::per_batch), 2, 128);
    auto const p = d.device_params();
    auto const made = plan(p, testing::current_device());
    REQUIRE(made);
    device_memory scratch(made.workspace_bytes, 4096);
    testing::captured_graph const graph([&](cudaStream_t stream) {
        REQUIRE(testing::gpu_launch(p, made, {scratch.data(), made.workspace_bytes}, stream).ok());
    });
    for (std::int32_t s = 0; s < 24; ++s) {
        if (s == 5) d.slot[1] = -1;                              // pauses
        if (s == 9) d.slot[1] = 2;                               // goes on
        if (s == 12) d.in.key_lengths()[2] = 0;                  // leaves
        if (s == 15) d.slot[0] = 4, d.step[4] = 0;               // moves to another slot
        if (s == 18) d.in.key_lengths()[0] = 60, d.step[4] = 0;  // is cut
        d.upload_cache();
        INFO("step " << s);
        d.begin(s);
        graph.replay();
        d.check();
        CHECK(scratch.guard_intact());
        d.grow();
    }
}

TEST_CASE("contents: of a step over an fp8 cache", "[gpu][small]") {
    decoding<bf16> d({150, 40}, 1, three_stages, 2);
    d.begin(0);
    testing::run_on_device(d.device_params());  // so that there are lists
    auto const fault_of = [&] {
        device_memory memory(sizeof(contents_fault));
        auto const p = attend_part(d.device_params());
        REQUIRE(testing::gpu_contents_check(p, memory.as<contents_fault>(), nullptr).ok());
        testing::require_cuda(cudaDeviceSynchronize());
        return memory.download<contents_fault>().front();
    };
    CHECK(fault_of().rule == contents_rule::none);
    std::int32_t const page = d.in.pages()[1];
    d.in.pages()[1] = -9;
    d.begin(0);
    CHECK(fault_of().rule == contents_rule::page_id);
    CHECK(fault_of().value == -9);
    d.in.pages()[1] = page;
}

TEST_CASE("sparse_decode fp8: pages far into a pool give the same bits", "[gpu][big]") {
    // One pool, NaN throughout: pages hold 16 keys, then their 16 values, of 2 KV heads.
    constexpr std::int64_t page = 16 * 2 * 64, pages = ((std::int64_t{1} << 31) + (std::int64_t{1} << 27)) / (2 * page);
    std::size_t available = 0, total = 0;
    testing::require_cuda(cudaMemGetInfo(&available, &total));
    if (available < static_cast<std::size_t>(2 * pages * page) + (std::size_t{1} << 30)) {
        std::puts("sparse_decode fp8: not enough free device memory, nothing tested");
        return;
    }
    device_memory pool(static_cast<std::size_t>(2 * pages * page));
    decoding<bf16> d({300}, 1, three_stages, 2);
    d.begin(0);
    testing::run_on_device(d.device_params());
    auto near = d.memory.download();
    auto const near_lists = d.list_memory.download<std::int32_t>();

    // The last pages of the pool, but for one that is the first.
    std::vector<std::int32_t> table;
    for (std::int32_t i = 0; i < ceil_div(301, 16); ++i) {
        table.push_back(i == 5 ? 0 : static_cast<std::int32_t>(pages - 1 - 2 * i));
        auto const to = static_cast<std::size_t>(2 * page * table.back());
        pool.upload(d.cache.host.keys.data() + d.in.pages()[i] * page, page, to);
        pool.upload(d.cache.host.values.data() + d.in.pages()[i] * page, page, to + page);
    }
    REQUIRE(std::int64_t{table[0]} * 2 * page > (std::int64_t{1} << 31));
    device_memory device_table(table.size() * 4);
    device_table.upload(table.data(), device_table.size());
    d.upload_cache();  // step 0 again
    d.begin(0);
    auto p = d.device_params();
    p.keys.data = pool.as<fp8_e4m3>(), p.values.data = pool.as<fp8_e4m3>() + page;
    p.keys.extent[0] = p.values.extent[0] = pages, p.keys.stride[0] = p.values.stride[0] = 2 * page;
    p.kv.pages = device_table.as<std::int32_t>();
    testing::run_on_device(p);
    auto far = d.memory.download();
    CHECK((d.in.output(far.data()) == d.in.output(near.data())));
    CHECK((d.in.lse(far.data()) == d.in.lse(near.data())));
    CHECK((d.list_memory.download<std::int32_t>() == near_lists));
}
