// Benchmarks of the cascade operators: whole prefills, the parts of a step in the steady state, decode steps.
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../../tests/support/tolerance.hpp"
#include "support/fill.cuh"
#include "support/harness.cuh"
#include "support/sample.hpp"
#include "winnow/op/cascade.cuh"
#include "winnow/reference/cascade.hpp"

using namespace winnow;
using namespace winnow::bench;

namespace {

constexpr std::int32_t heads = 32, kv_heads = 8, head_dim = 128, sinks = 64;

struct cascade_shape {
    std::int64_t tokens;  ///< of a launch and request
    std::int32_t chunk, batch = 1, slots = 16384, levels = 4;
    cascade_scorer scorer = {all_queries{}, 0.9999};
    bool scored = true;
    cascade_keys stored = cascade_keys::unrotated;
};

// One launch's tokens, and caches that it goes on with: the time of the steady state needs full ones.
struct cascade_case {
    explicit cascade_case(cascade_shape const& s)
        : shape(s), queries(rows() * heads), output(rows() * heads), keys(rows() * kv_heads), values(rows() * kv_heads),
          scores(static_cast<std::size_t>(s.batch) * static_cast<std::size_t>(s.tokens) * kv_heads),
          memory(cascade_bytes(layout_only())) {
        fill(queries, draw::normal, 1), fill(keys, draw::normal, 2), fill(values, draw::normal, 3);
        require(cudaMemset(memory.data(), 0, memory.bytes()), "cudaMemset");
    }
    std::size_t rows() const {
        return static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(shape.tokens) * head_dim;
    }
    cascade_cache<bf16> layout_only() const {
        cascade_cache<bf16> c;
        c.layout = even_cascade(sinks, shape.slots, shape.levels);
        c.sequences = shape.batch, c.kv_heads = kv_heads, c.head_dim = head_dim, c.stored = shape.stored;
        return c;
    }
    cascade_cache<bf16> cache() const {
        auto c = layout_only();
        c.memory = memory.data();
        return c;
    }
    cascade_prefill_params<bf16> prefill() const {
        auto const view = [&](auto* data, std::int64_t count) {
            return packed_view(data, {std::int64_t{shape.batch}, shape.tokens, count, std::int64_t{head_dim}});
        };
        cascade_prefill_params<bf16> p;
        p.queries = view(static_cast<bf16 const*>(queries.data()), heads);
        p.keys = view(static_cast<bf16 const*>(keys.data()), kv_heads);
        p.values = view(static_cast<bf16 const*>(values.data()), kv_heads);
        p.output = view(output.data(), heads);
        p.cache = cache();
        p.scale = 0.0883883f;
        p.rotation = {.theta = 5e5f};
        p.scorer = shape.scorer;
        p.chunk = shape.chunk;
        return p;
    }
    // The first `count` tokens of each request as one chunk.
    cascade_attend_params<bf16> attend(std::int64_t count) const {
        return attend_part(prefill(), 0, count, shape.scored ? scores.data() : nullptr);
    }
    template <class P>
    status run(P const& p, cudaStream_t stream) const {
        auto const plan = winnow::plan(p, this_machine().info);
        if (!plan) return plan.why;
        if (scratch.bytes() < plan.workspace_bytes) scratch = device_array<char>(plan.workspace_bytes);
        return launch(p, plan, {scratch.data(), scratch.bytes()}, stream);
    }
    // Fills the caches: twice their rows, in chunks of what there is.
    void fill_caches() const {
        auto const p = attend(smaller<std::int64_t>(shape.tokens, 4096));
        std::int64_t const steps = 2 * p.cache.layout.rows() / p.keys.extent[1] + 1;
        for (std::int64_t i = 0; i < steps; ++i) require(run(insert_part(p), this_machine().stream));
        require(cudaStreamSynchronize(this_machine().stream), "filling the caches");
    }

