// Delta correction against the oracle: random samples of everything attention supports, every gamma and form, both paths.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/delta_input.hpp"
#include "support/gpu_attend.hpp"
#include "winnow/reference/delta.hpp"

using namespace winnow;
using testing::attend_input;
using testing::device_copy;

namespace {

constexpr delta_form every_form[] = {delta_form::complement, delta_form::difference, delta_form::mass_preserving,
                                     delta_form::recompute};

template <class T>
delta_params<T> delta_of(attend_params<T> const& base, delta_options const& options) {
    return {.base = base, .options = options};
}

// What a launch leaves in the input's memory; only output and lse may change.
template <class T, class Set>
std::vector<char> run(attend_input<T>& in, Set const& set, delta_options const& options,
                      device_info const& device = testing::current_device()) {
    device_copy<T> memory(in);
    auto base = memory.params();
    set(base);
    testing::run_on_device(delta_of(base, options), device);
    auto bytes = memory.download();
    CHECK(memory.stray_write(bytes, !base.lse.empty()) == -1);
    return bytes;
}

// Against the oracle, on the device's own path and on the portable one.
template <class T, class Set>
void check_delta(attend_input<T>& in, Set const& set, delta_options const& options) {
    auto base = in.params();
    set(base);
    auto const p = delta_of(base, options);
    testing::attend_expectation e;
    REQUIRE(reference::delta(p, &e.exact, testing::all_threads()).ok());
    REQUIRE(reference::delta_rounded(p, e.rounded, testing::all_threads()).ok());
    auto const check = [&](device_info const& device) {
        INFO("gamma " << options.gamma << ", tail " << options.dense_tail << ", form " << static_cast<int>(options.form)
                      << ", last " << options.last_chunk << ", instructions " << device.instructions << ", blocks "
                      << device.multiprocessors);
        auto bytes = run(in, set, options, device);
        testing::check_close<T>(in.output(bytes.data()), in.lse(bytes.data()), e);
    };
    check(testing::current_device());
    if (testing::runs_tiles_in_turn()) check(testing::single_block_device());
    if (testing::current_device().instructions != 80) check(testing::portable_device());
}

template <class T>
void check_samples(std::int32_t head_dim, std::int32_t count, bool small = false) {
    for (std::int32_t i = 0; i < count; ++i) {
        auto s = testing::draw_sample(head_dim, small ? 17 : 11, i, small);
        s.mask.kind = mask_kind::causal, s.range = row_range::all, s.tail = 0, s.shape.sink_logits = false;
        testing::random_source r(static_cast<std::uint64_t>(head_dim * 1000 + i));
        std::int32_t const gammas[] = {1, 3, 16, 48, 64, 100, 256};
        delta_options const options{.gamma = gammas[r.below(7)],
                                    .dense_tail = r.below(3) == 0 ? r.below(200) : r.below(20),
                                    .form = every_form[i % 4],
                                    .last_chunk = r.below(4) != 0};
        // The mass that a list omits is a difference of masses, known to 1e-6 of the larger. Where scores spread widely, as
        // scales of 4 make them, some rows see less than that, and nothing is left to compare.
        if (options.form == delta_form::mass_preserving && s.listed) s.scale_factor = 1;
        INFO("sample " << i << ", " << testing::describe(s));
        auto in = s.input<T>();
        check_delta(
            in, [&](attend_params<T>& p) { s.set(p); }, options);
    }
}

}  // namespace

TEST_CASE("delta bf16: samples, head_dim 64", "[gpu]") { check_samples<bf16>(64, 60); }
TEST_CASE("delta bf16: samples, head_dim 128", "[gpu]") { check_samples<bf16>(128, 60); }
TEST_CASE("delta bf16: samples, head_dim 256", "[gpu]") { check_samples<bf16>(256, 40); }
TEST_CASE("delta fp16: samples", "[gpu]") {
    for (std::int32_t const head_dim : {64, 128, 256}) check_samples<fp16>(head_dim, 20);
}
TEST_CASE("delta: small samples", "[gpu][small]") {
    for (std::int32_t const head_dim : {64, 128, 256}) check_samples<bf16>(head_dim, 8, true);
}

TEST_CASE("delta: short chunks, whose splits are merged by a kernel of its own and corrected there", "[gpu][small]") {
    for (auto const form : every_form) {
        attend_input<bf16> in({.queries = {12, 9}, .keys = {700, 412}, .heads = 2, .kv_heads = 2});
        auto const set = [](attend_params<bf16>& p) { p.window = {.sinks = 8, .recent = 300}; };
        delta_options const options{.gamma = 4, .dense_tail = 0, .form = form, .last_chunk = false};
        auto base = in.params();
        set(base);
        attend_plan const sparse = delta_plan_of(delta_of(base, options), testing::current_device()).sparse;
        REQUIRE(sparse.schedule.rows == attend_rows::decode);
        REQUIRE(sparse.schedule.splits > 1);
        check_delta(in, set, options);
    }
}

