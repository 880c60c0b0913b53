// Starts a kernel with its dynamic shared memory and reports the launch's own return code.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "winnow/core/device_query.cuh"
#include "winnow/core/status.hpp"

namespace winnow {

/// When a kernel may start. One that overlaps waits by itself for those before it: see ptx/grid_dependency.cuh.
enum class launch_order { after_earlier, overlapping };

/// Launches `kernel(argument)`. More than 48 KB of shared memory has to be asked for each time: the setting belongs to
/// the current device's context, which a library cannot remember for its caller. Hidden: two shared libraries of a process
/// may hold a CUDA runtime each, and a kernel has to be launched by the one that knows it.
template <class Argument>
[[gnu::visibility("hidden")]] status
launch_kernel(void (*kernel)(Argument), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
              Argument const& argument, launch_order order = launch_order::after_earlier) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return {};
    if (grid.y > 65535 || grid.z > 65535)
        return fail(errc::unsupported, "grid", "must be <= 65535 along y and z", grid.y > 65535 ? grid.y : grid.z);
    if (shared_bytes > 48 * 1024) {
        auto const raised =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
        if (auto s = cuda_status(raised, "cudaFuncSetAttribute"); !s) return s;
    }
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    cudaLaunchAttribute overlap{};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    if (order == launch_order::overlapping) {
        config.attrs = &overlap;
        config.numAttrs = 1;
    }
    return cuda_status(cudaLaunchKernelEx(&config, kernel, argument), "cudaLaunchKernelEx");
}

/// How kernels that follow an operator's first may start: on Hopper before the one in front of them has ended, if the code
/// that runs is Hopper's; a plan may come from another part of the program, which was compiled differently. The first waits
/// for what the caller has launched. A template, so that including the header instantiates no kernel.
template <class Tag = void>
[[gnu::visibility("hidden")]] status order_of_followers(std::int32_t instructions, launch_order& order) {
    bool overlap = instructions >= 90;
    if (overlap)
        if (auto s = query_hopper_code<Tag>(overlap); !s) return s;
    order = overlap ? launch_order::overlapping : launch_order::after_earlier;
    return {};
}

}  // namespace winnow
