// Launches attention: one kernel for the tiles, and a merge of their key splits where the plan made any.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "winnow/kernel/attend_sm80.cuh"
#include "winnow/kernel/merge.cuh"
#include "winnow/op/attend.hpp"
#include "winnow/op/launch_kernel.cuh"

namespace winnow {

/// Runs a plan with the one instance that serves `Problem`; errc::wrong_plan if the plan chose another.
/// Allocates nothing, synchronises nothing, may be captured in a graph. Device contents (lengths, tables, lists) may
/// change between replays within the plan's maxima. `slots` is sparse_decode's.
template <attend_problem Problem, class T>
status launch(attend_params<T> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream,
              slot_index slots = {}) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    batch_shape const shape = p.shape();
    if (!plan.same_layout(attend_plan_of(p, plan.device)))
        return fail(errc::wrong_plan, "plan", "was made for other params", plan.shape.max_queries);
    if (Problem.head_dim != shape.head_dim)
        return fail(errc::wrong_plan, "queries.extent[3]", "must be the instance's head_dim", shape.head_dim);
    if (Problem.rows != plan.schedule.rows)
        return fail(errc::wrong_plan, "plan.schedule.rows", "must be the instance's",
                    static_cast<int>(plan.schedule.rows));
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;

    constexpr attend_tile tile = attend_tile_of(Problem);
    attend_schedule const& schedule = plan.schedule;
    attend_arguments<T> const arguments{
        p,
        schedule,
        shape,
        fast_divider(static_cast<std::int32_t>(larger<std::int64_t>(p.keys.extent[1], 1))),
        slots,
        region<float>(scratch, plan.partial_output),
        region<float>(scratch, plan.partial_lse)};
    if (shape.batch == 0 || shape.max_queries == 0) return {};
    dim3 const grid(static_cast<unsigned>(schedule.query_tiles) * shape.kv_heads * schedule.head_groups,
                    schedule.splits, shape.batch);
    auto const done = launch_kernel(attend_sm80<T, Problem.head_dim, Problem.rows>, grid, tile.threads(),
                                    sizeof(attend_storage<T, Problem.head_dim, Problem.rows>), stream, arguments);
    if (!done || schedule.splits == 1) return done;
    return launch_kernel(merge_splits<T, Problem.head_dim>, dim3(shape.heads, schedule.max_rows, shape.batch),
                         merge_warps * 32, 0, stream, arguments);
}

/// Runs a plan with any of the instances of one head dimension.
template <int HeadDim, class T>
status launch(attend_params<T> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream,
              slot_index slots = {}) {
    switch (plan.schedule.rows) {
    case attend_rows::decode:
        return launch<attend_problem{HeadDim, attend_rows::decode}>(p, plan, scratch, stream, slots);
    case attend_rows::medium:
        return launch<attend_problem{HeadDim, attend_rows::medium}>(p, plan, scratch, stream, slots);
    case attend_rows::large:
        if constexpr (HeadDim <= 128)
            return launch<attend_problem{HeadDim, attend_rows::large}>(p, plan, scratch, stream, slots);
    }
    return fail(errc::wrong_plan, "plan.schedule.rows", "no such instance", static_cast<int>(plan.schedule.rows));
}

/// Runs a plan with any of the default instances: head_dim in supported_head_dims, all row classes.
template <class T>
status launch(attend_params<T> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream,
              slot_index slots = {}) {
    if (!plan) return plan.why;
    return dispatch(supported_head_dims{}, static_cast<int>(p.queries.extent[3]), "queries.extent[3]",
                    [&](auto head_dim) { return launch<decltype(head_dim)::value>(p, plan, scratch, stream, slots); });
}

}  // namespace winnow
