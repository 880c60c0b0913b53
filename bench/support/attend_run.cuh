// Runs attention on a problem: workspace, one launch, and the dense time that sparse benchmarks are set beside.
#pragma once

#include <cstddef>
#include <map>
#include <tuple>
#include <vector>

#include "support/machine.cuh"
#include "support/problem.cuh"
#include "support/replay.cuh"
#include "winnow/op/attend.cuh"

namespace winnow::bench {

/// A planned call with its workspace.
template <class T, class KV = T>
class attend_run {
public:
    explicit attend_run(attend_params<T, KV> const& p)
        : params(p), plan_(plan(p, this_machine().info)), scratch_(plan_.workspace_bytes) {
        require(plan_.why);
    }
    status launch(cudaStream_t stream) const {
        return winnow::launch(params, plan_, {scratch_.data(), scratch_.bytes()}, stream);
    }
    /// One launch, waited for.
    void once() const {
        cudaStream_t const stream = this_machine().stream;
        require(launch(stream));
        require(cudaStreamSynchronize(stream), "attend");
    }

    attend_params<T, KV> const params;

private:
    attend_plan plan_;
    device_array<char> scratch_;
};

/// Milliseconds of dense attention over the problem's tensors, which overwrites its output: median of three after a
/// warm-up, measured once per shape.
template <class T>
double dense_ms(problem_of<T> const& problem) {
    problem_shape const& s = problem.shape;
    static std::map<std::tuple<int, int, int, int, int, int, int, int>, double> known;
    double& ms = known[{s.batch, s.queries, s.keys, s.heads, s.kv_heads, s.head_dim, s.page_size, s.other_keys}];
    if (ms > 0) return ms;
    attend_run const dense(problem.dense());
    dense.once();
    captured const graph([&](cudaStream_t stream) { return dense.launch(stream); }, this_machine().stream);
    std::vector<double> seconds;
    for (int i = 0; i < 3; ++i) seconds.push_back(seconds_of(graph));
    return ms = 1e3 * median(seconds);
}

}  // namespace winnow::bench
