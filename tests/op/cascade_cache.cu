// What happens to cascading caches: insertion in random configurations, long sequences, large memory, whole prefills,
// graphs, forks, refused calls.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "support/cascade_input.hpp"
#include "support/catch.hpp"
#include "support/gpu_cascade.hpp"
#include "support/gpu_device.hpp"
#include "support/tolerance.hpp"
#include "winnow/reference/cascade.hpp"

using namespace winnow;
using testing::adjacent;
using testing::both;
using testing::cascade_shape;
using testing::device_memory;
using testing::halves;
using testing::lengths;
using testing::run;
using testing::uneven;

TEST_CASE("cascade: insertion is the sequential one to the bit", "[gpu]") {
    testing::random_source random(11);
    for (int i = 0; i < 360; ++i) {
        cascade_shape shape;
        shape.layout = testing::random_cascade(random, i % 4 == 0 ? 40 : 9);
        shape.kv_heads = shape.heads = random.between(1, 3);
        shape.token_heads = random.below(3) == 0 ? cascade_heads::shared : cascade_heads::per_kv_head;
        shape.batch = random.between(1, 2);
        shape.max_tokens = i % 16 == 0 ? 600 : i % 3 == 0 ? 2 : 140;  // few moves take another way
        if (i % 9 == 0) shape.head_dim = 256;
        shape.ragged = random.below(2) == 0;
        shape.seed = static_cast<std::uint64_t>(i);
        both<bf16> sides(shape);
        for (int step = 0; step < 3; ++step) {
            lengths tokens(static_cast<std::size_t>(shape.batch), random.between(1, shape.max_tokens));
            if (shape.ragged)
                for (auto& n : tokens) n = random.between(0, random.below(2) == 0 ? 3 : shape.max_tokens);
            INFO("configuration " << i << ", step " << step);
            sides.in.draw_step(tokens);
            sides.in.draw_scores(1 + random.below(12));
            sides.insert();
        }
    }
}

TEST_CASE("cascade: insertion of single tokens is the sequential one to the bit", "[gpu]") {
    testing::random_source random(12);
    for (int i = 0; i < 40; ++i) {
        cascade_shape shape;
        shape.layout = testing::random_cascade(random, 5);
        shape.kv_heads = shape.heads = i % 10 == 0 ? 19 : random.between(1, 3);  // more sets of tokens than warps
        shape.token_heads = random.below(3) == 0 ? cascade_heads::shared : cascade_heads::per_kv_head;
        shape.batch = random.between(1, 2);
        shape.max_tokens = 1;
        shape.head_dim = i % 5 == 0 ? 256 : 64;
        shape.ragged = random.below(2) == 0;
        shape.rotation = i % 3 == 0 ? rope{} : i % 3 == 1 ? halves : adjacent;
        shape.positions = random.below(2) == 0 ? cascade_positions::cached : cascade_positions::original;
        shape.stored = i % 4 == 0 ? cascade_keys::unrotated : cascade_keys::with_rotated;
        shape.seed = static_cast<std::uint64_t>(i);
        both<bf16> sides(shape);
        for (int step = 0; step < 40; ++step) {
            lengths tokens(static_cast<std::size_t>(shape.batch), 1);
            if (shape.ragged)
                for (auto& n : tokens) n = random.below(4) == 0 ? 0 : 1;
            INFO("configuration " << i << ", step " << step);
            sides.in.draw_step(tokens);
            sides.in.draw_scores(1 + random.below(4));
            sides.insert();
        }
    }
    // Rows of one head that fill a block: every sub-cache evicts.
    both<bf16> deep({.layout = even_cascade(2, 32, 16), .heads = 2, .kv_heads = 2, .head_dim = 256, .max_tokens = 1});
    for (int step = 0; step < 50; ++step) {
        deep.in.draw_step({1});
        deep.in.draw_scores(3);
        deep.insert();
    }
}

TEST_CASE("cascade: without scores newcomers win; NaN loses", "[gpu][small]") {
    both<bf16> sides({.layout = even_cascade(1, 6, 3), .max_tokens = 40, .scored = false});
    sides.insert();
    both<bf16> other({.layout = even_cascade(1, 6, 3), .max_tokens = 40});
    other.in.draw_scores(3);
    auto const p = other.in.attend(other.in.memory().base());
    for (std::int64_t t = 0; t < 40; t += 3) p.scores(0, t, 0) = std::numeric_limits<float>::quiet_NaN();
    other.insert();
}

TEST_CASE("cascade: a million tokens, and counters beyond 2^31", "[gpu]") {
    cascade_layout const layout = even_cascade(4, 256, 4);
    both<bf16> sides({.layout = layout, .heads = 1, .max_tokens = 1 << 16});
    for (int chunk = 0; chunk < 16; ++chunk) {
        sides.in.draw_scores(50);
        sides.insert();
    }
    auto* const counters = sides.in.cache(sides.in.memory().base()).counters(0);
    CHECK(counters->seen == 1 << 20);
    counters->seen = (std::int64_t{1} << 31) - 20;
    both<bf16> later({.layout = layout, .heads = 2, .max_tokens = 50, .rotation = halves});
    later.step({50});
    later.step({50});
    later.in.cache(later.in.memory().base()).counters(0)->seen = (std::int64_t{1} << 33) - 20;
    later.step({50});
    later.step({1});
}

