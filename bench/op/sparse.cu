// Benchmarks of sparse_prefill and sparse_decode with the 3K preset: pruning and attention together.
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "support/check.cuh"
#include "support/decode_case.cuh"
#include "support/fp8_cache.cuh"
#include "support/harness.cuh"
#include "support/planned.cuh"
#include "winnow/op/sparse.cuh"

using namespace winnow;
using namespace winnow::bench;

namespace {

// --- Prefill ---------------------------------------------------------------------------------------------------------

struct prefill_case {
    prefill_case(problem_shape const& s, prune_method const& method, rope const& rotation = {},
                 scan_style scan = scan_style::relative)
        : tensors(s) {
        auto params = sparse_prefill_of(tensors.dense(), method);
        params.rotation = rotation, params.scan = scan;
        run = planned(params);
    }

    problem tensors;
    planned<sparse_prefill_params<bf16>> run;
};

// Integer inputs first, on which pruning must choose the reference's lists; then random normal ones for the time.
prepared prefill(problem_shape const& s, prune_method const& method) {
    auto const c = std::make_shared<prefill_case>(s, method);
    c->tensors.fill_inputs(draw::integers);
    c->run.once();
    auto p = c->tensors.dense();
    p.window = method.window;
    std::int32_t const rows = method.stages[0].query_block, blocks = ceil_div(s.queries, rows);
    for (std::int32_t const m : {blocks / 2, blocks - 1}) {
        host_lists const l = reference_lists(c->tensors, p, method, 0, m, 0);
        check_rows(c->tensors, p, {0, m * rows + rows / 2, 2}, m % s.kv_heads, &l, 0);
    }

    c->tensors.fill_inputs(draw::normal);
    double read = 0;  // keys per row when every list is full, as it is where there are enough candidates
    for (std::int32_t row = 0; row < s.queries; ++row)
        read += smaller(s.first_position() + row + 1, method.window.sinks + method.window.recent + method.budget());
    work const w{.flops = s.flops(read), .keys_read = read / s.queries, .dense_ms = dense_ms(c->tensors)};
    return {[c](cudaStream_t stream) { return c->run.launch(stream); }, w};
}

// Keys cached without rotary embedding. Their lists are held against the reference by tests/op/sparse.cu: integers do not
// stay integers when they turn.
constexpr rope turning{.theta = 5e5f};

prepared prefill_turned(problem_shape const& s, prune_method const& method, scan_style scan) {
    auto const c = std::make_shared<prefill_case>(s, method, turning, scan);
    c->tensors.fill_inputs(draw::normal);
    return {[c](cudaStream_t stream) { return c->run.launch(stream); }, {.dense_ms = dense_ms(c->tensors)}};
}

// --- Decode ----------------------------------------------------------------------------------------------------------

// A decode step in its refresh state.
prepared stepping(std::shared_ptr<decode_case> const& c) {
    return {[c](cudaStream_t stream) { return c->launch(stream); },
            {.keys_read = c->keys_read(), .dense_ms = dense_ms(c->first().tensors)},
            {},
            [c](cudaStream_t stream) { c->set_step(1, stream); },
            c->count()};
}

prepared decode(problem_shape const& s, prune_method const& method, std::int32_t cached_stages,
                std::int32_t layers = 1) {
    auto const c = std::make_shared<decode_case>(s, method, intervals_with_cached(method, cached_stages), rope{},
                                                 scan_style::relative, layers);
    c->check();
    c->fill_lists();
    return stepping(c);
}

prepared decode_turned(problem_shape const& s, prune_method const& method, std::int32_t cached_stages,
                       scan_style scan) {
    auto const c =
        std::make_shared<decode_case>(s, method, intervals_with_cached(method, cached_stages), turning, scan);
    c->fill_inputs();
    c->fill_lists();
    return stepping(c);
}

// A step over an fp8 cache: the tensors, steps and lists of a case in bf16, which is never launched. dense_ms is dense
// attention over the same numbers in bf16.
struct fp8_decode {
    fp8_decode(problem_shape const& s, prune_method const& method, refresh_intervals const& intervals)
        : wide(s, method, intervals), cache(wide.first().tensors) {
        sparse_decode_params<bf16> const& p = wide.first().run.params;
        sparse_decode_params<bf16, fp8_e4m3> params;
        params.queries = p.queries, params.output = p.output, params.kv = p.kv, params.scale = p.scale;
        params.keys = cache.keys(p.keys), params.values = cache.values(p.values), params.scales = cache.scales();
        params.method = p.method, params.cache = p.cache;
        run = planned(params);
    }
    // One step over inputs of this kind in which every stage runs.
    void refresh(draw kind) {
        cudaStream_t const stream = this_machine().stream;
        wide.layers.front().tensors.fill_inputs(kind);
        cache.take(wide.first().tensors);
        wide.set_step(0, stream);
        run.once();
    }

