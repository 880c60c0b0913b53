// Barriers: mbarrier objects in shared memory that count arrivals and bytes (sm_90), named barriers, and proxy fences.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/async_copy.cuh"

namespace winnow::ptx {

/// A phase ends when `arrivals` threads have arrived and all announced bytes have landed. One thread calls.
WINNOW_DEVICE void barrier_init(std::uint64_t* barrier, std::uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

/// Makes initialised barriers known to bulk copies; by the initialising thread, before the block synchronises.
WINNOW_DEVICE void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

WINNOW_DEVICE void barrier_arrive(std::uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

/// Arrives and announces `bytes` of bulk copies that complete on this barrier. Before the copies are issued.
WINNOW_DEVICE void barrier_arrive_expect(std::uint64_t* barrier, std::uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

/// Waits until the phase of the given parity has ended; parity 1 of a fresh barrier has.
WINNOW_DEVICE void barrier_wait(std::uint64_t* barrier, std::uint32_t parity) {
    std::uint32_t const address = shared_address(barrier);
    std::uint32_t done = 0;
    while (done == 0)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(address), "r"(parity)
                     : "memory");
}

/// Waits for `threads` threads (whole warps) at named barrier `id`, 1 to 15; 0 is __syncthreads.
WINNOW_DEVICE void named_barrier_wait(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Makes shared memory written by ordinary stores and cp.async visible to wgmma and bulk copies.
WINNOW_DEVICE void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace winnow::ptx
