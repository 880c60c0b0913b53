// Launches pruning: for each slab of query blocks and each stage, scores and then selection.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "winnow/kernel/prune_score.cuh"
#include "winnow/kernel/prune_select.cuh"
#include "winnow/op/launch_kernel.cuh"
#include "winnow/op/prune.hpp"

namespace winnow {

/// The stages, for one head dimension. `cache` non-null: lists live in its slots (decode).
template <int HeadDim, class T>
status launch_stages(prune_params<T> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream,
                     stage_cache const* cache) {
    prune_method const& m = p.method;
    batch_shape const& shape = plan.shape;
    if (shape.batch == 0 || shape.max_queries == 0) return {};
    prune_arguments<T> a{};
    a.params = p;
    a.shape = shape;
    a.page_size = fast_divider(static_cast<std::int32_t>(larger<std::int64_t>(p.keys.extent[1], 1)));
    a.list_heads = list_heads_of(m.sharing, shape.heads, shape.kv_heads);
    a.slab_blocks = plan.slab_blocks;
    a.max_candidates = plan.max_candidates;
    a.scores = region<std::uint32_t>(scratch, plan.scores);
    a.cached = cache != nullptr;
    a.list_rows = a.cached ? cache->slots * a.list_heads : plan.list_rows;
    a.lists = a.cached ? cache->lists : region<std::int32_t>(scratch, plan.lists);
    if (a.cached) a.cache = *cache;
    std::size_t const score_bytes =
        static_cast<std::size_t>(plan.list_rows) * plan.max_candidates * sizeof(std::uint32_t);
    std::int32_t const tiles = ceil_div(plan.max_candidates, chunks_per_block(m.scorer));
    std::int32_t const units = shape.heads / heads_scored_together(m, shape.group());

    for (std::int32_t slab = 0; slab < plan.slabs; ++slab) {
        a.first_block = slab * plan.slab_blocks;
        for (a.stage = 0; a.stage < m.stage_count; ++a.stage) {
            auto const lists =
                static_cast<unsigned>(plan.slab_blocks * (m.stages[0].query_block / m.stages[a.stage].query_block));
            if (auto s = cuda_status(cudaMemsetAsync(a.scores, 0, score_bytes, stream), "cudaMemsetAsync"); !s)
                return s;
            if (auto s = launch_kernel(prune_score<T, HeadDim>, dim3(lists * tiles, units, shape.batch),
                                       prune_score_threads, sizeof(prune_score_storage<T, HeadDim>), stream, a);
                !s)
                return s;
            if (auto s = launch_kernel(prune_select<T>, dim3(lists, a.list_heads, shape.batch), prune_select_threads, 0,
                                       stream, a);
                !s)
                return s;
        }
    }
    return {};
}

/// The stages, for any of the default head dimensions.
template <class T>
status launch_stages(prune_params<T> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream,
                     stage_cache const* cache) {
    return dispatch(
        supported_head_dims{}, static_cast<int>(p.queries.extent[3]), "queries.extent[3]",
        [&](auto head_dim) { return launch_stages<decltype(head_dim)::value>(p, plan, scratch, stream, cache); });
}

/// Writes p.selection. Allocates nothing, synchronises nothing, may be captured in a graph; lengths and page tables may
/// change between replays within the plan's maxima.
template <class T>
status launch(prune_params<T> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (!plan.same_layout(prune_plan_of(p.method, p.shape())))
        return fail(errc::wrong_plan, "plan", "was made for other params", plan.shape.max_queries);
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    return launch_stages(p, plan, scratch, stream, static_cast<stage_cache const*>(nullptr));
}

}  // namespace winnow
