// The one body behind every launch of the C interface.
#pragma once

#include <winnow/winnow.cuh>

#include "convert.hpp"
#include "launch.hpp"

namespace winnow::c_api {

template <class T, class KV, class C>
status launch_as(C const& c, device_info const& device, workspace scratch, CUstream_st* stream) {
    auto const p = call_of<T, KV>(c);
    auto const made = plan(p, device);
    if (!made) return made.why;
    return launch(p, made, scratch, stream);
}

template <class T>
status change_sequence(winnow_cascade_cache const& c, sequence_change change, std::int32_t from, std::int32_t to,
                       CUstream_st* stream) {
    auto const cache = cache_of<T>(c);
    switch (change) {
    case sequence_change::reset:
        return cascade_reset(cache, to, stream);
    case sequence_change::clear:
        return cascade_clear(cache, to, stream);
    case sequence_change::fork:
        return cascade_fork(cache, from, to, stream);
    }
    return {};
}

}  // namespace winnow::c_api
