// Counts blocks that are done (atom, sm_70 and newer): what a block wrote before it arrives is seen by who finds that all
// have arrived.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Adds 1 to `counter` and returns what it was. One thread calls it, behind a barrier of its block; others of the block may
/// read what earlier blocks wrote behind another barrier. One operation releases and acquires: two __threadfence around a
/// plain atomic cost a microsecond more.
WINNOW_DEVICE std::int32_t arrive(std::int32_t* counter) {
    std::int32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}

}  // namespace winnow::ptx