    cascade_shape const shape;
    device_array<bf16> queries, output, keys, values;
    device_array<float> scores;
    device_array<char> memory;
    mutable device_array<char> scratch{1};
};

// One step of a few tokens on the caches as they are, against the reference: outputs, then the caches to the bit.
void check_step(cascade_case const& c) {
    std::int64_t const count = smaller<std::int64_t>(c.shape.tokens, 3);
    struct alignas(workspace_alignment) line {
        char bytes[workspace_alignment];
    };
    std::vector<line> memory(c.memory.bytes() / sizeof(line)), after(memory.size());
    auto const device = c.attend(count);
    auto const download = [&](void* to, void const* from, std::size_t bytes) {
        require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "download");
    };
    download(memory.data(), c.memory.data(), c.memory.bytes());
    auto const host_of = [&](auto const& view) {
        std::vector<bf16> rows;
        for (std::int64_t b = 0; b < view.extent[0]; ++b) {
            std::size_t const part = static_cast<std::size_t>(count * view.extent[2]) * head_dim;
            rows.resize(rows.size() + part);
            download(rows.data() + rows.size() - part, view.data + view.offset(b), part * sizeof(bf16));
        }
        return rows;
    };
    std::int64_t const batch = c.shape.batch;
    auto const q = host_of(device.queries), k = host_of(device.keys), v = host_of(device.values);
    std::vector<bf16> output(q.size());
    std::vector<float> scores(static_cast<std::size_t>(batch * count) * kv_heads);
    cascade_attend_params<bf16> host = device;
    host.queries = packed_view(q.data(), {batch, count, heads, head_dim});
    host.keys = packed_view(k.data(), {batch, count, kv_heads, head_dim});
    host.values = packed_view(v.data(), {batch, count, kv_heads, head_dim});
    host.output = packed_view(output.data(), {batch, count, heads, head_dim});
    host.cache.memory = memory.data();
    if (host.takes_scores()) host.scores = packed_view(scores.data(), {batch, count, kv_heads});
    reference::run_options const options{.threads =
                                             static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
    reference::cascade_result exact, rounded;
    require(reference::cascade_attend_rounded(host, rounded, options));
    require(reference::cascade_attend(host, &exact, options));
    require(c.run(device, this_machine().stream));
    require(cudaStreamSynchronize(this_machine().stream), "cascade_attend");
    std::vector<double> found;
    for (bf16 const x : host_of(device.output)) found.push_back(to_float(x));
    auto const verdict = testing::compare<bf16>(found, exact.output, rounded.output);
    if (!verdict) throw std::runtime_error("wrong output: " + verdict.message);
    // The device's scores decide on both sides.
    download(memory.data(), c.memory.data(), c.memory.bytes());
    if (host.takes_scores()) download(scores.data(), device.scores.data, scores.size() * sizeof(float));
    require(reference::cascade_insert(insert_part(host)));
    require(c.run(insert_part(device), this_machine().stream));
    require(cudaStreamSynchronize(this_machine().stream), "cascade_insert");
    download(after.data(), c.memory.data(), c.memory.bytes());
    // All but copies of keys, which are rotated in fp32 here and in double there.
    cascade_cache<bf16> ours = host.cache, theirs = host.cache;
    theirs.memory = after.data();
    auto const same = [](void const* a, void const* b, std::int64_t bytes) {
        return std::memcmp(a, b, static_cast<std::size_t>(bytes)) == 0;
    };
    for (std::int32_t s = 0; s < ours.sequences; ++s) {
        bool equal = *ours.counters(s) == *theirs.counters(s) &&
                     same(ours.scores(s, 0), theirs.scores(s, 0), ours.slot_bytes()) &&
                     same(ours.origins(s, 0), theirs.origins(s, 0), ours.slot_bytes());
        for (std::int32_t h = 0; h < kv_heads; ++h) {
            std::int64_t const bytes = std::int64_t{ours.layout.rows()} * head_dim * 2;
            equal = equal && same(ours.keys(s, h), theirs.keys(s, h), bytes) &&
                    same(ours.values(s, h), theirs.values(s, h), bytes);
        }
        if (!equal) throw std::runtime_error("the caches differ from the reference's");
    }
}

enum class part { prefill, attend, insert, decode };

// Query-key pairs of a launch on full caches.
double pairs(cascade_shape const& s) {
    double total = 0;
    for (std::int64_t first = 0; first < s.tokens; first += s.chunk) {
        auto const n = static_cast<double>(smaller<std::int64_t>(s.chunk, s.tokens - first));
        total += n * (sinks + s.slots) + n * (n + 1) / 2;
    }
    return total * s.batch;
}

prepared running(cascade_shape const& shape, part what) {
    auto const c = std::make_shared<cascade_case>(shape);
    c->fill_caches();
    check_step(*c);
    work counted;
    if (what == part::prefill || what == part::attend) counted.flops = 4.0 * head_dim * heads * pairs(shape);
    if (what == part::decode)  // keys and values of the caches, once
        counted.bytes = 2.0 * 2 * head_dim * kv_heads * (sinks + shape.slots) * shape.batch;
    auto const launch = [c, what](cudaStream_t stream) {
        auto const p = c->attend(c->shape.tokens);
        if (what == part::prefill) return c->run(c->prefill(), stream);
        if (what == part::attend) return c->run(p, stream);
        if (what == part::insert) return c->run(insert_part(p), stream);
        if (auto s = c->run(p, stream); !s) return s;
        return c->run(insert_part(p), stream);
    };
    require(launch(this_machine().stream));  // makes the workspace, which a capture cannot
    require(cudaStreamSynchronize(this_machine().stream), "cascade");
    return {launch, counted};
}

void add_all() {
    auto const prefill = [](char const* set, char const* name, std::int64_t tokens, std::int32_t chunk,
                            std::int32_t levels, cascade_scorer const& scorer) {
        add(std::string(set) + "/cascade/prefill/" + name + size_name(tokens) + "/chunk_" + std::to_string(chunk),
            benchmark::kMillisecond, [=] {
                return running({.tokens = tokens, .chunk = chunk, .levels = levels, .scorer = scorer}, part::prefill);
            });
    };
    cascade_scorer const exact{all_queries{}, 0.9999}, estimate{last_queries<256>{}, 0.9999};
    prefill("quick", "", 32 << 10, 4096, 4, exact);
    for (std::int32_t const chunk : {1024, 4096}) prefill("full", "", 128 << 10, chunk, 4, exact);
    prefill("full", "", 1 << 20, 4096, 4, exact);
    for (std::int32_t const chunk : {1024, 4096}) prefill("full", "last_256_queries/", 128 << 10, chunk, 4, estimate);
    prefill("full", "window/", 128 << 10, 4096, 1, exact);
    for (std::int32_t const chunk : {1024, 4096}) {
        auto const step = [=](char const* name, part what, bool scored, std::int32_t rows) {
            add(std::string(chunk == 4096 ? "quick" : "full") + "/cascade/step/" + name + "/chunk_" +
                    std::to_string(chunk),
                benchmark::kMicrosecond, [=] {
                    cascade_shape s{.tokens = chunk, .chunk = chunk, .scored = scored};
                    s.scorer.rows = rows;
                    return running(s, what);
                });
        };
        step("attend", part::attend, false, 0);
        step("attend_and_score", part::attend, true, 0);
        step("attend_and_score_last_256", part::attend, true, 256);
        step("insert", part::insert, true, 0);
    }
    for (std::int32_t const batch : {1, 8})
        for (bool const scored : {true, false})
            for (cascade_keys const stored : {cascade_keys::unrotated, cascade_keys::with_rotated})
                add(std::string(batch == 1 ? "quick" : "full") + "/cascade/decode/" +
                        (stored == cascade_keys::with_rotated ? "rotated_copy/" : "lined_up/") +
                        (scored ? "scored/" : "unscored/") + "B_" + std::to_string(batch),
                    benchmark::kMicrosecond, [=] {
                        return running({.tokens = 1, .chunk = 1, .batch = batch, .scored = scored, .stored = stored},
                                       part::decode);
                    });
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
