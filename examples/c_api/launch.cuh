// The one body behind every launch of the C interface.
#pragma once

#include <winnow/winnow.cuh>

#include "convert.hpp"
#include "launch.hpp"

namespace winnow::c_api {

template <class T, class C>
status launch_as(C const& c, device_info const& device, workspace scratch, CUstream_st* stream) {
    auto const p = params_of<T>(c);
    auto const made = plan(p, device);
    if (!made) return made.why;
    return launch(p, made, scratch, stream);
}

}  // namespace winnow::c_api
