// Registers: keeping the compiler from holding values in them, and moving them between warpgroups (sm_90a).
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Hides where a value came from, so that the compiler derives addresses anew in every step of a loop instead of
/// holding two dozen of them in registers that the accumulators need.
WINNOW_DEVICE std::uint32_t opaque(std::uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}

/// Gives registers back down to `Count` a thread, a multiple of 8. All warps of a warpgroup call.
template <int Count>
WINNOW_DEVICE void release_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

/// Takes registers up to `Count` a thread; waits until they are free.
template <int Count>
WINNOW_DEVICE void acquire_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

}  // namespace winnow::ptx
