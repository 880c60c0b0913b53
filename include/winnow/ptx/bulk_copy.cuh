// TMA (sm_90): one thread copies a box of a tensor, or a run of bytes, to shared memory; completion counts bytes on an mbarrier.
#pragma once

#include <cuda.h>  // CUtensorMap; types only, nothing of libcuda is linked

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/async_copy.cuh"

namespace winnow::ptx {

/// Copies the box of `map` at the coordinates (fastest axis first) to `shared`. What lies outside the tensor arrives as
/// zeros and counts as bytes all the same. Boxes of 128-byte rows: `shared` 1024-byte aligned, or 128 for single rows.
WINNOW_DEVICE void copy_box(std::uint32_t shared, CUtensorMap const& map, std::int32_t x, std::int32_t y,
                            std::int32_t z, std::int32_t w, std::uint64_t* barrier) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
                 "%4, %5}], "
                 "[%6];" ::"r"(shared),
                 "l"(&map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(shared_address(barrier))
                 : "memory");
}

/// The same for a tensor of five axes.
WINNOW_DEVICE void copy_box(std::uint32_t shared, CUtensorMap const& map, std::int32_t x, std::int32_t y,
                            std::int32_t z, std::int32_t w, std::int32_t v, std::uint64_t* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5, "
        "%6}], [%7];" ::"r"(shared),
        "l"(&map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "r"(shared_address(barrier))
        : "memory");
}

/// Copies `bytes` bytes that lie one behind the other; a multiple of 16, as are both addresses.
WINNOW_DEVICE void copy_bytes(std::uint32_t shared, void const* global, std::uint32_t bytes, std::uint64_t* barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
        "l"(global), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
}

/// The other way: from `shared` to the tensor; what lies outside it is not written. Ordinary stores to `shared` need an
/// async_proxy_fence before.
WINNOW_DEVICE void store_box(CUtensorMap const& map, std::int32_t x, std::int32_t y, std::int32_t z, std::int32_t w,
                             std::uint32_t shared) {
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map),
                 "r"(x), "r"(y), "r"(z), "r"(w), "r"(shared)
                 : "memory");
}

/// Closes the group of stores issued so far by this thread.
WINNOW_DEVICE void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/// Waits until this thread's stores have read shared memory.
WINNOW_DEVICE void store_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

/// Waits until this thread's stores are done.
WINNOW_DEVICE void store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

}  // namespace winnow::ptx
