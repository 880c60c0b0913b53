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

/// Reads the attributes of device `ordinal` into `out`. Call it once at start-up, not per launch.
[[gnu::visibility("hidden")]] inline status query_device(device_info& out, int ordinal) {
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
    out = {major * 10 + minor, multiprocessors, shared, l2};
    return {};
}

}  // namespace winnow
