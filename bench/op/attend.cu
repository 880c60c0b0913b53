// Benchmarks of attend: dense prefill, lists of blocks (random and pruned) and of pages, chunked prefill, and decode:
// contiguous and paged, ragged, over many layers, and beside a graph that does nothing.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../../examples/01_quickstart/recording.hpp"
#include "frontier/choices.hpp"
#include "support/check.cuh"
#include "support/harness.cuh"
#include "support/lists.hpp"
#include "support/planned.cuh"
#include "winnow/op/prune.cuh"

using namespace winnow;
using namespace winnow::bench;

namespace {

// What a benchmark keeps on the device while it is timed.
template <class T, class KV = T>
struct attend_case {
    explicit attend_case(problem_shape const& s, std::uint64_t number = 0) : tensors(s) {
        tensors.fill_inputs(draw::normal, number);
    }

    problem_of<T, KV> tensors;
    device_array<std::int32_t> blocks, counts;
    planned<attend_params<T, KV>> run;
};

template <class T, class KV>
prepared ready(std::shared_ptr<attend_case<T, KV>> const& c, work const& w) {
    return {[c](cudaStream_t stream) { return c->run.launch(stream); }, w};
}

// --- Dense -----------------------------------------------------------------------------------------------------------

// Every key of the context for each row, or those up to its own.
template <class T = bf16, class KV = T>
prepared dense(problem_shape const& s, attention_mask mask = causal{}) {
    auto const c = std::make_shared<attend_case<T, KV>>(s);
    auto p = c->tensors.dense();
    p.mask = mask;
    c->run = planned(p);
    c->run.once();
    check_output(c->tensors, c->run.params);
    double const pairs = mask.kind == mask_kind::causal ? s.causal_pairs() : static_cast<double>(s.queries) * s.keys;
    return ready(
        c, {.flops = s.flops(pairs), .bytes = s.row_bytes() + s.key_bytes(sizeof(KV)), .keys_read = pairs / s.queries});
}

// One call a layer, all in one graph and each with tensors of its own, as an engine's step has them. Of one layer.
prepared dense_layers(problem_shape const& s, std::int32_t layers) {
    std::vector<std::shared_ptr<attend_case<bf16>>> cases;
    for (std::int32_t i = 0; i < layers; ++i) {
        auto const& c = cases.emplace_back(std::make_shared<attend_case<bf16>>(s, static_cast<std::uint64_t>(i)));
        c->run = planned(c->tensors.dense());
        c->run.once();
        check_output(c->tensors, c->run.params);
    }
    auto const launch = [cases](cudaStream_t stream) {
        status done;
        for (auto const& c : cases)
            if (done) done = c->run.launch(stream);
        return done;
    };
    return {.launch = launch,
            .counted = {.bytes = s.row_bytes() + s.key_bytes(), .keys_read = s.causal_pairs()},
            .layers = layers};
}

// --- What a graph costs that does nothing ----------------------------------------------------------------------------

__global__ void nothing() {}

prepared empty_graph(int kernels) {
    auto const launch = [kernels](cudaStream_t stream) {
        for (int i = 0; i < kernels; ++i) nothing<<<1, 32, 0, stream>>>();
        return cuda_status(cudaGetLastError(), "nothing");
    };
    require(launch(this_machine().stream));  // its code is on the device before anything is captured
    require(cudaStreamSynchronize(this_machine().stream), "nothing");
    return {launch, {}};
}

// --- Block lists -----------------------------------------------------------------------------------------------------

// Counts and times attention over the lists `l` of the one request, which are on the device already.
template <class T>
prepared listed(std::shared_ptr<attend_case<T>> const& c, attend_params<T> const& p, host_lists const& l) {
    problem_shape const& s = c->tensors.shape;
    c->run = planned(p);
    c->run.once();
    check_output(c->tensors, p, &l);
    pair_count const pairs = count_pairs(l, s.queries, s.keys, p.window);
    work const w{.flops = s.flops(pairs.visible),
                 .block_flops = s.flops(pairs.blocks),
                 .bytes = s.row_bytes(),  // keys are read again and again, from the cache
                 .keys_read = pairs.visible / s.queries,
                 .dense_ms = dense_ms(c->tensors)};
    return ready(c, w);
}

// Lists of a query block's own blocks and random earlier ones, `budget` keys in all, beside the window. One list serves
// all heads, or one each of `list_heads` KV heads.
template <class T = bf16>
prepared random_blocks(problem_shape const& s, std::int32_t query_block, std::int32_t block_size, std::int32_t budget,
                       std::int32_t list_heads = 1, attention_window window = {0, 0}) {
    auto const c = std::make_shared<attend_case<T>>(s);
    host_lists const l = random_lists(s.queries, s.keys, list_heads, query_block, block_size, budget, 11);
    c->blocks = device_array<std::int32_t>(l.blocks);
    c->counts = device_array<std::int32_t>(l.counts);
    auto p = c->tensors.dense();
    p.window = window;
    p.selection.blocks =
        packed_view<std::int32_t const>(c->blocks.data(), {1, l.list_heads, l.query_blocks, l.capacity});
    p.selection.counts = packed_view<std::int32_t const>(c->counts.data(), {1, l.list_heads, l.query_blocks});
    p.selection.block_size = block_size, p.selection.query_block = query_block;
    return listed(c, p, l);
}

// Everything selected, as blocks: what lists cost against dense_ms.
prepared every_block(problem_shape const& s, std::int32_t block_size) {
    return random_blocks(s, 128, block_size, s.keys);
}

// Blocks that are smaller than a list's can be. Each query block is a request of its own, whose page table lists pages
// of `block_size` keys, `budget` keys in all, of those that all requests share.
prepared page_lists(std::int32_t tokens, std::int32_t query_block, std::int32_t block_size, std::int32_t budget) {
    problem_shape const s{
        .batch = tokens / query_block, .queries = query_block, .keys = budget, .page_size = block_size, .pool = tokens};
    auto const c = std::make_shared<attend_case<bf16>>(s);
    auto p = c->tensors.dense();
    p.mask = full{};
    c->run = planned(p);
    c->run.once();
    check_output(c->tensors, p);
    problem whole({.queries = tokens, .keys = tokens});
    whole.fill_inputs(draw::normal);
    double const flops = s.flops(static_cast<double>(s.queries) * s.keys);
    return ready(c, {.flops = flops,
                     .block_flops = flops,
                     .bytes = s.row_bytes(),
                     .keys_read = static_cast<double>(budget),
                     .dense_ms = dense_ms(whole)});
}

// The lists that pruning chooses on the inputs of `c`, with the method's sinks and window.
prepared pruned(std::shared_ptr<attend_case<bf16>> const& c, prune_method const& method) {
    auto p = c->tensors.dense();
    auto const extents = selection_extents_of(method, p.shape());
    c->blocks = device_array<std::int32_t>(extents.list_count() * static_cast<std::size_t>(extents.capacity));
    c->counts = device_array<std::int32_t>(extents.list_count());
    prune_params<bf16> pruning;
    pruning.queries = p.queries, pruning.keys = p.keys, pruning.method = method;
    pruning.selection = packed_selection(c->blocks.data(), c->counts.data(), method, p.shape());
    planned(pruning).once();
    p.selection = pruning.selection, p.window = method.window;
    return listed(c, p, device_lists(pruning.selection, 0));
}
prepared pruned_blocks(problem_shape const& s, prune_method const& method) {
    return pruned(std::make_shared<attend_case<bf16>>(s), method);
}

// The same on the recording of a language model's layer, as a batch of `batch` requests that all hold it, so that there
// is work for a whole device. Their lists are alike.
prepared recorded_blocks(std::int32_t batch, prune_method const& method) {
    quickstart::recording r;
    std::string problem;
    if (!quickstart::read_recording(WINNOW_EXAMPLES_DATA, r, problem)) throw std::runtime_error(problem);
    auto const n = [](std::int64_t extent) { return static_cast<std::int32_t>(extent); };
    auto const c = std::make_shared<attend_case<bf16>>(problem_shape{.batch = batch,
                                                                     .queries = n(r.queries.tokens),
                                                                     .keys = n(r.keys.tokens),
                                                                     .heads = n(r.queries.heads),
                                                                     .kv_heads = n(r.keys.heads),
                                                                     .head_dim = n(r.queries.head_dim)});
    auto const repeated = [batch](device_array<bf16>& to, std::vector<bf16> const& from) {
        std::vector<bf16> all;
        for (std::int32_t i = 0; i < batch; ++i) all.insert(all.end(), from.begin(), from.end());
        to.upload(all);
    };
    repeated(c->tensors.queries, r.queries.data);
    repeated(c->tensors.keys, r.keys.data);
    repeated(c->tensors.values, r.values.data);
    return pruned(c, method);
}

// --- Names -----------------------------------------------------------------------------------------------------------

problem_shape prefill(std::int32_t tokens, std::int32_t head_dim = 128) {
    // head_dim 256 with half the heads: the same model width.
    return {.queries = tokens,
            .keys = tokens,
            .heads = head_dim < 256 ? 32 : 16,
            .kv_heads = head_dim < 256 ? 8 : 4,
            .head_dim = head_dim};
}
problem_shape chunk(std::int32_t keys) { return {.queries = 32 << 10, .keys = keys}; }
problem_shape paged(problem_shape s, std::int32_t page_size) {
    s.page_size = page_size;
    return s;
}

constexpr std::int32_t k = 1 << 10, M = 1 << 20;

// quick/ or full/, and the operator.
std::string named(bool quick, std::string const& what) { return (quick ? "quick/attend/" : "full/attend/") + what; }

std::string storage_name(std::int32_t page) { return page == 0 ? "/contiguous" : "/page:" + std::to_string(page); }

constexpr auto in_ms = benchmark::kMillisecond, in_us = benchmark::kMicrosecond;

void add_dense() {
    for (std::int32_t const d : {64, 128, 256})
        for (std::int32_t const tokens : {8 * k, 16 * k, 32 * k, 64 * k, 128 * k}) {
            bool const quick = tokens == 8 * k || (tokens == 32 * k && d == 128);
            add(named(quick, "dense_prefill/" + size_name(tokens) + "/head_dim:" + std::to_string(d)), in_ms,
                [=] { return dense(prefill(tokens, d)); });
        }
    add(named(false, "dense_prefill/32k/head_dim:128/fp16"), in_ms, [] { return dense<fp16>(prefill(32 * k)); });
    for (std::int32_t const d : {64, 128, 256})
        add(named(false, "dense_not_causal/16k/head_dim:" + std::to_string(d)), in_ms,
            [=] { return dense(prefill(16 * k, d), full{}); });
    for (std::int32_t const keys : {128 * k, M})
        add(named(false, "dense_chunk/32k_of_" + size_name(keys)), in_ms, [=] { return dense(chunk(keys)); });
}

void add_lists() {
    for (std::int32_t const tokens : {32 * k, 128 * k})
        for (std::int32_t const query_block : {64, 128})
            for (std::int32_t const block : {8, 16, 32, 64, 128})
                for (std::int32_t const budget : {2048, 4096}) {
                    bool const quick =
                        tokens == 32 * k && query_block == 128 && budget == 2048 && (block == 8 || block == 128);
                    add(named(quick, "random_lists/" + size_name(tokens) + "/rows:" + std::to_string(query_block) +
                                         "/block:" + std::to_string(block) + "/budget:" + std::to_string(budget)),
                        in_ms, [=] { return random_blocks(prefill(tokens), query_block, block, budget); });
                }
    for (std::int32_t const keys : {128 * k, M})
        add(named(false, "random_lists/32k_of_" + size_name(keys) + "/rows:128/block:64/budget:2048"), in_ms,
            [=] { return random_blocks(chunk(keys), 128, 64, 2048); });
    for (std::int32_t const block : {8, 16, 32, 64, 128})
        for (std::int32_t const budget : {2048, 4096})
            add(named(false, "random_lists/128k/rows:128/block:" + std::to_string(block) +
                                 "/budget:" + std::to_string(budget) + "/sinks:256/window:1024"),
                in_ms, [=] {
                    return random_blocks(prefill(128 * k), 128, block, budget, 1, {256, 1024});
                });
    for (std::int32_t const rows : {16, 32})  // the heads of a KV group lie in one tile
        add(named(false, "random_lists/128k/rows:" + std::to_string(rows) + "/block:64/budget:2048"), in_ms,
            [=] { return random_blocks(prefill(128 * k), rows, 64, 2048); });
    add(named(false, "random_lists/128k/rows:128/block:64/budget:2048/list_per_kv_head"), in_ms,
        [] { return random_blocks(prefill(128 * k), 128, 64, 2048, 8); });
    add(named(false, "random_lists/128k/rows:128/block:64/budget:2048/fp16"), in_ms,
        [] { return random_blocks<fp16>(prefill(128 * k), 128, 64, 2048); });
    for (std::int32_t const page : {1, 4, 16, 64})
        add(named(false, "random_lists/128k/rows:128/block:64/budget:2048/page:" + std::to_string(page)), in_ms,
            [=] { return random_blocks(paged(prefill(128 * k), page), 128, 64, 2048); });
    for (std::int32_t const block : {1, 4})
        add(named(false, "page_lists/128k/rows:128/block:" + std::to_string(block) + "/budget:2048"), in_ms,
            [=] { return page_lists(128 * k, 128, block, 2048); });
    for (std::int32_t const block : {8, 128})
        add(named(false, "all_listed/16k/rows:128/block:" + std::to_string(block)), in_ms,
            [=] { return every_block(prefill(16 * k), block); });

    add(named(true, "pruned_lists/32k/hip_3k"), in_ms, [] { return pruned_blocks(prefill(32 * k), hip_3k); });
    add(named(false, "pruned_lists/128k/hip_3k"), in_ms, [] { return pruned_blocks(prefill(128 * k), hip_3k); });
    for (std::int32_t const keys : {128 * k, M})
        add(named(false, "pruned_lists/32k_of_" + size_name(keys) + "/hip_3k"), in_ms,
            [=] { return pruned_blocks(chunk(keys), hip_3k); });
    // 42 requests have 126k rows. The frontier's lists of blocks of 8, and larger ones.
    for (std::int32_t const rows : {32, 128})
        for (std::int32_t const block : {8, 64})
            add(named(false, "recorded_lists/42x3k/head_dim:64/rows:" + std::to_string(rows) +
                                 "/block:" + std::to_string(block) + "/budget:1024"),
                in_ms, [=] {
                    prune_method m = small_method(frontier_choices[0], 1024);
                    for (std::int32_t i = 0; i < m.stage_count; ++i) m.stages[i].query_block = rows;
                    m.stages[1].chunk = block, m.stages[1].keep = 1024 / block;
                    m.stages[0].chunk = larger(m.stages[0].chunk, 2 * block), m.stages[0].keep = 32;
                    return recorded_blocks(42, m);
                });
}

void add_decode() {
    for (std::int32_t const batch : {1, 8})
        for (std::int32_t const keys : {32 * k, 128 * k, M})
            for (std::int32_t const page : {0, 1, 16, 64}) {
                bool const quick = batch == 1 ? keys == 128 * k : keys == 32 * k && page == 16;
                add(named(quick,
                          "dense_decode/" + size_name(keys) + "/batch:" + std::to_string(batch) + storage_name(page)),
                    in_us, [=] { return dense({.batch = batch, .keys = keys, .page_size = page}); });
            }
    for (std::int32_t const page : {8, 32, 128})
        for (problem_shape const& s : {problem_shape{.keys = 128 * k}, problem_shape{.batch = 8, .keys = 32 * k}})
            add(named(false,
                      "dense_decode/" + size_name(s.keys) + "/batch:" + std::to_string(s.batch) + storage_name(page)),
                in_us, [=] { return dense(paged(s, page)); });

    for (problem_shape const& s : {problem_shape{.keys = 128 * k}, problem_shape{.keys = 128 * k, .page_size = 16},
                                   problem_shape{.keys = 128 * k, .page_size = 64}, problem_shape{.keys = M},
                                   problem_shape{.batch = 8, .keys = 32 * k, .page_size = 16}})
        add(named(false, "dense_decode/" + size_name(s.keys) + "/batch:" + std::to_string(s.batch) +
                             storage_name(s.page_size) + "/fp8"),
            in_us, [=] { return dense<bf16, fp8_e4m3>(s); });

    // Short contexts beside what any graph of as many kernels takes.
    add(
        named(false, "empty_graph/kernels:2"), in_us, [] { return empty_graph(2); }, 1);
    for (std::int32_t const page : {0, 16})
        add(
            named(false, "dense_decode/4k/batch:1" + storage_name(page)), in_us,
            [=] { return dense({.keys = 4 * k, .page_size = page}); }, 1);

    // One long request among many short ones; bytes are those of the keys there are.
    for (std::int32_t const page : {0, 16, 64})
        for (std::int32_t const at : {0, 32, 63})
            add(named(false, "ragged_decode/63x2k_1x1M/long_at:" + std::to_string(at) +
                                 (page == 0 ? "/packed" : storage_name(page))),
                in_us, [=] {
                    return dense({.batch = 64, .keys = M, .page_size = page, .other_keys = 2 * k, .long_request = at});
                });

    // Time of one layer.
    struct {
        std::int32_t keys, layers;
    } const models[] = {{4 * k, 16}, {32 * k, 16}, {128 * k, 8}};  // 17, 134 and 537 MB a layer
    for (auto const [keys, layers] : models)
        for (std::int32_t const page : {0, 16})
            add(
                named(false, "dense_decode/" + size_name(keys) + "/batch:1" + storage_name(page) +
                                 "/layers:" + std::to_string(layers)),
                in_us,
                [=, keys = keys, layers = layers] { return dense_layers({.keys = keys, .page_size = page}, layers); },
                1);
}

void add_all() {
    add_dense();
    add_lists();
    add_decode();
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
