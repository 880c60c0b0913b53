// A call that is ready to be launched, with its workspace, and the dense time that sparse benchmarks are set beside.
#pragma once

#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "support/machine.cuh"
#include "support/problem.cuh"
#include "support/replay.cuh"
#include "winnow/op/sparse.cuh"

namespace winnow::bench {

/// A call with its plan and workspace: attend, prune, delta or one of the two that are made of them.
template <class Params>
struct planned {
    planned() = default;
    explicit planned(Params const& p) : params(p), made(plan(p, this_machine().info)), scratch(made.workspace_bytes) {
        require(made.why);
    }
    workspace memory() const { return {scratch.data(), scratch.bytes()}; }
    status launch(cudaStream_t stream) const { return winnow::launch(params, made, memory(), stream); }
    /// One launch, waited for.
    void once() const {
        cudaStream_t const stream = this_machine().stream;
        require(launch(stream));
        require(cudaStreamSynchronize(stream), "launch");
    }

    Params params;
    decltype(plan(std::declval<Params const&>(), device_info{})) made;
    device_array<char> scratch;
};

/// A call of dense attention as one of sparse_prefill.
inline sparse_prefill_params<bf16> sparse_prefill_of(attend_params<bf16> const& dense, prune_method const& method) {
    return {.queries = dense.queries,
            .keys = dense.keys,
            .values = dense.values,
            .kv = dense.kv,
            .method = method,
            .output = dense.output,
            .scale = dense.scale};
}

/// Milliseconds of dense attention over the problem's tensors, which overwrites its output: median of three after a
/// warm-up, measured once per shape.
template <class T>
double dense_ms(problem_of<T> const& problem) {
    problem_shape const& s = problem.shape;
    static std::map<std::tuple<int, int, int, int, int, int, int, int>, double> known;
    double& ms = known[{s.batch, s.queries, s.keys, s.heads, s.kv_heads, s.head_dim, s.page_size, s.other_keys}];
    if (ms > 0) return ms;
    planned const dense(problem.dense());
    dense.once();
    captured const graph([&](cudaStream_t stream) { return dense.launch(stream); }, this_machine().stream);
    std::vector<double> seconds;
    for (int i = 0; i < 3; ++i) seconds.push_back(seconds_of(graph));
    return ms = 1e3 * median(seconds);
}

}  // namespace winnow::bench
