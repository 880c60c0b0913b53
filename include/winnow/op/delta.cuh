// Launches delta correction: two passes over the anchors, the sparse rows with the correction added as they are finished,
// the anchors' own rows, and the dense tail.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "winnow/kernel/delta.cuh"
#include "winnow/op/attend.cuh"
#include "winnow/op/delta.hpp"
#include "winnow/op/launch_kernel.cuh"

namespace winnow {

/// Starts one pass over the anchors.
template <int HeadDim, class T>
status launch_anchors(attend_params<T> const& p, attend_plan const& plan, anchor_parts const& to, workspace scratch,
                      cudaStream_t stream) {
    attend_arguments<T> arguments = arguments_of(p, plan);
    arguments.partial_output = to.output;
    arguments.partial_lse = to.lse;
    switch (plan.schedule.rows) {
    case attend_rows::decode:
        return launch_tiles<attend_problem{HeadDim, attend_rows::decode}>(arguments, plan, scratch, stream);
    case attend_rows::medium:
        return launch_tiles<attend_problem{HeadDim, attend_rows::medium}>(arguments, plan, scratch, stream);
    case attend_rows::large:
        return launch_tiles<attend_problem{HeadDim, attend_rows::large}>(arguments, plan, scratch, stream);
    case attend_rows::wide:  // not for anchors
        break;
    }
    return fail(errc::wrong_plan, "plan.schedule.rows", "no such instance", static_cast<int>(plan.schedule.rows));
}

/// Runs a plan for one head dimension. Allocates nothing, synchronises nothing, may be captured in a graph. Device contents
/// (lengths, tables, lists) may change between replays within the plan's maxima.
template <int HeadDim, class T>
status launch(delta_params<T> const& p, delta_plan const& plan, workspace scratch, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    batch_shape const shape = p.shape();
    if (HeadDim != shape.head_dim)
        return fail(errc::wrong_plan, "queries.extent[3]", "must be the instance's head_dim", shape.head_dim);
    if (!plan.same_layout(delta_plan_of(p, plan.sparse.device)))
        return fail(errc::wrong_plan, "plan", "was made for other params", shape.max_queries);
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    if (shape.batch == 0 || shape.max_queries == 0) return {};

    delta_options const& o = p.options;
    bool const two = o.form != delta_form::recompute;
    workspace const rest{region<char>(scratch, plan.scratch), scratch.bytes - plan.scratch};
    anchor_parts const other{region<float>(scratch, plan.other_output), region<float>(scratch, plan.other_lse),
                             plan.other.schedule.splits};
    anchor_parts const seen{region<float>(scratch, plan.seen_output), region<float>(scratch, plan.seen_lse),
                            plan.seen.schedule.splits};
    delta_arguments<T> const arguments{seen_part(p),
                                       shape,
                                       static_cast<std::int32_t>(larger<std::int64_t>(p.base.keys.extent[1], 1)),
                                       o.gamma,
                                       most_anchors(shape.max_queries, o.gamma),
                                       o.form,
                                       others_of(p),
                                       other,
                                       seen};
    dim3 const grid(static_cast<unsigned>(ceil_div(arguments.anchors, delta_warps)), shape.heads, shape.batch);
    if (auto s = launch_anchors<HeadDim>(other_part(p), plan.other, other, rest, stream); !s) return s;
    if (two)
        if (auto s = launch_anchors<HeadDim>(seen_part(p), plan.seen, seen, rest, stream); !s) return s;
    if (auto s = launch_kernel(form_delta<T, HeadDim>, grid, delta_warps * 32, 0, stream, arguments); !s) return s;
    anchor_results correction;
    if (two) {
        bool const mass = o.form == delta_form::mass_preserving;
        correction = {other.output, mass ? other.lse : nullptr, o.gamma, arguments.anchors, other.splits};
    }
    if (auto s = launch<HeadDim>(sparse_part(p), plan.sparse, rest, stream, {}, correction); !s) return s;
    if (auto s = launch_kernel(store_anchors<T, HeadDim>, grid, delta_warps * 32, 0, stream, arguments); !s) return s;
    return has_tail(o) ? launch<HeadDim>(tail_part(p), plan.tail, rest, stream) : status{};
}

/// Runs a plan with any of the default instances: head_dim in supported_head_dims.
template <class T>
status launch(delta_params<T> const& p, delta_plan const& plan, workspace scratch, cudaStream_t stream) {
    if (!plan) return plan.why;
    return dispatch(supported_head_dims{}, static_cast<int>(p.base.queries.extent[3]), "queries.extent[3]",
                    [&](auto head_dim) { return launch<decltype(head_dim)::value>(p, plan, scratch, stream); });
}

}  // namespace winnow
