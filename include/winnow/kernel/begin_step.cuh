// Begins a decode step: clears the counters in which blocks of the kernels behind it arrive.
//
// What the caller's earlier kernels have left is complete when this one starts, so those behind it, which overlap, may
// read it at once: they wait before they count or read what the step itself writes.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/grid_dependency.cuh"

namespace winnow {

/// Counters that a block clears.
inline constexpr int begin_step_threads = 256;

/// Counters to clear, two pieces of memory.
struct begin_arguments {
    std::int32_t* counters[2];
    std::int32_t count[2];
};

/// One thread for each counter.
template <int Threads>
__global__ void __launch_bounds__(Threads) begin_step(begin_arguments const __grid_constant__ a) {
    ptx::let_later_grid_start();
    ptx::wait_for_earlier_grids();
    std::int32_t const i = blockIdx.x * Threads + threadIdx.x, second = i - a.count[0];
    if (second < 0)
        a.counters[0][i] = 0;
    else if (second < a.count[1])
        a.counters[1][second] = 0;
}

}  // namespace winnow
