// TMA (sm_90): one thread copies a box of a tensor to shared memory; completion counts bytes on an mbarrier.
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

/// Fetches a tensor map into the cache that copies read it from.
WINNOW_DEVICE void prefetch_map(CUtensorMap const& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

}  // namespace winnow::ptx
