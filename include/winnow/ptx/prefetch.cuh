// Prefetch into L2 (sm_80): lines that later loads are likely to want. Changes no result.
#pragma once

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Brings the line of an address into L2.
WINNOW_DEVICE void prefetch_line_to_l2(void const* global) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(global) : "memory");
}

}  // namespace winnow::ptx
