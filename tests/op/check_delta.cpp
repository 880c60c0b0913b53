// Bad input of delta correction: every rule of its own, and plans.
#include <cstdint>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/op/delta.hpp"
#include "winnow/reference/delta.hpp"

using namespace winnow;

namespace {

using params = delta_params<bf16>;

params delta_of(attend_params<bf16> const& base, delta_options const& options = {}) {
    return {.base = base, .options = options};
}

// A call without tensors, of any size.
params geometry(std::int64_t rows, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                std::int64_t batch = 1) {
    attend_params<bf16> base;
    base.queries = packed_view(static_cast<bf16 const*>(nullptr), {batch, rows, heads, head_dim});
    base.keys = base.values = packed_view(static_cast<bf16 const*>(nullptr), {batch, rows, kv_heads, head_dim});
    base.output = packed_view(static_cast<bf16*>(nullptr), {batch, rows, heads, head_dim});
    base.window = {.sinks = 1024, .recent = 2048};
    return delta_of(base);
}

// Sink logits that are not read.
alignas(16) float const a_logit[1] = {};

}  // namespace

TEST_CASE("check delta: every rule", "[op]") {
    testing::attend_input<bf16> input({.queries = {20, 20}, .keys = {200, 130}, .heads = 4, .kv_heads = 2});
    using row = testing::bad_input<params>;
    testing::require_statuses(
        delta_of(input.params()),
        std::vector<row>{
            {[](params& p) { p.base.queries.extent[3] = 80; }, errc::unsupported, "queries.extent[3]", 80},
            {[](params& p) { p.base.scale = 0; }, errc::out_of_range, "scale", 0},
            {[](params& p) { p.base.tail_step = 0; }, errc::out_of_range, "tail_step", 0},
            {[](params& p) { p.base.mask = full{}; }, errc::unsupported, "base.mask", 1},
            {[](params& p) { p.base.range = row_range::without_tail; }, errc::unsupported, "base.range", 1},
            {[](params& p) { p.base.range = row_range::anchors; }, errc::out_of_range, "range", 3},
            {[](params& p) { p.base.rotation.theta = 1e4f; }, errc::unsupported, "base.rotation", 1},
            {[](params& p) { p.base.sink_logits = a_logit; }, errc::unsupported, "base.sink_logits", 1},
            {[](params& p) { p.options.gamma = 0; }, errc::out_of_range, "options.gamma", 0},
            {[](params& p) { p.options.gamma = (1 << 20) + 1; }, errc::out_of_range, "options.gamma", (1 << 20) + 1},
            {[](params& p) { p.options.dense_tail = -1; }, errc::out_of_range, "options.dense_tail", -1},
            {[](params& p) { p.options.form = static_cast<delta_form>(4); }, errc::out_of_range, "options.form", 4},
        },
        [](params const& p) { return check(p); });
}

TEST_CASE("delta: a failed call writes nothing", "[op]") {
    testing::attend_input<bf16> input({.queries = {20}, .keys = {20}});
    auto const before = input.output();
    CHECK_FALSE(reference::delta(delta_of(input.params(), {.gamma = 0})).ok());
    auto const after = input.output();
    for (std::size_t i = 0; i < before.size(); ++i) CHECK(after[i] != after[i]);
}

TEST_CASE("plan delta: results of the anchors lie side by side, the passes share the rest", "[op]") {
    for (auto const form :
         {delta_form::complement, delta_form::difference, delta_form::mass_preserving, delta_form::recompute})
        for (std::int32_t const gamma : {1, 48, 64}) {
            params p = geometry(5000, 8, 2, 128, 3);
            p.options = {.gamma = gamma, .form = form};
            delta_plan const made = delta_plan_of(p, device_info{});
            REQUIRE(made);
            std::size_t const anchors = static_cast<std::size_t>(most_anchors(5000, gamma)) * 3 * 8;
            std::size_t const others = anchors * static_cast<std::size_t>(made.other.schedule.splits);
            CHECK(made.other_output + others * 128 * 4 <= made.other_lse);
            CHECK(made.other_lse + others * 4 <= made.seen_output);
            CHECK((made.seen_lse > made.seen_output) == (form != delta_form::recompute));
            if (form != delta_form::recompute) {
                std::size_t const seen = anchors * static_cast<std::size_t>(made.seen.schedule.splits);
                CHECK(made.seen_output + seen * 128 * 4 <= made.seen_lse);
                CHECK(made.seen_lse + seen * 4 <= made.scratch);
            }
            for (auto const* const part : {&made.sparse, &made.tail, &made.other, &made.seen})
                CHECK(made.scratch + part->workspace_bytes <= made.workspace_bytes);
            CHECK(made.other.schedule.attended == (form == delta_form::complement || form == delta_form::mass_preserving
                                                       ? attended_keys::omitted
                                                       : attended_keys::seen));
        }
}

TEST_CASE("plan delta: the workspace of a million tokens", "[op]") {
    params const p = geometry(1 << 20, 32, 8, 128);
    delta_plan const made = delta_plan_of(p, device_info{});
    REQUIRE(made);
    CHECK(made.other.schedule.splits == 1);
    std::size_t const anchors = 16385 * 32;  // the page's formula, but for alignment
    CHECK(made.workspace_bytes >= 2 * anchors * (128 + 1) * 4);
    CHECK(made.workspace_bytes <= 2 * anchors * (128 + 1) * 4 + 4096);
    CHECK(made.other.schedule.tile_tokens == 32);
    CHECK(made.other.schedule.tile_heads == 4);
}

TEST_CASE("plan delta: another form, gamma or tail is another plan", "[op]") {
    params const p = geometry(5000, 8, 2, 128);
    delta_plan const made = delta_plan_of(p, device_info{});
    auto const differs = [&](auto const& change) {
        params q = p;
        change(q.options);
        return !delta_plan_of(q, device_info{}).same_layout(made);
    };
    CHECK(differs([](delta_options& o) { o.gamma = 63; }));
    CHECK(differs([](delta_options& o) { o.form = delta_form::difference; }));
    CHECK(differs([](delta_options& o) { o.form = delta_form::recompute; }));
    CHECK(differs([](delta_options& o) { o.dense_tail = 300; }));
    CHECK_FALSE(differs([](delta_options&) {}));
}