TEST_CASE("cascade: offsets beyond 2^31", "[gpu][big]") {
    // The second of two caches of 2^22 slots begins beyond 2^32 bytes, and so do its values within it. With few tokens
    // in it, it holds what a small cache holds.
    cascade_shape shape{
        .layout = sliding_window(3, 500), .heads = 2, .head_dim = 256, .max_tokens = 100, .rotation = halves};
    both<bf16> small(shape);
    small.upload();
    auto attend = small.in.attend(small.device());
    cascade_cache<bf16> large = attend.cache;
    large.layout.size[0] = 1 << 22, large.sequences = 2;
    std::size_t available = 0, total = 0;
    testing::require_cuda(cudaMemGetInfo(&available, &total));
    if (available <= 2 * cascade_bytes(large)) {
        std::puts("cascade, offsets beyond 2^31: not enough free device memory, nothing tested");
        return;
    }
    device_memory memory(cascade_bytes(large)), second(4);
    std::int32_t const one = 1;
    second.upload(&one, 4);
    large.memory = memory.data();
    testing::require_cuda(cudaMemset(large.counters(1), 0, sizeof(cascade_counters)));
    auto far = attend;
    far.cache = large, far.sequence = second.as<std::int32_t>();
    device_memory output(static_cast<std::size_t>(attend.output.size()) * 2);
    far.output.data = output.as<bf16>();
    for (int step = 0; step < 3; ++step) {
        small.in.draw_step({100});
        auto const bytes = static_cast<std::size_t>(static_cast<char const*>(attend.cache.memory) -
                                                    static_cast<char const*>(small.device()));
        testing::require_cuda(cudaMemcpy(small.device(), small.in.memory().base(), bytes, cudaMemcpyHostToDevice));
        testing::run_on_device(attend), testing::run_on_device(insert_part(attend));
        auto near = small.download();
        testing::run_on_device(far), testing::run_on_device(insert_part(far));
        auto const found = output.download<char>();
        CHECK(std::memcmp(found.data(), small.in.attend(near.data()).output.data, found.size()) == 0);
    }
}

TEST_CASE("cascade: prefill is attend and insert in turn, to the bit", "[gpu]") {
    auto const stored = GENERATE(cascade_keys::unrotated, cascade_keys::with_rotated);
    constexpr std::int32_t chunk = 33;  // three chunks, and one of a single token
    cascade_shape shape{.layout = uneven(3, {20, 10, 10}),
                        .heads = 4,
                        .kv_heads = 2,
                        .batch = 2,
                        .max_tokens = 100,
                        .sequence = {1, 0},
                        .rotation = halves,
                        .stored = stored};
    both<bf16> sides(shape);
    sides.upload();
    auto const d = sides.in.attend(sides.device());
    cascade_prefill_params<bf16> p;
    p.queries = d.queries, p.keys = d.keys, p.values = d.values, p.cache = d.cache, p.output = d.output, p.lse = d.lse;
    p.sequence = d.sequence, p.scale = d.scale, p.rotation = d.rotation, p.scorer = d.scorer, p.chunk = chunk;
    testing::run_on_device(p);
    auto const at_once = sides.download();
    sides.upload();
    device_memory scores(2 * chunk * 2 * 4);
    for (std::int64_t first = 0; first < 100; first += chunk) {
        auto const part = attend_part(p, first, std::min<std::int64_t>(chunk, 100 - first), scores.as<float>());
        testing::run_on_device(part);
        testing::run_on_device(insert_part(part));
    }
    CHECK((sides.download() == at_once));
}

