// Launches the merge of partial results.
#pragma once

#include <cuda_runtime.h>

#include "winnow/kernel/merge.cuh"
#include "winnow/op/launch_kernel.cuh"
#include "winnow/op/merge.hpp"

namespace winnow {

/// Deterministic, allocates nothing, may be captured in a graph. The workspace may be empty.
template <class T>
status launch(merge_params<T> const& p, merge_plan const& plan, workspace, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    std::int64_t const channels = p.outputs.extent[3];
    dim3 const grid(static_cast<unsigned>(p.output.extent[0]), static_cast<unsigned>(p.output.extent[1]));
    auto const run = [&](auto kernel) { return launch_kernel(kernel, grid, merge_warps * 32, 0, stream, p); };
    if (channels <= 128) return run(merge_rows<T, 128>);
    if (channels <= 256) return run(merge_rows<T, 256>);
    return run(merge_rows<T, 1024>);
}

}  // namespace winnow
