// Prefetch into L2 (sm_80; sm_90a in one instruction): bytes that later loads are likely to want. Changes no result.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Brings `bytes` bytes of global memory into L2; a multiple of 16, as is the address.
WINNOW_DEVICE void prefetch_to_l2(void const* global, std::uint32_t bytes) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
#else
    constexpr std::uint32_t sector_pair = 64;
    for (std::uint32_t i = 0; i < bytes; i += sector_pair)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<char const*>(global) + i) : "memory");
#endif
}

/// Brings the line of an address into L2.
WINNOW_DEVICE void prefetch_line_to_l2(void const* global) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(global) : "memory");
}

}  // namespace winnow::ptx
