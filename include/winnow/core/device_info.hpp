// What a plan needs to know of a device, as plain data: plans are made without CUDA. query_device() fills it.
#pragma once

#include <cstdint>

namespace winnow {

/// Properties of a CUDA device. The defaults describe an H100 SXM.
struct device_info {
    std::int32_t compute_capability = 90;           ///< major * 10 + minor
    std::int32_t multiprocessors = 132;             ///< streaming multiprocessors
    std::int32_t shared_memory_per_block = 232448;  ///< bytes, opt-in maximum
    std::int64_t l2_bytes = 52428800;               ///< size of the L2 cache, in bytes
    /// Newest kernels that may run: 90 (wgmma and TMA; only compute capability 9.0, and the program needs code for sm_90a)
    /// or 80. Set it to 80 to force the portable ones.
    std::int32_t instructions = 90;
};

}  // namespace winnow