TEST_CASE("delta: the worked example, every form", "[gpu][small]") {
    auto in =
        testing::weighted_input<bf16>({2, 0, 1, 0, 0, 1, 0, 2, 0, 0, 1, 0}, {0, 12, -6, 3, 9, -3, 6, -9, 3, 0, 6, -12});
    auto const set = [](attend_params<bf16>& p) { p.scale = testing::ln_two, p.window = {.sinks = 1, .recent = 2}; };
    std::vector<double> const added = {0,        12.0 / 5, 0,          -9.0 / 7, 4.0 / 3,   -5.0 / 21,
                                       -2.0 / 3, -4,       -21.0 / 17, -7.0 / 6, -9.0 / 20, -1};
    auto recompute = added, mass = added;
    recompute[5] = 3.0 / 7, recompute[6] = 0, recompute[7] = -10.0 / 3;
    mass[5] = 3.0 / 10, mass[6] = 0, mass[7] = -5.0 / 2;
    for (auto const form : every_form) {
        auto const& expected = form == delta_form::recompute         ? recompute
                               : form == delta_form::mass_preserving ? mass
                                                                     : added;
        auto bytes = run(in, set, {.gamma = 4, .dense_tail = 4, .form = form});
        auto const found = in.output(bytes.data());
        for (std::size_t i = 0; i < expected.size(); ++i) {
            INFO("form " << static_cast<int>(form) << ", row " << i << ": " << found[i * 64]);
            // Probabilities are rounded to bf16 and weights are whole numbers, so sums are exact.
            CHECK(std::fabs(found[i * 64] - expected[i]) <= std::fabs(expected[i]) / 256 + 1e-5);
        }
    }
}

TEST_CASE("delta: nothing is rounded to 16 bits before the one store", "[gpu][small]") {
    auto in = testing::cancelling_input<bf16>();
    double const exact = testing::cancelling_result();
    for (auto const form : {delta_form::complement, delta_form::difference}) {
        auto bytes =
            run(in, [](attend_params<bf16>& p) { p.scale = testing::ln_two, p.window = {.sinks = 0, .recent = 2}; },
                {.gamma = 4, .dense_tail = 0, .form = form, .last_chunk = false});
        double const found = in.output(bytes.data())[5 * 64];
        INFO(found << ", exact " << exact);  // by steps of bf16: 0.0234
        CHECK(std::fabs(found - exact) < exact / 100);
    }
}

TEST_CASE("delta: every gamma, with windows and with lists, for groups of 1, 4 and 8 heads", "[gpu]") {
    for (std::int32_t const gamma : {1, 3, 16, 48, 64, 100, 256})
        for (std::int32_t const group : {1, 4, 8}) {
            attend_input<bf16> in({.queries = {330, 330},
                                   .keys = {330, 577},
                                   .heads = 2 * group,
                                   .kv_heads = 2,
                                   .head_dim = 128,
                                   .layout = kv_layout::block_table,
                                   .seed = static_cast<std::uint64_t>(gamma)});
            attend_input<bf16> listed(in.shape());
            listed.add_selection(16, 64, group == 8 ? sharing::per_head : sharing::per_kv_group, 20, 0.3);
            INFO("group of " << group);
            for (auto const form : every_form) {
                delta_options const options{.gamma = gamma, .dense_tail = 40, .form = form};
                check_delta(
                    in, [](attend_params<bf16>& p) { p.window = {.sinks = 21, .recent = 70}; }, options);
                check_delta(
                    listed, [](attend_params<bf16>& p) { p.window = {.sinks = 5, .recent = 33}; }, options);
            }
        }
}

TEST_CASE("delta: many tiles of anchors, and key splits", "[gpu]") {
    for (std::int32_t const heads : {2, 8}) {
        attend_input<bf16> in({.queries = {1500}, .keys = {4000}, .heads = heads, .kv_heads = 1, .head_dim = 128});
        for (auto const form : every_form)
            check_delta(in, [](attend_params<bf16>& p) { p.window = {.sinks = 64, .recent = 256}; },
                        {.gamma = 16, .dense_tail = 100, .form = form});
    }
}

TEST_CASE("delta: chunks give the rows of the whole prompt", "[gpu]") {
    std::int32_t const keys = 640, at = 256;
    attend_input<bf16> in({.queries = {keys}, .keys = {keys}, .heads = 4, .kv_heads = 1, .head_dim = 64});
    auto const set = [](attend_params<bf16>& p) { p.window = {.sinks = 16, .recent = 64}; };
    delta_options options{.gamma = 32, .dense_tail = 100};
    testing::attend_expectation e;
    auto base = in.params();
    set(base);
    REQUIRE(reference::delta(delta_of(base, options), &e.exact, testing::all_threads()).ok());
    REQUIRE(reference::delta_rounded(delta_of(base, options), e.rounded, testing::all_threads()).ok());
    device_copy<bf16> memory(in);
    for (bool const last : {false, true}) {
        auto p = memory.params();
        set(p);
        std::int32_t const first = last ? at : 0, rows = last ? keys - at : at;
        p.queries.data += first * p.queries.stride[1], p.output.data += first * p.output.stride[1];
        p.lse.values.data += first * p.lse.values.stride[1];
        p.queries.extent[1] = p.output.extent[1] = p.lse.values.extent[1] = rows;
        p.mask = causal{first};
        options.last_chunk = last;
        testing::run_on_device(delta_of(p, options));
    }
    auto bytes = memory.download();
    testing::check_close<bf16>(in.output(bytes.data()), in.lse(bytes.data()), e);
}

