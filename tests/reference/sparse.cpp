// The composed oracle: prefill against its parts, decode against fresh pruning, the refresh rule, slots.
#include "winnow/reference/sparse.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/quantised_cache.hpp"
#include "support/random_input.hpp"

using namespace winnow;
using testing::attend_input;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

sparse_prefill_params<bf16> prefill_of(attend_params<bf16> const& a, prune_method const& method) {
    sparse_prefill_params<bf16> p;
    p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.kv = a.kv, p.rows = a.rows;
    p.output = a.output, p.lse = a.lse, p.scale = a.scale, p.mask = a.mask;
    p.method = method;
    return p;
}

// A batch of decoding requests whose contexts grow by one token a step; all tokens are drawn beforehand.
struct decoding {
    std::int32_t batch, steps;
    prune_method method;
    attend_input<bf16> keys, queries;  // queries: row s of request b is its query at step s
    std::vector<std::int32_t> length, step, slot, lists;
    stage_cache cache;

    decoding(std::vector<std::int32_t> const& first_lengths, std::int32_t step_count, prune_method const& m,
             kv_layout layout = kv_layout::contiguous)
        : batch(static_cast<std::int32_t>(first_lengths.size())), steps(step_count), method(m),
          keys({.queries = std::vector<std::int32_t>(first_lengths.size(), 1),
                .keys = lengths_at_end(first_lengths, step_count),
                .heads = 4,
                .kv_heads = 2,
                .layout = layout,
                .page_size = 8}),
          queries({.queries = std::vector<std::int32_t>(first_lengths.size(), step_count),
                   .keys = std::vector<std::int32_t>(first_lengths.size(), 1),
                   .heads = 4,
                   .kv_heads = 2,
                   .seed = 9}),
          length(first_lengths) {
        std::int32_t const slots = batch + 2;
        step.assign(static_cast<std::size_t>(slots), 0);
        lists.assign(stage_cache_entries(m, 4, 2, slots), -12345);
        for (std::int32_t b = 0; b < batch; ++b) slot.push_back(batch - b);  // any order, slots 0 and batch + 1 unused
        cache = {step.data(), lists.data(), slot.data(), slots, {{8, 4, 2}}};
        std::copy(length.begin(), length.end(), keys.key_lengths());
    }
    static std::vector<std::int32_t> lengths_at_end(std::vector<std::int32_t> lengths, std::int32_t steps) {
        for (auto& n : lengths) n += steps;
        return lengths;
    }

    sparse_decode_params<bf16> params(std::int32_t at_step) {
        auto const a = keys.params();
        auto const q = queries.params();
        sparse_decode_params<bf16> p;
        p.queries = q.queries;
        p.queries.data += q.queries.offset(0, at_step);
        p.queries.extent[1] = 1;
        p.keys = a.keys, p.values = a.values, p.kv = a.kv;
        p.output = a.output, p.lse = a.lse, p.scale = a.scale;
        p.method = method;
        p.cache = cache;
        return p;
    }
    reference::attend_result run(std::int32_t at_step) {
        reference::attend_result r;
        status const s = reference::sparse_decode(params(at_step), &r, {.threads = 2});
        INFO(s.field << " " << s.rule);
        REQUIRE(s.ok());
        return r;
    }
    void grow() {
        for (std::int32_t b = 0; b < batch; ++b) keys.key_lengths()[b] = ++length[static_cast<std::size_t>(b)];
    }
    std::vector<std::int32_t> cached(std::int32_t stage, std::int32_t b, std::int32_t head = 0) {
        auto const list = reference::cached_list_of(params(0), stage, slot[static_cast<std::size_t>(b)], head);
        return {list.entries, list.entries + *list.count};
    }
    // What pruning from scratch finds for request b now, as block ids.
    std::vector<std::int32_t> fresh(std::int32_t at_step, std::int32_t b) {
        auto const p = params(at_step);
        prune_params<bf16> q;
        q.queries = p.queries, q.keys = p.keys, q.kv = p.kv, q.method = method;
        q.lookahead = cache.intervals.steps[0];
        reference::selection_storage const s(method, q.shape());
        q.selection = s.view;
        REQUIRE(reference::prune(q).ok());
        std::vector<std::int32_t> ids;
        for (std::int32_t i = 0; i < s.view.counts(b, 0, 0); ++i) ids.push_back(s.view.blocks(b, 0, 0, i));
        return ids;
    }
};

