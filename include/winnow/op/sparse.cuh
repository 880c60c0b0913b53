// Launches sparse prefill and sparse decode: pruning, then attention over what it chose, on one stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "winnow/op/attend.cuh"
#include "winnow/op/delta.cuh"
#include "winnow/op/prune.cuh"
#include "winnow/op/sparse.hpp"

namespace winnow {

/// Allocates nothing, synchronises nothing, may be captured in a graph.
template <class T>
status launch(sparse_prefill_params<T> const& p, sparse_plan const& plan, workspace scratch, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (!plan.same_layout(sparse_plan_of(p, plan.attend.device)))
        return fail(errc::wrong_plan, "plan", "was made for other params", plan.prune.shape.max_queries);
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    block_selection_buffer const selection =
        packed_selection(region<std::int32_t>(scratch, plan.selection_blocks),
                         region<std::int32_t>(scratch, plan.selection_counts), p.method, p.shape());
    workspace const rest{region<char>(scratch, plan.scratch), scratch.bytes - plan.scratch};
    if (auto s = launch(prune_part(p, selection), plan.prune, rest, stream); !s) return s;
    if (p.delta.gamma > 0) return launch(delta_part(p, selection), plan.delta, rest, stream);
    if (auto s = launch(attend_part(p, selection), plan.attend, rest, stream); !s) return s;
    return p.dense_tail > 0 ? launch(tail_part(p), plan.tail, rest, stream) : status{};
}

/// One captured launch serves every refresh state: each request's blocks look up its step and do what is due.
/// Afterwards the step of every slot that was used is one higher. Rows without a slot, or of length 0, give output 0
/// and lse -inf.
template <class T, class KV>
status launch(sparse_decode_params<T, KV> const& p, sparse_plan const& plan, workspace scratch, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (!plan.same_layout(sparse_plan_of(p, plan.attend.device)))
        return fail(errc::wrong_plan, "plan", "was made for other params", plan.prune.shape.batch);
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    batch_shape const shape = p.shape();
    if (shape.batch == 0) return {};
    // Where attention is one kernel it overlaps with pruning and counts the step; see the chain in docs/sparse.md.
    bool const one_kernel = plan.attend.merges_itself();
    workspace const rest{region<char>(scratch, plan.scratch), scratch.bytes - plan.scratch};
    decode_stages stages{p.cache};
    step_launch context{.slots = p.cache.index()};
    if (one_kernel) {
        if (auto s = order_of_followers(plan.prune.instructions, context.order); !s) return s;
        stages.counters = region<std::int32_t>(scratch, plan.attend.arrived);
        stages.count = plan.attend.counters() * shape.batch;
        context.step = {p.cache.step, p.cache.intervals, p.method.stage_count};
    }
    if (auto s = launch_stages(prune_part(p), plan.prune, rest, stream, &stages); !s) return s;
    if (auto s = launch(attend_part(p), plan.attend, scratch, stream, context); !s || one_kernel) return s;
    step_arguments const step{p.cache, p.kv, shape,
                              static_cast<std::int32_t>(larger<std::int64_t>(p.keys.extent[1], 1))};
    constexpr int threads = 128;
    return launch_kernel(advance_steps<threads>, dim3(static_cast<unsigned>(ceil_div(shape.batch, threads))), threads,
                         0, stream, step);
}

}  // namespace winnow
