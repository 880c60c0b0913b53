// Launches pruning: for each slab of query blocks and each stage, scores and then selection; at decode in one kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "winnow/core/device_query.cuh"
#include "winnow/kernel/begin_step.cuh"
#include "winnow/kernel/prune_score.cuh"
#include "winnow/kernel/prune_select.cuh"
#include "winnow/kernel/prune_walk_sm90.cuh"
#include "winnow/op/launch_kernel.cuh"
#include "winnow/op/prune.hpp"

namespace winnow {

/// Scores of one stage by kernels that multiply as `Unit` does.
template <int HeadDim, scorer How, product_unit Unit, class T>
status launch_score(prune_arguments<T> const& a, dim3 blocks, cudaStream_t stream, launch_order order) {
    std::int32_t const copies =
        prune_row_copies(Unit, a.params.scan) * prune_residues(How, a.params.method.stages[a.stage].query_stride);
    std::int32_t const rows = rows_held(a.params.method.stages[a.stage], a.units, a.shape.max_queries,
                                        prune_rows_held(HeadDim), rows_of_product(Unit), copies);
    // Selection takes the place of the rows, which are not needed any more.
    std::size_t const held = static_cast<std::size_t>(rows) * HeadDim * sizeof(T);
    std::size_t const room = larger(held, a.arrived != nullptr ? prune_in_place_bytes(a.max_candidates) : 0);
    return launch_kernel(prune_score<T, HeadDim, How, Unit>, blocks, prune_tuning_of(HeadDim, How, Unit).warps * 32,
                         prune_rows_behind<HeadDim, Unit> + room, stream, a, order);
}

/// Chunks of a scoring block, `most` at most, and blocks along x.
template <class T>
dim3 deal_chunks(prune_arguments<T>& a, std::int32_t per_tile, std::int32_t tiles, std::int32_t most) {
    std::int32_t const candidates = stage_candidates(a.params.method, a.stage, a.shape.max_keys);
    a.chunks_per_block =
        chunks_per_block(per_tile, candidates, std::int64_t{a.lists_of_slab} * a.units.units * a.shape.batch,
                         a.units.walkers, tiles, most);
    return dim3(static_cast<unsigned>(a.lists_of_slab * ceil_div(candidates, a.chunks_per_block)),
                static_cast<unsigned>(a.units.units), static_cast<unsigned>(a.shape.batch));
}

/// The same by warpgroups.
template <int HeadDim, product_unit Unit, class T>
status launch_walk(prune_arguments<T> a, cudaStream_t stream, launch_order order) {
    constexpr prune_walk_tile tile = prune_walk_tile_of(HeadDim);
    a.walk_rows = rows_held(a.params.method.stages[a.stage], a.units, a.shape.max_queries,
                            prune_walk_rows_held(HeadDim), rows_of_product(Unit));
    std::size_t const held = prune_walk_held_bytes<HeadDim>(a.walk_rows);
    std::int32_t const warpgroups = prune_walk_warpgroups(HeadDim, held), tiles = warpgroups * tile.tiles;
    dim3 const blocks = deal_chunks(a, tile.chunks, tiles, prune_most_chunks_alone);
    return launch_kernel(prune_walk_sm90<T, HeadDim, Unit>, blocks, warpgroups * 128,
                         held + static_cast<std::size_t>(tiles) * tile.keys * HeadDim * sizeof(T), stream, a, order);
}

/// Unit of the stage that `a` is set to, for keys that are stored as KV and come with their rotary embedding.
template <class T, class KV>
product_unit stage_unit(prune_arguments<T> const& a, std::int32_t instructions) {
    if constexpr (!std::is_same_v<T, KV>) return product_unit::widened;
    prune_method const& m = a.params.method;
    product_unit const unit =
        product_unit_of(m, walker_rows(m.stages[a.stage], a.units, a.shape.max_queries), instructions);
    // A decode step has few blocks, which should be many small ones.
    return a.cached && unit == product_unit::warpgroup_few ? product_unit::warp : unit;
}

/// The same for any unit; those beside `warp` exist for one scorer, and fp8 keys have one unit.
template <int HeadDim, scorer How, class KV, class T>
status launch_score(prune_arguments<T>& a, product_unit unit, cudaStream_t stream, launch_order order) {
    constexpr bool widens = !std::is_same_v<T, KV>;
    if constexpr (How == scorer::tree_probe && !widens) {
        if (unit == product_unit::warpgroup) return launch_walk<HeadDim, product_unit::warpgroup>(a, stream, order);
        if (unit == product_unit::warpgroup_few)
            return launch_walk<HeadDim, product_unit::warpgroup_few>(a, stream, order);
    }
    constexpr prune_tuning tuning = prune_tuning_of(HeadDim, How);
    dim3 const blocks = deal_chunks(a, chunks_per_tile(How, tuning.key_tiles), tuning.warps,
                                    a.units.walkers > 1 ? prune_most_chunks : prune_most_chunks_alone);
    if constexpr (How == scorer::tree_probe && !widens)
        if (unit == product_unit::turned)
            return launch_score<HeadDim, How, product_unit::turned>(a, blocks, stream, order);
    constexpr product_unit by_warps = widens ? product_unit::widened : product_unit::warp;
    return launch_score<HeadDim, How, by_warps>(a, blocks, stream, order);
}

/// What a decode step asks of pruning beside its lists.
struct decode_stages {
    stage_cache cache;                 ///< where lists live
    std::int32_t* counters = nullptr;  ///< those of attention, cleared by the first kernel
    std::int32_t count = 0;            ///< how many; 0: none
};

/// The stages, for one head dimension and scorer. `decode` non-null: lists live in the slots of its cache.
template <int HeadDim, scorer How, class T, class KV>
status launch_stages(prune_params<T, KV> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream,
                     decode_stages const* decode) {
    prune_method const& m = p.method;
    batch_shape const& shape = plan.shape;
    if (shape.batch == 0 || shape.max_queries == 0) return {};
    prune_arguments<T> a{};
    a.params = as_stored(p);
    a.shape = shape;
    a.page_size = fast_divider(static_cast<std::int32_t>(larger<std::int64_t>(p.keys.extent[1], 1)));
    a.list_heads = list_heads_of(m.sharing, shape.heads, shape.kv_heads);
    a.slab_blocks = plan.slab_blocks;
    a.score_width = plan.score_width();
    a.units = units_of(m, shape.heads, shape.kv_heads);
    a.scores = region<std::uint32_t>(scratch, plan.scores);
    a.cached = decode != nullptr;
    a.list_rows = a.cached ? decode->cache.slots * a.list_heads : plan.list_rows;
    a.lists = a.cached ? decode->cache.lists : region<std::int32_t>(scratch, plan.lists);
    if (a.cached) a.cache = decode->cache;
    a.groups = groups_of(a.list_heads, a.units.units);
    a.rotation = rotary_arguments_of(p.rotation, shape.head_dim);
    launch_order followers{}, order = launch_order::after_earlier;  // kernels that overlap wait for each other
    if (auto s = order_of_followers(plan.instructions, followers); !s) return s;
    bool const overlap = followers == launch_order::overlapping;
    std::int32_t* const arrived = region<std::int32_t>(scratch, plan.arrived);
    if (decode != nullptr) {
        begin_arguments const begin{{decode->counters, arrived},
                                    {decode->count, static_cast<std::int32_t>(plan.counters(m))}};
        std::int32_t const blocks = ceil_div(begin.count[0] + begin.count[1], begin_step_threads);
        if (auto s = launch_kernel(begin_step<begin_step_threads>, dim3(static_cast<unsigned>(blocks)),
                                   begin_step_threads, 0, stream, begin, order);
            !s)
            return s;
        if (overlap) order = launch_order::overlapping;
    }

    for (std::int32_t slab = 0; slab < plan.slabs; ++slab) {
        a.first_block = slab * plan.slab_blocks;
        for (std::int32_t stage = 0; stage < m.stage_count; ++stage) {
            set_stage(a, stage);
            std::int32_t const lists = a.lists_of_slab;
            std::int32_t const candidates = stage_candidates(m, stage, shape.max_keys);
            product_unit const unit =
                p.rotation.empty() ? stage_unit<T, KV>(a, overlap ? 90 : 80) : product_unit::turned;
            a.max_candidates = candidates;
            a.arrived = selects_in_place(a.cached, candidates) && !by_warpgroups(unit) ? arrived : nullptr;
            if (auto s = launch_score<HeadDim, How, KV>(a, unit, stream, order); !s) return s;
            if (overlap) order = launch_order::overlapping;
            if (a.arrived != nullptr) continue;
            dim3 const selections(static_cast<unsigned>(lists), static_cast<unsigned>(a.list_heads),
                                  static_cast<unsigned>(shape.batch));
            int const threads = prune_select_threads_of(candidates, std::int64_t{lists} * a.list_heads * shape.batch);
            if (auto s = launch_kernel(prune_select<T>, selections, threads, prune_select_bytes(candidates), stream, a,
                                       order);
                !s)
                return s;
        }
    }
    return {};
}

/// The stages, for any scorer that the keys' type allows.
template <int HeadDim, class T, class KV>
status launch_stages(prune_params<T, KV> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream,
                     decode_stages const* decode) {
    using scorers = std::conditional_t<std::is_same_v<T, KV>, supported_scorers, widened_scorers>;
    return dispatch(scorers{}, p.method.scorer, "method.scorer", [&](auto how) {
        return launch_stages<HeadDim, decltype(how)::value>(p, plan, scratch, stream, decode);
    });
}

/// The stages, for any of the default head dimensions.
template <class T, class KV>
status launch_stages(prune_params<T, KV> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream,
                     decode_stages const* decode) {
    return dispatch(
        supported_head_dims{}, static_cast<int>(p.queries.extent[3]), "queries.extent[3]",
        [&](auto head_dim) { return launch_stages<decltype(head_dim)::value>(p, plan, scratch, stream, decode); });
}

/// Writes p.selection. Allocates nothing, synchronises nothing, may be captured in a graph; lengths and page tables may
/// change between replays within the plan's maxima.
template <class T, class KV>
status launch(prune_params<T, KV> const& p, prune_plan const& plan, workspace scratch, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (!plan.same_layout(prune_plan_of(p.method, p.shape())))
        return fail(errc::wrong_plan, "plan", "was made for other params", plan.shape.max_queries);
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    return launch_stages(p, plan, scratch, stream, static_cast<decode_stages const*>(nullptr));
}

}  // namespace winnow
