// Times of every scorer and budget: pruning alone, and with attention, for the last 32k rows of 128k tokens.
#include <cstdint>
#include <memory>
#include <string>

#include "frontier/choices.hpp"
#include "support/harness.cuh"
#include "support/planned.cuh"
#include "support/problem.cuh"
#include "winnow/op/sparse.cuh"
#include "winnow/op/summarise.cuh"

using namespace winnow;
using namespace winnow::bench;

namespace {

struct timed_case {
    timed_case(prune_method const& method, problem_shape const& s) : tensors(s) {
        tensors.fill_inputs(draw::normal);
        auto const a = tensors.dense();
        auto params = sparse_prefill_of(a, method);
        if (std::size_t const elements = summary_elements(method, s.kv_heads, s.head_dim, s.batch, s.keys);
            elements > 0) {
            summaries = device_array<bf16>(elements);
            summarise_params<bf16> sum;
            sum.keys = a.keys, sum.kv = a.kv, sum.batch = s.batch, sum.method = method;
            sum.summary = {summaries.data(), s.batch, s.keys, nullptr};
            require(winnow::launch(sum, plan(sum, this_machine().info), {}, this_machine().stream));
            params.summary = sum.summary;
        }
        run = planned(params);
    }
    status prune(cudaStream_t stream) const {
        sparse_plan const& made = run.made;
        workspace const memory = run.memory();
        block_selection_buffer const lists = packed_selection(region<std::int32_t>(memory, made.selection_blocks),
                                                              region<std::int32_t>(memory, made.selection_counts),
                                                              run.params.method, run.params.shape());
        return winnow::launch(prune_part(run.params, lists), made.prune,
                              {region<char>(memory, made.scratch), memory.bytes - made.scratch}, stream);
    }
    status both(cudaStream_t stream) const { return run.launch(stream); }

    problem tensors;
    device_array<bf16> summaries;
    planned<sparse_prefill_params<bf16>> run;
};

void add_all() {
    constexpr problem_shape shape{.queries = 1 << 15, .keys = 1 << 17};
    for (auto const& choice : frontier_choices)
        for (std::int32_t const budget : frontier_budgets)
            for (bool const alone : {true, false})
                add(std::string("full/frontier/") + choice.name + "/budget:" + std::to_string(budget) +
                        (alone ? "/prune" : "/prune_and_attend"),
                    benchmark::kMillisecond, [=]() -> prepared {
                        auto const c = std::make_shared<timed_case>(timed_method(choice, budget), shape);
                        if (alone) return {[c](cudaStream_t stream) { return c->prune(stream); }, {}};
                        return {[c](cudaStream_t stream) { return c->both(stream); }, {}};
                    });
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