prune_method const three_stages{
    .stages = {{16, 2, 64, 3}, {16, 1, 32, 4}, {16, 1, 8, 6}}, .stage_count = 3, .window = {16, 32}};

}  // namespace

TEST_CASE("reference sparse_prefill: pruning, then attention", "[reference]") {
    attend_input<bf16> in({.queries = {50, 50}, .keys = {300, 211}, .heads = 4, .kv_heads = 2});
    auto const a = in.params();
    auto const p = prefill_of(a, hip_tiny);
    reference::attend_result composed, separate;
    reference::prune_trace trace;
    REQUIRE(reference::sparse_prefill(p, &composed, &trace).ok());
    auto const written = in.output();
    auto q = testing::prune_params_of(a, hip_tiny);
    reference::selection_storage const s(hip_tiny, q.shape());
    q.selection = s.view;
    REQUIRE(reference::prune(q).ok());
    auto attention = a;
    attention.selection = s.view, attention.window = hip_tiny.window;
    REQUIRE(reference::attend(attention, &separate).ok());
    CHECK(composed.output == separate.output);
    CHECK(composed.lse == separate.lse);
    CHECK(in.output() == written);
    CHECK(trace.at(1, 1, 0, 0).kept.size() == 8);
}

TEST_CASE("reference sparse_prefill: with room for everything it is dense attention", "[reference]") {
    attend_input<bf16> in({.queries = {60}, .keys = {260}, .heads = 2});
    prune_method method = hip_tiny;
    method.stages[0].keep = method.stages[1].keep = 64;
    reference::attend_result sparse, dense;
    REQUIRE(reference::sparse_prefill(prefill_of(in.params(), method), &sparse).ok());
    REQUIRE(reference::attend(in.params(), &dense).ok());
    CHECK(sparse.output == dense.output);
}

TEST_CASE("reference sparse_prefill: the dense tail", "[reference]") {
    attend_input<bf16> in({.queries = {50}, .keys = {300}, .heads = 2});
    auto p = prefill_of(in.params(), hip_tiny);
    reference::attend_result sparse, mixed, dense;
    REQUIRE(reference::sparse_prefill(p, &sparse).ok());
    REQUIRE(reference::attend(in.params(), &dense).ok());
    for (std::int32_t const tail : {1, 16, 50, 80}) {
        p.dense_tail = tail;
        REQUIRE(reference::sparse_prefill(p, &mixed).ok());
        int wrong = 0;
        for (std::int32_t row = 0; row < 50; ++row)
            for (std::size_t i = 0; i < 128; ++i) {
                std::size_t const at = static_cast<std::size_t>(row) * 128 + i;
                wrong += mixed.output[at] != (row >= 50 - tail ? dense : sparse).output[at];
            }
        for (std::int32_t row = 0; row < 50; ++row)
            for (std::size_t h = 0; h < 2; ++h) {
                std::size_t const at = static_cast<std::size_t>(row) * 2 + h;
                wrong += mixed.lse[at] != (row >= 50 - tail ? dense : sparse).lse[at];
            }
        for (double const x : in.output()) wrong += x != x;  // every row was written
        CHECK(wrong == 0);
    }
    CHECK(sparse.output != dense.output);
}

