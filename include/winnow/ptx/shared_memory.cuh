// Shared memory by its 32-bit address.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Shared-memory address as the 32-bit number PTX wants.
WINNOW_DEVICE std::uint32_t shared_address(void const* pointer) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// The same, in a register from here on. The compiler works an address out again wherever it is used, loops included, and
/// on Hopper asks for the block's place in its cluster each time.
WINNOW_DEVICE std::uint32_t pinned_address(void const* pointer) {
    std::uint32_t address = shared_address(pointer);
    asm volatile("" : "+r"(address));
    return address;
}

/// 16 bytes of shared memory.
WINNOW_DEVICE uint4 load_shared(std::uint32_t address) {
    uint4 r;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "r"(address)
                 : "memory");
    return r;
}

/// Writes 16 bytes of shared memory.
WINNOW_DEVICE void store_shared(std::uint32_t address, uint4 x) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
}

/// Adds 1 to a counter in shared memory and returns what it was.
WINNOW_DEVICE std::int32_t next_shared(std::uint32_t address) {
    std::int32_t before;
    asm volatile("atom.shared.add.u32 %0, [%1], 1;" : "=r"(before) : "r"(address) : "memory");
    return before;
}

/// Adds 1 to a counter in shared memory. Lanes with the same address are one addition.
WINNOW_DEVICE void count_shared(std::uint32_t address) {
    asm volatile("red.shared.add.u32 [%0], 1;" ::"r"(address) : "memory");
}

}  // namespace winnow::ptx
