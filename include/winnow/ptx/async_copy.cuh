// cp.async (sm_80): 16-byte copies from global to shared memory that bypass registers, in groups.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/shared_memory.cuh"

namespace winnow::ptx {

/// Copies 16 bytes, or writes 16 zero bytes and reads nothing when `valid` is false. Both addresses 16-byte aligned.
WINNOW_DEVICE void copy_async_16(std::uint32_t shared, void const* global, bool valid) {
    int const bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes)
                 : "memory");
}

/// The same by way of L1, where other warps find what they copy at about the same time.
WINNOW_DEVICE void copy_async_16_cached(std::uint32_t shared, void const* global, bool valid) {
    int const bytes = valid ? 16 : 0;
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes)
                 : "memory");
}

/// Copies 16 bytes. Both addresses 16-byte aligned.
WINNOW_DEVICE void copy_async_16(std::uint32_t shared, void const* global) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

/// Closes the group of copies issued so far by this thread.
WINNOW_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `Pending` of this thread's newest groups are still in flight.
template <int Pending>
WINNOW_DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// Waits for all of this thread's copies, whether in a closed group or not.
WINNOW_DEVICE void copy_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

}  // namespace winnow::ptx