TEST_CASE("reference sparse_prefill: corrected, it is delta correction over the lists of pruning", "[reference]") {
    testing::attend_input<bf16> in({.queries = {90}, .keys = {300}, .heads = 4, .kv_heads = 2});
    auto const a = in.params();
    sparse_prefill_params<bf16> p;
    p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.kv = a.kv;
    p.output = a.output, p.lse = a.lse, p.scale = a.scale, p.method = hip_tiny;
    p.delta = {.gamma = 16, .dense_tail = 10};
    reference::attend_result found, plain, expected, dense;
    REQUIRE(reference::sparse_prefill(p, &found).ok());
    reference::selection_storage const lists(p.method, p.shape());
    REQUIRE(reference::prune(prune_part(p, lists.view)).ok());
    REQUIRE(reference::delta(delta_part(p, lists.view), &expected).ok());
    REQUIRE(reference::attend(attend_part(p, lists.view), &plain).ok());
    REQUIRE(reference::attend(a, &dense).ok());
    CHECK((found.output == expected.output));
    CHECK((found.lse == expected.lse));
    CHECK((found.output != plain.output));
    CHECK(std::equal(found.output.end() - 10 * 4 * 64, found.output.end(), dense.output.end() - 10 * 4 * 64));
}

TEST_CASE("reference sparse_decode: the first step equals the last row of a prefill", "[reference]") {
    attend_input<bf16> in({.queries = {16}, .keys = {320}, .heads = 4, .kv_heads = 2});  // rows 304 .. 319, one block
    prune_method method = hip_tiny;
    for (auto& stage : method.stages) stage.query_block = stage.query_stride = 1;  // so that a row is its own block
    reference::attend_result prefill, decode;
    REQUIRE(reference::sparse_prefill(prefill_of(in.params(), method), &prefill).ok());
    auto const a = in.params();
    std::vector<std::int32_t> step(1, 0), lists(stage_cache_entries(method, 4, 2, 1));
    sparse_decode_params<bf16> p;
    p.queries = a.queries, p.output = a.output;
    p.queries.data += a.queries.offset(0, 15), p.queries.extent[1] = 1, p.output.extent[1] = 1;
    p.keys = a.keys, p.values = a.values, p.kv = a.kv, p.scale = a.scale, p.method = method;
    p.cache = {
        step.data(), lists.data(), nullptr, 1, {{1, 1}}};  // looks one step ahead, not enough for another block here
    REQUIRE(reference::sparse_decode(p, &decode).ok());
    CHECK(std::equal(decode.output.begin(), decode.output.end(), prefill.output.begin() + 15 * 256));
    CHECK(step[0] == 1);
}

TEST_CASE("reference sparse_decode: with room for everything every step is dense attention", "[reference]") {
    // Lists are reused for up to 8 steps; lookahead must keep every key that leaves the window meanwhile.
    prune_method method = three_stages;
    for (auto& stage : method.stages) stage.keep = 64;
    method.window.recent = 8;
    for (auto const layout : {kv_layout::contiguous, kv_layout::block_table}) {
        decoding d({1, 60, 131}, 40, method, layout);
        for (std::int32_t s = 0; s < d.steps; ++s) {
            auto const sparse = d.run(s);
            auto dense_params = attend_part(d.params(s));
            dense_params.selection = {}, dense_params.window = {};
            reference::attend_result dense;
            REQUIRE(reference::attend(dense_params, &dense).ok());
            CHECK(sparse.output == dense.output);
            d.grow();
        }
    }
}

TEST_CASE("reference sparse_decode: refreshes what is due and keeps the rest", "[reference]") {
    decoding d({500, 333}, 33, three_stages);
    std::vector<std::vector<std::int32_t>> before(6);
    for (std::int32_t s = 0; s < d.steps; ++s) {
        d.run(s);
        std::int32_t const due = s % 8 == 0 ? 0 : s % 4 == 0 ? 1 : s % 2 == 0 ? 2 : 3;
        for (std::int32_t b = 0; b < 2; ++b) {
            for (std::int32_t stage = 0; stage < 3; ++stage) {
                auto& old = before[static_cast<std::size_t>(b * 3 + stage)];
                auto const now = d.cached(stage, b);
                if (stage < due) CHECK(now == old);
                old = now;
            }
            if (due == 0) CHECK(d.cached(2, b) == d.fresh(s, b));
            // The final list lies inside the chunks that stage 2 kept, those inside stage 1's; it holds block ids.
            for (std::int32_t const id : d.cached(2, b)) {
                auto const parents = d.cached(1, b);
                CHECK(std::count(parents.begin(), parents.end(), (id * 8 - 16) / 32 * 32 + 16) == 1);
            }
            for (std::int32_t const left : d.cached(1, b)) {
                auto const parents = d.cached(0, b);
                CHECK(std::count(parents.begin(), parents.end(), (left - 16) / 64 * 64 + 16) == 1);
            }
        }
        for (std::int32_t const slot : d.slot) CHECK(d.step[static_cast<std::size_t>(slot)] == s + 1);
        d.grow();
    }
    CHECK(d.step.front() == 0);
    CHECK(d.step.back() == 0);
}

