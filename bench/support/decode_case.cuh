// Decode steps with their stage caches: tensors, lists, steps, plans; checked once, then set to any refresh state.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/check.cuh"
#include "support/planned.cuh"
#include "support/problem.cuh"
#include "winnow/op/sparse.cuh"

namespace winnow::bench {

/// Intervals with which step 1 finds the first `cached` stages fresh and all others due.
inline refresh_intervals intervals_with_cached(prune_method const& method, std::int32_t cached) {
    refresh_intervals r = refresh_default;
    for (std::int32_t i = 0; i < method.stage_count; ++i) r.steps[i] = i < cached ? refresh_default.steps[0] : 1;
    return r;
}

/// Layers that sparse decode is timed over, which is how an engine runs it. Each layer has tensors, lists, steps and a
/// workspace of its own. At 128k, 16 layers take 8.6 GB and read at least 218 MB, which is more than any cache holds.
inline std::int32_t decode_layers(std::int32_t batch, std::int32_t keys) {
    // Within 60 GB: 12 layers of 1M keys take 51.5 GB, and read at least 164 MB.
    std::int64_t const layer = std::int64_t{batch} * keys * 4096;  // bytes: two tensors of 8 heads of 128 channels
    return static_cast<std::int32_t>(smaller<std::int64_t>(16, (std::int64_t{48} << 30) / layer));
}

/// A model's decode step: one sparse_decode a layer. The layers differ in nothing but what their tensors hold.
struct decode_case {
    /// One layer, in memory of its own.
    struct layer {
        layer(problem_shape const& s, prune_method const& method)
            : tensors(s), lists(stage_cache_entries(method, s.heads, s.kv_heads, s.batch)) {}

        problem tensors;
        device_array<std::int32_t> lists;
        planned<sparse_decode_params<bf16>> run;
    };

    decode_case(problem_shape const& s, prune_method const& method, refresh_intervals const& intervals,
                rope const& rotation = {}, scan_style scan = scan_style::relative, std::int32_t layer_count = 1)
        : step(static_cast<std::size_t>(s.batch) * static_cast<std::size_t>(layer_count)),
          step_values(std::vector<std::int32_t>(step.size(), 1)) {
        layers.reserve(static_cast<std::size_t>(layer_count));
        for (std::int32_t i = 0; i < layer_count; ++i) {
            layer& l = layers.emplace_back(s, method);
            auto const p = l.tensors.dense();
            sparse_decode_params<bf16> params;
            params.queries = p.queries, params.keys = p.keys, params.values = p.values, params.kv = p.kv;
            params.output = p.output, params.scale = p.scale, params.method = method;
            params.rotation = rotation, params.scan = scan;
            params.cache.step = step.data() + std::int64_t{i} * s.batch, params.cache.lists = l.lists.data();
            params.cache.slots = s.batch, params.cache.intervals = intervals;
            l.run = planned(params);
        }
    }

    layer const& first() const { return layers.front(); }
    std::int32_t count() const { return static_cast<std::int32_t>(layers.size()); }
    /// Calls `run` for one layer after the other until a status is not ok.
    template <class Run>
    status each(Run const& run) const {
        for (layer const& l : layers)
            if (status const s = run(l); !s) return s;
        return {};
    }
    status launch(cudaStream_t stream) const {
        return each([&](layer const& l) { return l.run.launch(stream); });
    }

    /// Queues step `value`, 0 or 1, for all requests of all layers.
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
    /// Random normal inputs, others in each layer.
    void fill_inputs() {
        for (std::size_t i = 0; i < layers.size(); ++i) layers[i].tensors.fill_inputs(draw::normal, i);
    }
    /// Throws unless the last request's output is the reference's, on integer inputs, on which both choose the same
    /// lists. All layers get the same inputs here, and must give the first one's bits. Leaves random normal inputs
    /// behind.
    void check() {
        for (layer& l : layers) l.tensors.fill_inputs(draw::integers);
        refresh_all();
        check_last();
        auto const output = first().tensors.output.download();
        for (std::size_t i = 1; i < layers.size(); ++i) {
            auto const found = layers[i].tensors.output.download();
            if (!std::equal(output.begin(), output.end(), found.begin(),
                            [](bf16 a, bf16 b) { return a.bits == b.bits; }))
                throw std::runtime_error("wrong output, layer " + std::to_string(i));
        }
        fill_inputs();
    }
    /// The check of the first layer, after a step in which every stage ran on integer inputs.
    void check_last() const {
        problem const& tensors = first().tensors;
        problem_shape const& s = tensors.shape;
        sparse_decode_params<bf16> const& params = first().run.params;
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
        prune_method const& m = first().run.params.method;
        return smaller(first().tensors.shape.keys, m.window.sinks + m.window.recent + m.budget());
    }

    device_array<std::int32_t> step, step_values;  ///< [layer, request]
    std::vector<layer> layers;
};

}  // namespace winnow::bench
