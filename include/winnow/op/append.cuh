// Launches the append of new rows to a cache.
#pragma once

#include <cuda_runtime.h>

#include "winnow/kernel/append.cuh"
#include "winnow/op/append.hpp"
#include "winnow/op/launch_kernel.cuh"

namespace winnow {

/// One kernel. Deterministic where slots differ, allocates nothing, may be captured in a graph; slots and positions may
/// change between replays. The workspace may be empty.
template <class T>
status launch(append_params<T> const& p, append_plan const& plan, workspace, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    auto const arguments = append_arguments_of(p);
    dim3 const grid(static_cast<unsigned>(arguments.blocks()));
    return launch_kernel(append_tensors<T>, grid, append_threads, 0, stream, arguments);
}

/// The same into an fp8 cache.
template <class T>
status launch(append_params<T, fp8_e4m3> const& p, append_plan const& plan, workspace, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    auto const arguments = append_arguments_of(p);
    dim3 const grid(static_cast<unsigned>(arguments.blocks()));
    return launch_kernel(append_tensors<T, fp8_e4m3>, grid, append_threads, 0, stream, arguments);
}

}  // namespace winnow