TEST_CASE("reference sparse_decode: a reset slot starts afresh, whatever it holds", "[reference]") {
    decoding d({500, 333}, 10, three_stages);
    for (std::int32_t s = 0; s < 3; ++s) d.run(s), d.grow();
    auto const slot = static_cast<std::size_t>(d.slot[1]);
    d.step[slot] = 0;
    for (std::int32_t stage = 0; stage < 3; ++stage) {
        auto const list = reference::cached_list_of(d.params(0), stage, d.slot[1], 0);
        *list.count = 3;
        for (int i = 0; i < 3; ++i) list.entries[i] = 16;
    }
    auto const other = d.cached(2, 0);
    d.run(3);
    CHECK(d.cached(2, 1) == d.fresh(3, 1));
    CHECK(d.cached(2, 0) == other);  // step 3 of a slot that was not reset: nothing due
    CHECK(d.step[slot] == 1);
    CHECK(d.step[static_cast<std::size_t>(d.slot[0])] == 4);
}

TEST_CASE("reference sparse_decode: padded rows give 0 and -inf and touch nothing", "[reference]") {
    decoding d({500, 333, 90, 77}, 4, three_stages);
    d.run(0);
    d.grow();
    auto const step = d.step, lists = d.lists;
    auto const slot = d.slot;
    auto const length = d.keys.key_lengths()[2];
    d.slot[0] = -1;
    d.slot[3] = d.cache.slots;  // beyond the cache: treated as padding, never read
    d.keys.key_lengths()[2] = 0;
    auto const r = d.run(1);
    for (std::size_t const b : {0u, 2u, 3u})
        for (std::size_t i = 0; i < 256; ++i) {
            REQUIRE(r.output[b * 256 + i] == 0);
            REQUIRE(r.lse[b * 4 + i / 64] == -infinity);
        }
    CHECK(r.lse[4] > -infinity);
    auto expected = step;
    ++expected[static_cast<std::size_t>(slot[1])];
    CHECK(d.step == expected);
    CHECK(d.lists == lists);  // step 1 refreshes nothing
    SECTION("rows that come back go on where they were") {
        d.slot = slot;
        d.cache.slot = d.slot.data();
        d.keys.key_lengths()[2] = length;
        d.run(1);
        CHECK(d.step[static_cast<std::size_t>(slot[0])] == 2);
        CHECK(d.step[static_cast<std::size_t>(slot[1])] == 3);
    }
}

TEST_CASE("reference sparse_decode: results do not depend on slots or batch neighbours", "[reference]") {
    decoding one({500, 333}, 12, three_stages), other({500, 333}, 12, three_stages);
    other.slot = {0, 3};
    other.cache.slot = other.slot.data();
    for (std::int32_t s = 0; s < 12; ++s) {
        CHECK(one.run(s).output == other.run(s).output);
        one.grow(), other.grow();
    }
    SECTION("without cache.slot the slot is the row") {
        decoding rows({500, 333}, 12, three_stages);
        rows.cache.slot = nullptr;
        decoding named({500, 333}, 12, three_stages);
        named.slot = {0, 1};
        named.cache.slot = named.slot.data();
        for (std::int32_t s = 0; s < 5; ++s) {
            CHECK(rows.run(s).output == named.run(s).output);
            rows.grow(), named.grow();
        }
        CHECK(rows.step == named.step);
        CHECK(rows.lists == named.lists);
    }
}

