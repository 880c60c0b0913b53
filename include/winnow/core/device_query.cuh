// Fills a device_info from a CUDA device: the one place outside launches that calls the runtime.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "winnow/core/device_info.hpp"
#include "winnow/core/status.hpp"

namespace winnow {

/// A CUDA error as a status.
inline status cuda_status(cudaError_t error, char const* call) {
    return error == cudaSuccess ? status{}
                                : fail(errc::cuda_error, call, "must succeed", static_cast<std::int64_t>(error));
}

/// Threads that hopper_probe may be launched with: how a program learns whether it has code for sm_90a.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr int hopper_probe_threads = 64;
#else
inline constexpr int hopper_probe_threads = 32;
#endif

/// Never launched; only its attributes are read.
template <class>
__global__ void __launch_bounds__(hopper_probe_threads) hopper_probe() {}

/// Whether the code that the current device would run was compiled for sm_90a. A template, so that including the header
/// instantiates no kernel.
template <class Tag = void>
[[gnu::visibility("hidden")]] status query_hopper_code(bool& present) {
    cudaFuncAttributes attributes{};
    auto const s = cuda_status(cudaFuncGetAttributes(&attributes, hopper_probe<Tag>), "cudaFuncGetAttributes");
    present = s.ok() && attributes.maxThreadsPerBlock == 64;
    return s;
}

/// Reads the attributes of device `ordinal` into `out`. Call it once at start-up, not per launch.
template <class Tag = void>
[[gnu::visibility("hidden")]] status query_device(device_info& out, int ordinal) {
    int major = 0, minor = 0, multiprocessors = 0, shared = 0, l2 = 0;
    struct {
        cudaDeviceAttr name;
        int& value;
    } const wanted[] = {{cudaDevAttrComputeCapabilityMajor, major},
                        {cudaDevAttrComputeCapabilityMinor, minor},
                        {cudaDevAttrMultiProcessorCount, multiprocessors},
                        {cudaDevAttrMaxSharedMemoryPerBlockOptin, shared},
                        {cudaDevAttrL2CacheSize, l2}};
    for (auto const& attribute : wanted)
        if (auto s = cuda_status(cudaDeviceGetAttribute(&attribute.value, attribute.name, ordinal),
                                 "cudaDeviceGetAttribute");
            !s)
            return s;
    out = {major * 10 + minor, multiprocessors, shared, l2, 80};
    if (out.compute_capability != 90) return {};
    int current = 0;  // attributes of a kernel are those of the current device's code
    if (auto s = cuda_status(cudaGetDevice(&current), "cudaGetDevice"); !s) return s;
    if (auto s = cuda_status(cudaSetDevice(ordinal), "cudaSetDevice"); !s) return s;
    bool hopper = false;
    status const asked = query_hopper_code<Tag>(hopper);
    if (auto s = cuda_status(cudaSetDevice(current), "cudaSetDevice"); !s) return s;
    if (hopper) out.instructions = 90;
    return asked;
}

}  // namespace winnow
