// A decode step with its stage cache: tensors, lists, steps, plan; checked once, then set to any refresh state.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/check.cuh"
#include "support/problem.cuh"
#include "winnow/op/sparse.cuh"

namespace winnow::bench {

/// Intervals with which step 1 finds the first `cached` stages fresh and all others due.
inline refresh_intervals intervals_with_cached(prune_method const& method, std::int32_t cached) {
    refresh_intervals r = refresh_default;
    for (std::int32_t i = 0; i < method.stage_count; ++i) r.steps[i] = i < cached ? refresh_default.steps[0] : 1;
    return r;
}

struct decode_case {
    decode_case(problem_shape const& s, prune_method const& method, refresh_intervals const& intervals,
                rope const& rotation = {}, scan_style scan = scan_style::relative)
        : tensors(s), step(static_cast<std::size_t>(s.batch)),
          step_values(std::vector<std::int32_t>(static_cast<std::size_t>(s.batch), 1)),
          lists(stage_cache_entries(method, s.heads, s.kv_heads, s.batch)) {
        auto const p = tensors.dense();
        params.queries = p.queries, params.keys = p.keys, params.values = p.values, params.kv = p.kv;
        params.output = p.output, params.scale = p.scale, params.method = method;
        params.rotation = rotation, params.scan = scan;
        params.cache.step = step.data(), params.cache.lists = lists.data();
        params.cache.slots = s.batch, params.cache.intervals = intervals;
        made = plan(params, this_machine().info);
        require(made.why);
        scratch = device_array<char>(made.workspace_bytes);
    }

    workspace memory() const { return {scratch.data(), scratch.bytes()}; }
    status launch(cudaStream_t stream) const { return winnow::launch(params, made, memory(), stream); }

    /// Queues step `value`, 0 or 1, for all requests.
    void set_step(std::int32_t value, cudaStream_t stream) const {
        if (value == 0)
            require(cudaMemsetAsync(step.data(), 0, step.bytes(), stream), "cudaMemsetAsync");
        else
            require(cudaMemcpyAsync(step.data(), step_values.data(), step.bytes(), cudaMemcpyDeviceToDevice, stream),
                    "cudaMemcpyAsync");
    }
    /// One step in which every stage runs.
    void refresh_all() const {
        cudaStream_t const stream = this_machine().stream;
        set_step(0, stream);
        require(launch(stream));
        require(cudaStreamSynchronize(stream), "sparse_decode");
    }
    /// Throws unless the last request's output is the reference's, on integer inputs, on which both choose the same
    /// lists. Leaves random normal inputs behind.
    void check() {
        tensors.fill_inputs(draw::integers);
        refresh_all();
        check_last();
        tensors.fill_inputs(draw::normal);
    }
    /// The check itself, after a step in which every stage ran on integer inputs.
    void check_last() const {
        problem_shape const& s = tensors.shape;
        auto p = tensors.dense();
        p.window = params.method.window;
        host_lists const l =
            reference_lists(tensors, p, params.method, s.batch - 1, 0, params.cache.intervals.steps[0]);
        check_rows(tensors, p, {s.batch - 1, 0, 1}, s.kv_heads - 1, &l, 0);
    }
    /// Lists of the inputs as they are, and step 1.
    void fill_lists() const {
        refresh_all();
        set_step(1, this_machine().stream);
        require(cudaStreamSynchronize(this_machine().stream), "set_step");
    }
    /// Keys that a row reads where every list is full.
    double keys_read() const {
        prune_method const& m = params.method;
        return smaller(tensors.shape.keys, m.window.sinks + m.window.recent + m.budget());
    }

    problem tensors;
    device_array<std::int32_t> step, step_values, lists;
    sparse_decode_params<bf16> params;
    sparse_plan made;
    device_array<char> scratch;
};

}  // namespace winnow::bench
