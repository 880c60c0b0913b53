// Benchmarks of attend: dense prefill, block lists (random and pruned), chunked prefill, decode contiguous and paged.
#include <cstdint>
#include <memory>
#include <string>

#include "support/attend_run.cuh"
#include "support/check.cuh"
#include "support/fp8_cache.cuh"
#include "support/harness.cuh"
#include "support/lists.hpp"
#include "winnow/op/prune.cuh"

using namespace winnow;
using namespace winnow::bench;

namespace {

// What a benchmark keeps on the device while it is timed.
struct attend_case {
    explicit attend_case(problem_shape const& s) : tensors(s) { tensors.fill_inputs(draw::normal); }

    problem tensors;
    device_array<std::int32_t> blocks, counts;
    std::unique_ptr<attend_run> run;
};

prepared ready(std::shared_ptr<attend_case> const& c, work const& w) {
    return {[c](cudaStream_t stream) { return c->run->launch(stream); }, w};
}

// --- Dense -----------------------------------------------------------------------------------------------------------

prepared dense(problem_shape const& s) {
    auto const c = std::make_shared<attend_case>(s);
    c->run = std::make_unique<attend_run>(c->tensors.dense());
    c->run->once();
    check_output(c->tensors, c->run->params);
    double const pairs = s.causal_pairs();
    return ready(c, {.flops = s.flops(pairs), .bytes = s.row_bytes() + s.key_bytes(), .keys_read = pairs / s.queries});
}

// Decode over an fp8 cache. dense_ms is the same call over the same numbers in bf16.
prepared dense_fp8(problem_shape const& s) {
    struct fp8_case {
        explicit fp8_case(problem_shape const& shape) : wide(shape), cache(wide.tensors) {}
        attend_case wide;
        fp8_cache cache;
        std::unique_ptr<attend_run_of<fp8_e4m3>> run;
    };
    auto const c = std::make_shared<fp8_case>(s);
    c->cache.take(c->wide.tensors);
    auto const a = c->wide.tensors.dense();
    attend_params<bf16, fp8_e4m3> p;
    p.queries = a.queries, p.output = a.output, p.kv = a.kv, p.scale = a.scale;
    p.keys = c->cache.keys(a.keys), p.values = c->cache.values(a.values), p.scales = c->cache.scales();
    c->run = std::make_unique<attend_run_of<fp8_e4m3>>(p);
    c->run->once();
    check_output(c->wide.tensors, a);
    double const pairs = s.causal_pairs();
    return {[c](cudaStream_t stream) { return c->run->launch(stream); },
            {.flops = s.flops(pairs),
             .bytes = s.row_bytes() + s.key_bytes() / 2,
             .keys_read = pairs / s.queries,
             .dense_ms = dense_ms(c->wide.tensors)}};
}

// --- Block lists -----------------------------------------------------------------------------------------------------

// Counts and times attention over the lists `l` of the one request, which are on the device already.
prepared listed(std::shared_ptr<attend_case> const& c, attend_params<bf16> const& p, host_lists const& l) {
    problem_shape const& s = c->tensors.shape;
    c->run = std::make_unique<attend_run>(p);
    c->run->once();
    check_output(c->tensors, p, &l);
    pair_count const pairs = count_pairs(l, s.queries, s.keys, p.window);
    work const w{.flops = s.flops(pairs.visible),
                 .block_flops = s.flops(pairs.blocks),
                 .bytes = s.row_bytes(),  // keys are read again and again, from the cache
                 .keys_read = pairs.visible / s.queries,
                 .dense_ms = dense_ms(c->tensors)};
    return ready(c, w);
}

// One list per query block for all heads: its own blocks and random earlier ones, `budget` keys in all.
prepared random_blocks(problem_shape const& s, std::int32_t query_block, std::int32_t block_size, std::int32_t budget) {
    auto const c = std::make_shared<attend_case>(s);
    host_lists const l = random_lists(s.queries, s.keys, 1, query_block, block_size, budget, 11);
    c->blocks = device_array<std::int32_t>(l.blocks);
    c->counts = device_array<std::int32_t>(l.counts);
    auto p = c->tensors.dense();
    p.window = {0, 0};
    p.selection.blocks = packed_view<std::int32_t const>(c->blocks.data(), {1, 1, l.query_blocks, l.capacity});
    p.selection.counts = packed_view<std::int32_t const>(c->counts.data(), {1, 1, l.query_blocks});
    p.selection.block_size = block_size, p.selection.query_block = query_block;
    return listed(c, p, l);
}

// Everything selected, as blocks: what lists cost against dense_ms.
prepared every_block(problem_shape const& s, std::int32_t block_size) {
    return random_blocks(s, 128, block_size, s.keys);
}

// The lists that pruning chooses on these inputs, with the method's sinks and window.
prepared pruned_blocks(problem_shape const& s, prune_method const& method) {
    auto const c = std::make_shared<attend_case>(s);
    auto p = c->tensors.dense();
    auto const extents = selection_extents_of(method, p.shape());
    c->blocks = device_array<std::int32_t>(extents.list_count() * static_cast<std::size_t>(extents.capacity));
    c->counts = device_array<std::int32_t>(extents.list_count());
    prune_params<bf16> pruning;
    pruning.queries = p.queries, pruning.keys = p.keys, pruning.method = method;
    pruning.selection = packed_selection(c->blocks.data(), c->counts.data(), method, p.shape());
    prune_plan const made = plan(pruning, this_machine().info);
    require(made.why);
    device_array<char> const scratch(made.workspace_bytes);
    require(launch(pruning, made, {scratch.data(), scratch.bytes()}, this_machine().stream));
    require(cudaStreamSynchronize(this_machine().stream), "prune");
    p.selection = pruning.selection, p.window = method.window;
    return listed(c, p, device_lists(pruning.selection, 0));
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

constexpr std::int32_t k = 1 << 10, M = 1 << 20;

// quick/ or full/, and the operator.
std::string named(bool quick, std::string const& what) { return (quick ? "quick/attend/" : "full/attend/") + what; }

void add_all() {
    auto const in_ms = benchmark::kMillisecond, in_us = benchmark::kMicrosecond;
    for (std::int32_t const d : {64, 128, 256})
        for (std::int32_t const tokens : {8 * k, 16 * k, 32 * k, 64 * k, 128 * k}) {
            bool const quick = tokens == 8 * k || (tokens == 32 * k && d == 128);
            add(named(quick, "dense_prefill/" + size_name(tokens) + "/head_dim:" + std::to_string(d)), in_ms,
                [=] { return dense(prefill(tokens, d)); });
        }
    for (std::int32_t const keys : {128 * k, M})
        add(named(false, "dense_chunk/32k_of_" + size_name(keys)), in_ms, [=] { return dense(chunk(keys)); });

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
    for (std::int32_t const block : {8, 128})
        add(named(false, "all_listed/16k/rows:128/block:" + std::to_string(block)), in_ms,
            [=] { return every_block(prefill(16 * k), block); });

    add(named(true, "pruned_lists/32k/hip_3k"), in_ms, [] { return pruned_blocks(prefill(32 * k), hip_3k); });
    add(named(false, "pruned_lists/128k/hip_3k"), in_ms, [] { return pruned_blocks(prefill(128 * k), hip_3k); });
    for (std::int32_t const keys : {128 * k, M})
        add(named(false, "pruned_lists/32k_of_" + size_name(keys) + "/hip_3k"), in_ms,
            [=] { return pruned_blocks(chunk(keys), hip_3k); });

    for (std::int32_t const batch : {1, 8})
        for (std::int32_t const keys : {32 * k, 128 * k, M})
            for (std::int32_t const page : {0, 1, 16, 64}) {
                bool const quick = batch == 1 ? keys == 128 * k : keys == 32 * k && page == 16;
                add(named(quick, "dense_decode/" + size_name(keys) + "/batch:" + std::to_string(batch) +
                                     (page == 0 ? "/contiguous" : "/page:" + std::to_string(page))),
                    in_us, [=] { return dense({.batch = batch, .keys = keys, .page_size = page}); });
            }
    for (std::int32_t const batch : {1, 8})
        for (std::int32_t const keys : {32 * k, 128 * k, M})
            for (std::int32_t const page : {0, 1, 16, 64}) {
                bool const quick = keys == 128 * k && batch == 8 && page == 16;
                add(named(quick, "dense_decode/" + size_name(keys) + "/batch:" + std::to_string(batch) +
                                     (page == 0 ? "/contiguous" : "/page:" + std::to_string(page)) + "/fp8"),
                    in_us, [=] { return dense_fp8({.batch = batch, .keys = keys, .page_size = page}); });
            }
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