TEST_CASE("cascade: captured steps", "[gpu][small]") {
    // Few slots wrap; many make splits, whose counters each replay has to begin with.
    int const which = GENERATE(0, 1, 2);
    auto const stored = which == 0 ? cascade_keys::unrotated : cascade_keys::with_rotated;
    cascade_shape const shape{.layout = which == 2 ? even_cascade(2, 390, 3) : even_cascade(2, 9, 3),
                              .heads = 4,
                              .kv_heads = 2,
                              .batch = 2,
                              .max_tokens = 1,
                              .rotation = halves,
                              .stored = stored};
    both<bf16> sides(shape);
    sides.upload();
    auto const attend = sides.in.attend(sides.device());
    auto const insert = sides.in.insert(sides.device());
    auto const attend_plan = plan(attend, testing::current_device());
    auto const insert_plan = plan(insert, testing::current_device());
    device_memory scratch(std::max(attend_plan.workspace_bytes, insert_plan.workspace_bytes));
    workspace const lent{scratch.data(), scratch.size()};
    testing::captured_graph const graph([&](cudaStream_t stream) {
        REQUIRE(testing::gpu_launch(attend, attend_plan, lent, stream).ok());
        REQUIRE(testing::gpu_launch(insert, insert_plan, lent, stream).ok());
    });
    CHECK(graph.kernels_and_others().second == 0);
    both<bf16> plain(shape);
    for (int step = 0; step < 25; ++step) {
        sides.in.draw_step({1, 1}), plain.in.draw_step({1, 1});
        // Only the chunk is new; the caches live on the device.
        auto const bytes = static_cast<std::size_t>(static_cast<char const*>(sides.in.cache(sides.device()).memory) -
                                                    static_cast<char const*>(sides.device()));
        testing::require_cuda(cudaMemcpy(sides.device(), sides.in.memory().base(), bytes, cudaMemcpyHostToDevice));
        graph.replay();
        plain.upload();
        testing::run_on_device(plain.in.attend(plain.device()));
        testing::run_on_device(plain.in.insert(plain.device()));
        plain.accept(plain.download());
        REQUIRE(plain.same(sides.download()));
    }
}

TEST_CASE("cascade: fork, reset, clear", "[gpu][small]") {
    both<bf16> sides({.layout = even_cascade(2, 12, 3), .batch = 3, .max_tokens = 30, .rotation = halves});
    sides.step({30, 30, 30});
    sides.upload();
    auto const cache = sides.in.cache(sides.device());
    auto const bytes = static_cast<std::size_t>(cache.sequence_bytes());
    REQUIRE(testing::gpu_cascade_fork(cache, 0, 2, nullptr).ok());
    REQUIRE(testing::gpu_cascade_reset(cache, 1, nullptr).ok());
    auto after = sides.download();
    auto const found = sides.in.cache(after.data()), before = sides.in.cache(sides.in.memory().base());
    CHECK(std::memcmp(found.counters(0), before.counters(0), bytes) == 0);
    CHECK(std::memcmp(found.counters(2), before.counters(0), bytes) == 0);
    CHECK(*found.counters(1) == cascade_counters{});
    sides.accept(after);
    sides.step({3, 30, 3});  // the sequence that was reset starts anew
    sides.upload();
    REQUIRE(testing::gpu_cascade_clear(cache, 1, nullptr).ok());
    after = sides.download();
    auto const now = sides.in.cache(after.data());
    char const* const cleared = reinterpret_cast<char const*>(now.counters(1));
    CHECK(std::all_of(cleared, cleared + bytes, [](char c) { return c == 0; }));
    CHECK(std::memcmp(now.counters(2), before.counters(2), bytes) == 0);

    status const s = testing::gpu_cascade_fork(cache, 3, 0, nullptr);
    CHECK(s.code == errc::out_of_range);
    CHECK(std::string(s.field) == "from");
    CHECK(std::string(testing::gpu_cascade_fork(cache, 0, -1, nullptr).field) == "to");
    CHECK(std::string(testing::gpu_cascade_reset(cache, 3, nullptr).field) == "sequence");
    CHECK(std::string(testing::gpu_cascade_clear(cache, -1, nullptr).field) == "sequence");
}

TEST_CASE("cascade: a refused launch writes nothing", "[gpu][small]") {
    both<bf16> sides({.layout = even_cascade(2, 12, 3), .max_tokens = 30, .rotation = halves});
    sides.upload();
    auto const attend = sides.in.attend(sides.device());
    auto const insert = sides.in.insert(sides.device());
    auto const a = plan(attend, testing::current_device());
    auto const i = plan(insert, testing::current_device());
    device_memory scratch(std::max(a.workspace_bytes, i.workspace_bytes));
    workspace const lent{scratch.data(), scratch.size()};
    auto other = attend;
    other.queries.extent[1] = other.keys.extent[1] = other.values.extent[1] = other.output.extent[1] = 20;
    other.lse.values.extent[1] = other.scores.extent[1] = 20;
    CHECK(testing::gpu_launch(other, a, lent, nullptr).code == errc::wrong_plan);
    CHECK(testing::gpu_launch(insert_part(other), i, lent, nullptr).code == errc::wrong_plan);
    CHECK(testing::gpu_launch(attend, a, {scratch.data(), a.workspace_bytes - 1}, nullptr).code ==
          errc::workspace_too_small);
    CHECK(testing::gpu_launch(insert, i, {scratch.data(), i.workspace_bytes - 1}, nullptr).code ==
          errc::workspace_too_small);
    other = attend;
    other.scale = 0;
    CHECK(testing::gpu_launch(other, a, lent, nullptr).code == errc::out_of_range);
    CHECK(testing::gpu_launch(other, plan(other, testing::current_device()), lent, nullptr).code == errc::out_of_range);
    testing::require_cuda(cudaDeviceSynchronize());
    CHECK(sides.same(sides.download()));
}