    decode_case wide;
    fp8_cache cache;
    planned<sparse_decode_params<bf16, fp8_e4m3>> run;
};

prepared decode_fp8(problem_shape const& s, prune_method const& method, std::int32_t cached_stages) {
    auto const c = std::make_shared<fp8_decode>(s, method, intervals_with_cached(method, cached_stages));
    c->refresh(draw::integers);
    c->wide.check_last();
    c->refresh(draw::normal);
    return {[c](cudaStream_t stream) { return c->run.launch(stream); },
            {.keys_read = c->wide.keys_read(), .dense_ms = dense_ms(c->wide.first().tensors)},
            {},
            [c](cudaStream_t stream) { c->wide.set_step(1, stream); }};
}

// The mean over whole refresh cycles, from step 0 on; the context does not grow.
prepared decode_mean(problem_shape const& s, prune_method const& method, refresh_intervals const& intervals,
                     std::int32_t layers = 1) {
    auto const c = std::make_shared<decode_case>(s, method, intervals, rope{}, scan_style::relative, layers);
    c->check();
    return {[c](cudaStream_t stream) { return c->launch(stream); },
            {.keys_read = c->keys_read(), .dense_ms = dense_ms(c->first().tensors)},
            [c](cudaStream_t stream) { c->set_step(0, stream); },
            {},
            c->count()};
}

// --- Names -----------------------------------------------------------------------------------------------------------

constexpr std::int32_t k = 1 << 10, M = 1 << 20;

void add_prefill() {
    std::pair<char const*, sharing> const shares[] = {{"one_list", sharing::per_batch},
                                                      {"list_per_kv_head", sharing::per_kv_group}};
    for (auto const& [share_name, share] : shares) {
        prune_method method = hip_3k;
        method.sharing = share;
        std::string const end = std::string("/hip_3k/") + share_name;
        bool const first = share == sharing::per_batch;
        for (std::int32_t const tokens : {32 * k, 128 * k})
            add((tokens == 32 * k && first ? "quick/sparse_prefill/" : "full/sparse_prefill/") + size_name(tokens) +
                    end,
                benchmark::kMillisecond, [=] { return prefill({.queries = tokens, .keys = tokens}, method); });
        for (std::int32_t const keys : {128 * k, M})
            add("full/sparse_prefill/32k_of_" + size_name(keys) + end, benchmark::kMillisecond,
                [=] { return prefill({.queries = 32 * k, .keys = keys}, method); });
    }
}

// Launches after which every stage is due again.
int cycle_of(prune_method const& method, refresh_intervals const& intervals) {
    int cycle = 1;
    for (int i = 0; i < method.stage_count; ++i) cycle = std::lcm(cycle, intervals.steps[i]);
    return cycle;
}

std::string shape_name(problem_shape const& s) {
    return size_name(s.keys) + "/batch:" + std::to_string(s.batch) +
           (s.page_size == 0 ? "/contiguous" : "/page:" + std::to_string(s.page_size));
}

void add_decode() {
    prune_method const method = hip_3k;
    std::pair<char const*, refresh_intervals> const means[] = {
        {"mean:16_8_4", refresh_default}, {"mean:32_16_8", refresh_fast}, {"mean:96_24_8", refresh_flash}};
    for (std::int32_t const batch : {1, 8})
        for (std::int32_t const keys : {32 * k, 128 * k, M})
            for (std::int32_t const page : {0, 16}) {
                problem_shape const s{.batch = batch, .keys = keys, .page_size = page};
                bool const quick = keys == 128 * k && batch == 1 && page == 0;
                std::string const start =
                    std::string(quick ? "quick" : "full") + "/sparse_decode/" + shape_name(s) + "/hip_3k/";
                for (std::int32_t cached = 0; cached <= method.stage_count; ++cached)
                    add(start + "stages_cached:" + std::to_string(cached), benchmark::kMicrosecond,
                        [=] { return decode(s, method, cached); });
                for (auto const& [name, intervals] : means)
                    add(
                        start + name, benchmark::kMicrosecond,
                        [=, intervals = intervals] { return decode_mean(s, method, intervals); },
                        cycle_of(method, intervals));
            }
}

// The same steps as an engine takes them: one a layer, many in one graph. The time is that of one layer, without what
// starting a graph costs. The L2 cache is flushed before the first layer, and no layer finds its keys there.
void add_decode_layers() {
    prune_method const method = hip_3k;
    for (problem_shape const& s :
         {problem_shape{.keys = 128 * k}, problem_shape{.keys = 128 * k, .page_size = 16}, problem_shape{.keys = M},
          problem_shape{.batch = 8, .keys = 128 * k}, problem_shape{.batch = 8, .keys = 128 * k, .page_size = 16}}) {
        std::int32_t const layers = decode_layers(s.batch, s.keys);
        std::string const start = "full/sparse_decode/" + shape_name(s) + "/hip_3k/layers:" + std::to_string(layers);
        for (std::int32_t cached = 0; cached <= method.stage_count; ++cached)
            add(
                start + "/stages_cached:" + std::to_string(cached), benchmark::kMicrosecond,
                [=] { return decode(s, method, cached, layers); }, 1);
        add(
            start + "/mean:32_16_8", benchmark::kMicrosecond,
            [=] { return decode_mean(s, method, refresh_fast, layers); }, cycle_of(method, refresh_fast));
    }
}

void add_turned() {
    std::pair<char const*, scan_style> const scans[] = {{"relative", scan_style::relative},
                                                        {"chunk_indexed", scan_style::chunk_indexed}};
    for (auto const& [name, scan] : scans)
        for (std::int32_t const keys : {128 * k, M}) {
            std::string const end = std::string("/hip_3k/without_rope/") + name;
            add("full/sparse_prefill/32k_of_" + size_name(keys) + end, benchmark::kMillisecond,
                [=, scan = scan] { return prefill_turned({.queries = 32 * k, .keys = keys}, hip_3k, scan); });
            for (std::int32_t cached = 0; cached <= hip_3k.stage_count; ++cached)
                add("full/sparse_decode/" + size_name(keys) + "/batch:1/contiguous" + end +
                        "/stages_cached:" + std::to_string(cached),
                    benchmark::kMicrosecond,
                    [=, scan = scan] { return decode_turned({.keys = keys}, hip_3k, cached, scan); });
        }
}

void add_fp8() {
    for (std::int32_t const batch : {1, 8})
        for (std::int32_t const keys : {128 * k, M})
            for (std::int32_t cached = 0; cached <= hip_3k.stage_count; ++cached)
                add("full/sparse_decode/" + size_name(keys) + "/batch:" + std::to_string(batch) +
                        "/page:16/hip_3k/fp8/stages_cached:" + std::to_string(cached),
                    benchmark::kMicrosecond,
                    [=] { return decode_fp8({.batch = batch, .keys = keys, .page_size = 16}, hip_3k, cached); });
}

void add_all() {
    add_prefill();
    add_decode();
    add_decode_layers();
    add_turned();
    add_fp8();
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
