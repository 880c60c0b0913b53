// griddepcontrol (here: sm_90a): kernels of a stream that overlap. A kernel launched to overlap starts before the one in front
// of it has ended, and may touch nothing that kernel writes or reads until it has waited.
#pragma once

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Returns when all earlier kernels of the stream have ended and their writes are visible. Every block of a kernel that
/// overlaps calls it, or the next one could pass both. Nothing in other code, which must not be launched so.
WINNOW_DEVICE void wait_for_earlier_grids() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel take the places that this one leaves, once all blocks of this one have said so or ended.
WINNOW_DEVICE void let_later_grid_start() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("griddepcontrol.launch_dependents;" :::);
#endif
}

}  // namespace winnow::ptx
