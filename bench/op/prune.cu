// Benchmarks of prune: the 3K preset over prefill chunks, and over decode steps with 0 to all stages cached.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/check.cuh"
#include "support/decode_case.cuh"
#include "support/harness.cuh"
#include "support/planned.cuh"
#include "winnow/op/prune.cuh"

using namespace winnow;
using namespace winnow::bench;

namespace {

struct prune_case {
    prune_case(problem_shape const& s, prune_method const& method) : tensors(s) {
        auto const p = tensors.dense();
        auto const extents = selection_extents_of(method, p.shape());
        blocks = device_array<std::int32_t>(extents.list_count() * static_cast<std::size_t>(extents.capacity));
        counts = device_array<std::int32_t>(extents.list_count());
        prune_params<bf16> params;
        params.queries = p.queries, params.keys = p.keys, params.kv = p.kv, params.method = method;
        params.selection = packed_selection(blocks.data(), counts.data(), method, p.shape());
        run = planned(params);
    }

    problem tensors;
    device_array<std::int32_t> blocks, counts;
    planned<prune_params<bf16>> run;
};

// Integer inputs first, on which kernel and reference must choose the same lists; then random normal ones for the time.
prepared prefill(problem_shape const& s, prune_method const& method) {
    auto const c = std::make_shared<prune_case>(s, method);
    c->tensors.fill_inputs(draw::integers);
    c->run.once();
    host_lists const found = device_lists(c->run.params.selection, 0);
    std::int32_t const blocks = ceil_div(s.queries, method.stages[0].query_block);
    for (std::int32_t const m : {blocks / 2, blocks - 1})
        require_same_lists(found, m, reference_lists(c->tensors, c->tensors.dense(), method, 0, m, 0));

    c->tensors.fill_inputs(draw::normal);
    c->run.once();
    double const read = count_pairs(device_lists(c->run.params.selection, 0), s.queries, s.keys, method.window).visible;
    work const w{.keys_read = read / s.queries, .dense_ms = dense_ms(c->tensors)};
    return {[c](cudaStream_t stream) { return c->run.launch(stream); }, w};
}

// Pruning alone never advances the step, so every launch finds the same stages due.
prepared decode(problem_shape const& s, prune_method const& method, std::int32_t cached_stages,
                std::int32_t layers = 1) {
    auto const c = std::make_shared<decode_case>(s, method, intervals_with_cached(method, cached_stages), rope{},
                                                 scan_style::relative, layers);
    c->check();
    c->fill_lists();
    auto const prune_layer = [](decode_case::layer const& l, cudaStream_t stream) {
        decode_stages const stages{l.run.params.cache};
        return launch_stages(prune_part(l.run.params), l.run.made.prune, l.run.memory(), stream, &stages);
    };
    return {
        .launch = [=](cudaStream_t stream) { return c->each([&](auto const& l) { return prune_layer(l, stream); }); },
        .counted = {.keys_read = c->keys_read(), .dense_ms = dense_ms(c->first().tensors)},
        .layers = c->count()};
}

constexpr std::int32_t k = 1 << 10, M = 1 << 20;

void add_all() {
    auto const in_ms = benchmark::kMillisecond, in_us = benchmark::kMicrosecond;
    struct {
        char const* name;
        sharing share;
        probe_path path;
    } const ways[] = {{"one_list", sharing::per_batch, probe_path::per_kv_group},
                      {"list_per_kv_head", sharing::per_kv_group, probe_path::per_kv_group},
                      {"one_list_path_per_head", sharing::per_batch, probe_path::per_head}};
    for (auto const& way : ways) {
        prune_method method = hip_3k;
        method.sharing = way.share, method.path = way.path;
        std::string const end = std::string("/hip_3k/") + way.name;
        bool const first = &way == ways;
        for (std::int32_t const tokens : {32 * k, 128 * k})
            add((tokens == 32 * k && first ? "quick/prune/prefill/" : "full/prune/prefill/") + size_name(tokens) + end,
                in_ms, [=] { return prefill({.queries = tokens, .keys = tokens}, method); });
        for (std::int32_t const keys : {128 * k, M})
            add("full/prune/chunk/32k_of_" + size_name(keys) + end, in_ms,
                [=] { return prefill({.queries = 32 * k, .keys = keys}, method); });
        for (std::int32_t const batch : {1, 8})
            for (std::int32_t const keys : {32 * k, 128 * k, M})
                for (std::int32_t cached = 0; cached <= method.stage_count; ++cached)
                    add((keys == 128 * k && batch == 1 && first ? "quick/prune/decode/" : "full/prune/decode/") +
                            size_name(keys) + "/batch:" + std::to_string(batch) + end +
                            "/stages_cached:" + std::to_string(cached),
                        in_us, [=] { return decode({.batch = batch, .keys = keys}, method, cached); });
    }
    // Many layers in one graph; see bench/op/sparse.cu.
    for (problem_shape const& s :
         {problem_shape{.keys = 128 * k}, problem_shape{.keys = M}, problem_shape{.batch = 8, .keys = 128 * k}})
        for (std::int32_t cached = 0; cached < hip_3k.stage_count; ++cached) {
            std::int32_t const layers = decode_layers(s.batch, s.keys);
            add(
                "full/prune/decode/" + size_name(s.keys) + "/batch:" + std::to_string(s.batch) +
                    "/hip_3k/one_list/layers:" + std::to_string(layers) + "/stages_cached:" + std::to_string(cached),
                in_us, [=] { return decode(s, hip_3k, cached, layers); }, 1);
        }
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