TEST_CASE("reference sparse_decode: lists per KV group and per head", "[reference]") {
    for (auto const share : {sharing::per_kv_group, sharing::per_head}) {
        prune_method method = three_stages;
        method.sharing = share;
        decoding d({500}, 3, method);
        for (std::int32_t s = 0; s < 3; ++s) {
            auto const r = d.run(s);
            // The same lists, handed to attention directly.
            auto const p = d.params(s);
            auto attention = attend_part(p);
            reference::attend_result direct;
            REQUIRE(reference::attend(attention, &direct).ok());
            CHECK(r.output == direct.output);
            for (std::int32_t h = 0; h < list_heads_of(share, 4, 2); ++h) CHECK(d.cached(2, 0, h).size() == 6);
            d.grow();
        }
    }
}

TEST_CASE("reference sparse_decode: an empty batch over slots", "[reference]") {
    std::vector<std::int32_t> step(3, 5), slot(1, 2), lists(stage_cache_entries(hip_tiny, 4, 2, 3), -1);
    sparse_decode_params<bf16> p;
    p.queries = packed_view(static_cast<bf16 const*>(nullptr), {0, 1, 4, 64});
    p.keys = p.values = packed_view(static_cast<bf16 const*>(nullptr), {0, 100, 2, 64});
    p.output = packed_view(static_cast<bf16*>(nullptr), {0, 1, 4, 64});
    p.method = hip_tiny;
    p.cache = {step.data(), lists.data(), slot.data(), 3};
    p.scale = 1;
    REQUIRE(check(p).ok());
    CHECK(reference::sparse_decode(p).ok());
    CHECK(step == std::vector<std::int32_t>(3, 5));
}

TEST_CASE("reference sparse_decode: an fp8 cache gives what its elements stand for", "[reference]") {
    // Two decodings side by side, one over fp8 with scales for each KV head, one over the same numbers in bf16.
    for (auto const share : {sharing::per_batch, sharing::per_head}) {
        prune_method method = three_stages;
        method.sharing = share;
        decoding narrow({300, 40, 170}, 10, method, kv_layout::block_table),
            wide({300, 40, 170}, 10, method, kv_layout::block_table);
        testing::quantised_cache<bf16> const cache(wide.keys.params(), 2, 0.5f, 2, 4);
        for (std::int32_t b = 0; b < 3; ++b)
            for (std::int32_t j = 0; j < wide.keys.shape().keys[static_cast<std::size_t>(b)]; ++j)
                for (std::int32_t h = 0; h < 2; ++h)
                    for (std::int32_t c = 0; c < 64; ++c) {
                        bf16 &key = wide.keys.key(b, j, h, c), &value = wide.keys.value(b, j, h, c);
                        key = cache.standing_for(from_float<fp8_e4m3>(to_float(key)), cache.key_scale.data(), h);
                        value = cache.standing_for(from_float<fp8_e4m3>(to_float(value)), cache.value_scale.data(), h);
                    }
        for (std::int32_t s = 0; s < 10; ++s) {
            INFO("sharing " << static_cast<int>(share) << ", step " << s);
            auto const a = narrow.params(s);
            sparse_decode_params<bf16, fp8_e4m3> p;
            p.queries = a.queries, p.kv = a.kv, p.output = a.output, p.lse = a.lse, p.scale = a.scale;
            p.keys = a.keys.over(cache.keys.data());
            p.values = a.values.over(cache.values.data());
            p.method = method, p.cache = narrow.cache, p.scales = cache.scales();
            reference::attend_result found;
            REQUIRE(reference::sparse_decode(p, &found).ok());
            auto const expected = wide.run(s);
            CHECK(narrow.lists == wide.lists);
            CHECK(narrow.step == wide.step);
            double most = 0;
            for (std::size_t i = 0; i < found.output.size(); ++i)
                most = std::fmax(most, std::fabs(found.output[i] - expected.output[i]));
            for (std::size_t i = 0; i < found.lse.size(); ++i)
                most = std::fmax(most, std::fabs(found.lse[i] - expected.lse[i]));
            CHECK(most < 1e-12);
            narrow.grow(), wide.grow();
        }
    }
}
