// Benchmarks of delta correction: over a sliding window, with the window alone beside it, and over pruned lists.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "support/check.cuh"
#include "support/harness.cuh"
#include "support/planned.cuh"
#include "winnow/op/delta.cuh"
#include "winnow/op/sparse.cuh"

using namespace winnow;
using namespace winnow::bench;

namespace {

constexpr attention_window streaming{.sinks = 1024, .recent = 2048};

// One call over tensors of its own.
template <class Params>
struct call {
    explicit call(problem_shape const& s) : tensors(s) {}

    problem tensors;
    planned<Params> run;
};

// Keys that a row reads on average: the window's, those of the anchors, the tail's.
double window_keys(problem_shape const& s) {
    double sum = 0;
    for (std::int64_t row = 0; row < s.queries; ++row)
        sum += static_cast<double>(
            smaller<std::int64_t>(s.first_position() + row + 1, streaming.sinks + streaming.recent));
    return sum / s.queries;
}
double dense_row_keys(problem_shape const& s, delta_options const& o) {
    double const cut = larger(s.queries - o.dense_tail, 0);
    double const anchors = cut / o.gamma * (s.first_position() + cut / 2);
    return (anchors + (s.queries - cut) * static_cast<double>(s.keys)) / s.queries;
}

// Rows behind an anchor in the middle, and dense ones at the end.
void check_corrected(problem const& tensors, attend_params<bf16> const& p, delta_options const& o) {
    problem_shape const& s = tensors.shape;
    std::int32_t const anchor = round_down(s.queries / 2, o.gamma);
    check_rows(tensors, p, {0, anchor, s.keys > (1 << 18) ? 2 : 3}, s.kv_heads / 2, nullptr, 0, &o);
    attend_params<bf16> dense = p;
    dense.window = {}, dense.selection = {};
    check_rows(tensors, dense, {0, s.queries - 1, 1}, s.kv_heads - 1, nullptr, 0);
}

prepared over_window(problem_shape const& s, delta_form form, std::int32_t gamma) {
    auto const c = std::make_shared<call<delta_params<bf16>>>(s);
    c->tensors.fill_inputs(draw::normal);
    delta_params<bf16> p{.base = c->tensors.dense(), .options = {.gamma = gamma, .form = form}};
    p.base.window = streaming;
    c->run = planned(p);
    c->run.once();
    check_corrected(c->tensors, p.base, p.options);
    double const keys = window_keys(s) + dense_row_keys(s, p.options);
    return {[c](cudaStream_t stream) { return c->run.launch(stream); },
            {.flops = s.flops(keys * s.queries), .keys_read = keys, .dense_ms = dense_ms(c->tensors)}};
}

prepared window_alone(problem_shape const& s) {
    auto const c = std::make_shared<call<attend_params<bf16>>>(s);
    c->tensors.fill_inputs(draw::normal);
    auto p = c->tensors.dense();
    p.window = streaming;
    c->run = planned(p);
    c->run.once();
    check_output(c->tensors, p);
    double const keys = window_keys(s);
    return {[c](cudaStream_t stream) { return c->run.launch(stream); },
            {.flops = s.flops(keys * s.queries), .keys_read = keys, .dense_ms = dense_ms(c->tensors)}};
}

// gamma 0: the pruned prefill alone. What it computes is checked by bench_op_sparse; here, that its end is dense.
prepared over_lists(problem_shape const& s, prune_method const& method, std::int32_t gamma) {
    auto const c = std::make_shared<call<sparse_prefill_params<bf16>>>(s);
    c->tensors.fill_inputs(draw::normal);
    auto const dense = c->tensors.dense();
    auto p = sparse_prefill_of(dense, method);
    p.delta.gamma = gamma;
    c->run = planned(p);
    c->run.once();
    if (gamma > 0) {
        check_rows(c->tensors, dense, {0, round_down(s.queries / 2, gamma), 1}, 0, nullptr, 0);  // an anchor
        check_rows(c->tensors, dense, {0, s.queries - 1, 1}, s.kv_heads - 1, nullptr, 0);
    }
    double const lists = method.window.sinks + method.window.recent + method.budget();
    return {[c](cudaStream_t stream) { return c->run.launch(stream); },
            {.keys_read = lists + (gamma > 0 ? dense_row_keys(s, p.delta) : 0), .dense_ms = dense_ms(c->tensors)}};
}

void add_all() {
    constexpr std::int32_t k = 1 << 10, M = 1 << 20;
    auto const in_ms = benchmark::kMillisecond;
    std::pair<char const*, delta_form> const forms[] = {{"complement", delta_form::complement},
                                                        {"difference", delta_form::difference},
                                                        {"mass_preserving", delta_form::mass_preserving},
                                                        {"recompute", delta_form::recompute}};
    for (std::int32_t const tokens : {8 * k, 32 * k, 128 * k, M}) {
        problem_shape const s{.queries = tokens, .keys = tokens};
        std::string const start = tokens == 32 * k ? "quick/delta/" : "full/delta/";
        add(start + "window/" + size_name(tokens) + "/alone", in_ms, [=] { return window_alone(s); });
        for (auto const& [name, form] : forms)
            add(start + "window/" + size_name(tokens) + "/gamma:64/" + name, in_ms,
                [=, form = form] { return over_window(s, form, 64); });
        if (tokens == 128 * k)
            for (std::int32_t const gamma : {16, 32, 128, 256})
                add(start + "window/" + size_name(tokens) + "/gamma:" + std::to_string(gamma) + "/complement", in_ms,
                    [=] { return over_window(s, delta_form::complement, gamma); });
    }
    for (auto const share : {sharing::per_batch, sharing::per_kv_group})
        for (std::int32_t const gamma : {0, 64}) {
            prune_method method = hip_3k;
            method.sharing = share;
            problem_shape const s{.queries = 128 * k, .keys = 128 * k};
            add(std::string("full/delta/hip_3k/128k/") +
                    (share == sharing::per_batch ? "one_list" : "list_per_kv_head") +
                    (gamma == 0 ? "/alone" : "/gamma:64/complement"),
                in_ms, [=] { return over_lists(s, method, gamma); });
        }
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
