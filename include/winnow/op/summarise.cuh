// Launches the summaries of keys.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "winnow/kernel/summarise.cuh"
#include "winnow/op/launch_kernel.cuh"
#include "winnow/op/summarise.hpp"

namespace winnow {

/// One kernel. Deterministic, allocates nothing, may be captured in a graph; lengths, page tables and `known` may change
/// between replays. The workspace may be empty.
template <class T>
status launch(summarise_params<T> const& p, summarise_plan const& plan, workspace, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    summarise_arguments<T> const a{p, p.shape(),
                                   fast_divider(static_cast<std::int32_t>(larger<std::int64_t>(p.keys.extent[1], 1)))};
    dim3 const grid(static_cast<unsigned>(new_chunks_of(p)), static_cast<unsigned>(p.batch));
    return launch_kernel(summarise_chunks<T>, grid, summarise_threads, 0, stream, a);
}

}  // namespace winnow
