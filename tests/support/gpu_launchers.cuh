// The one body behind every launch of the GPU tests; gpu_launchers_*.cu say for which params.
#pragma once

#include "support/gpu_launchers.hpp"

namespace winnow::testing {

template <class Params, class Plan>
status gpu_launch(Params const& p, Plan const& plan, workspace scratch, cudaStream_t stream) {
    return launch(p, plan, scratch, stream);
}

template <class Params>
status gpu_contents_check(Params const& p, contents_fault* fault, cudaStream_t stream) {
    return launch_contents_check(p, fault, stream);
}

}  // namespace winnow::testing