TEST_CASE("delta: lengths 0 and 1, no rows, no requests", "[gpu][small]") {
    attend_input<bf16> in({.queries = {0, 1, 70, 3}, .keys = {5, 1, 90, 0}, .heads = 2, .ragged_queries = true});
    for (auto const form : every_form)
        check_delta(in, [](attend_params<bf16>& p) { p.window = {.sinks = 2, .recent = 9}; },
                    {.gamma = 8, .dense_tail = 4, .form = form});
    auto const untouched = [&](attend_input<bf16>& input, auto const& set) {
        auto bytes = run(input, set, {});
        auto const found = input.output(bytes.data());
        CHECK(std::all_of(found.begin(), found.end(), [](double x) { return std::isnan(x); }));
    };
    attend_input<bf16> rows({.queries = {4}, .keys = {40}});
    untouched(rows,
              [](attend_params<bf16>& p) { p.queries.extent[1] = p.output.extent[1] = p.lse.values.extent[1] = 0; });
    untouched(rows, [](attend_params<bf16>& p) {
        p.queries.extent[0] = p.output.extent[0] = p.lse.values.extent[0] = p.keys.extent[0] = p.values.extent[0] = 0;
    });
}

TEST_CASE("delta: without an lse the output is the same", "[gpu][small]") {
    attend_input<bf16> in({.queries = {100}, .keys = {100}, .heads = 4, .kv_heads = 1});
    auto const set = [](attend_params<bf16>& p) { p.window = {.sinks = 4, .recent = 16}; };
    auto with = run(in, set, {.gamma = 16, .dense_tail = 10});
    auto without = run(in, [&](attend_params<bf16>& p) { set(p), p.lse = {}; }, {.gamma = 16, .dense_tail = 10});
    CHECK((in.output(with.data()) == in.output(without.data())));
}

TEST_CASE("delta: a request alone and in a batch, and run again, gives the same bits", "[gpu]") {
    for (bool const ragged : {false, true}) {
        attend_input<bf16> in(
            {.queries = ragged ? std::vector<std::int32_t>{200, 0, 90} : std::vector<std::int32_t>{200, 200, 200},
             .keys = {300, 250, 260},
             .heads = 8,
             .kv_heads = 2,
             .layout = kv_layout::page_list,
             .ragged_queries = ragged});
        in.add_selection(16, 32, sharing::per_kv_group, 12, 0.4);
        auto const set = [](attend_params<bf16>& p) { p.window = {.sinks = 8, .recent = 40}; };
        delta_options const options{.gamma = 24, .dense_tail = 20};
        auto const together = run(in, set, options);
        CHECK((run(in, set, options) == together));
        device_copy<bf16> memory(in);
        for (std::int32_t b = 0; b < 3; ++b) {
            auto p = memory.params();
            set(p);
            testing::run_on_device(delta_of(testing::only_request(p, b), options));
        }
        CHECK((memory.download() == together));
    }
}

TEST_CASE("delta: one captured graph serves other lengths", "[gpu][small]") {
    attend_input<bf16> in({.queries = {60, 60}, .keys = {90, 90}, .heads = 4, .kv_heads = 2});
    delta_options const options{.gamma = 16, .dense_tail = 10};
    auto const set = [](attend_params<bf16>& p) { p.window = {.sinks = 4, .recent = 12}, p.kv.max_length = 90; };
    device_copy<bf16> memory(in);
    auto base = memory.params();
    set(base);
    auto const p = delta_of(base, options);
    auto const made = plan(p, testing::current_device());
    REQUIRE(made.why.ok());
    testing::device_memory scratch(made.workspace_bytes);
    testing::captured_graph graph([&](cudaStream_t stream) {
        REQUIRE(testing::gpu_launch(p, made, {scratch.data(), made.workspace_bytes}, stream).ok());
    });
    CHECK(graph.kernels_and_others().second == 0);
    for (std::int32_t const length : {90, 61, 77}) {
        in.key_lengths()[1] = length;
        memory.refresh();
        graph.replay();
        auto bytes = memory.download();
        auto host = in.params();
        set(host);
        testing::attend_expectation e;
        REQUIRE(reference::delta(delta_of(host, options), &e.exact).ok());
        REQUIRE(reference::delta_rounded(delta_of(host, options), e.rounded).ok());
        INFO("length " << length);
        testing::check_close<bf16>(in.output(bytes.data()), in.lse(bytes.data()), e);
    }
}
