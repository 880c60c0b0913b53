// atom with memory order: how blocks count one another without fences beside the count.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Adds 1 and returns the count before. Whoever counts later sees what this thread, and threads it met at a barrier, wrote
/// before; the same holds for this thread and those that counted earlier.
WINNOW_DEVICE std::int32_t count_arrival(std::int32_t* counter) {
    std::int32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}

}  // namespace winnow::ptx
