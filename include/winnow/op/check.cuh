// Launches the debug check of device-side contents, for engines that want to know why a result is wrong.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "winnow/kernel/check_contents.cuh"
#include "winnow/op/attend.hpp"
#include "winnow/op/launch_kernel.cuh"

namespace winnow {

/// Checks offsets, lengths, page ids and lists of `p` on the device and writes the first fault to `*fault`
/// (device memory; contents_rule::none if all is well). Copy it back and call status_of(). Not for the hot path.
template <class T>
status launch_contents_check(attend_params<T> const& p, contents_fault* fault, cudaStream_t stream) {
    if (auto s = check(p); !s) return s;
    if (fault == nullptr) return fail(errc::null_pointer, "fault", "must not be null", 0);
    contents_arguments<T> const a{p, p.shape(), static_cast<std::int32_t>(larger<std::int64_t>(p.keys.extent[1], 1)),
                                  fault};
    if (auto s = cuda_status(cudaMemsetAsync(fault, 0xff, sizeof(contents_fault), stream), "cudaMemsetAsync"); !s)
        return s;
    std::int64_t const lists =
        p.selection.empty() ? 0 : a.shape.batch * p.selection.blocks.extent[1] * p.selection.blocks.extent[2];
    auto const blocks =
        static_cast<unsigned>(ceil_div(larger<std::int64_t>(lists, a.shape.batch), std::int64_t{contents_threads}));
    if (auto s = launch_kernel(find_fault<T>, dim3(blocks), contents_threads, 0, stream, a); !s) return s;
    return launch_kernel(describe_fault<T>, dim3(1), 1, 0, stream, a);
}

/// The same for a call over an fp8 cache, whose elements are not looked at either.
template <class T>
status launch_contents_check(attend_params<T, fp8_e4m3> const& p, contents_fault* fault, cudaStream_t stream) {
    if (auto s = check(p); !s) return s;
    return launch_contents_check(as_stored(p), fault, stream);
}

}  // namespace winnow
