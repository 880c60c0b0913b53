// Launches attention: one kernel for the tiles, and a merge of their key splits where the plan made any.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

#include "winnow/kernel/attend_sm80.cuh"
#include "winnow/kernel/attend_sm90.cuh"
#include "winnow/kernel/begin_step.cuh"
#include "winnow/kernel/merge.cuh"
#include "winnow/op/attend.hpp"
#include "winnow/op/launch_kernel.cuh"
#include "winnow/op/tensor_map.cuh"

namespace winnow {

/// What sparse_decode tells attention: whose rows count, what may still be running, and what is to be done at the end.
struct step_launch {
    slot_index slots = {};  ///< rows without a slot see nothing
    decode_step step = {};  ///< given: counters are cleared by an earlier kernel, and the step is counted
    launch_order order = launch_order::after_earlier;  ///< overlapping: behind kernels of pruning
    cache_scales scales = {};                          ///< of an fp8 cache, whose params come as_stored
};

/// Starts the Hopper kernel of `Problem` that brings keys by `Loader`.
template <attend_problem Problem, key_loader Loader, class T>
status launch_hopper(attend_arguments<T> const& arguments, attend_plan const& plan, workspace scratch,
                     cudaStream_t stream) {
    constexpr hopper_tile tile = hopper_tile_of(Problem);
    bool present = false;  // the plan may come from another part of the program, which was compiled differently
    if (auto s = query_hopper_code(present); !s) return s;
    if (!present) return fail(errc::unsupported, "device.instructions", "90 needs a program with code for sm_90a", 90);
    attend_schedule const& schedule = plan.schedule;
    std::int32_t const tiles = schedule.query_tiles * plan.shape.kv_heads * schedule.head_groups;
    hopper_arguments<T> a{{},
                          {},
                          {},
                          {},
                          arguments,
                          region<std::int32_t>(scratch, plan.next_tile),
                          tiles * schedule.splits * plan.shape.batch,
                          fast_divider(tiles),
                          fast_divider(schedule.splits),
                          tile.query != query_place::results && schedule.anchor_gap == 1 &&
                              hopper_query_rows % schedule.tile_heads == 0 &&
                              bulk_addressable(arguments.params.queries),
                          hopper_output_rows % schedule.tile_heads == 0 && bulk_addressable(arguments.params.output)};
    if (a.boxes_in) {
        auto s = make_row_map(a.queries, arguments.params.queries, schedule.tile_heads, hopper_query_rows);
        if (!s) return s;
    }
    if (a.boxes_out) {
        auto s = make_row_map(a.output, arguments.params.output, schedule.tile_heads, hopper_output_rows);
        if (!s) return s;
    }
    if constexpr (Loader != key_loader::rows) {
        if (auto s = make_key_maps<Loader>(a.keys, arguments.params.keys, tile.keys); !s) return s;
        if (auto s = make_key_maps<Loader>(a.values, arguments.params.values, tile.keys); !s) return s;
    }
    if (auto s = cuda_status(cudaMemsetAsync(a.next_tile, 0, sizeof(*a.next_tile), stream), "cudaMemsetAsync"); !s)
        return s;
    return launch_kernel(attend_sm90<T, Problem.head_dim, Problem.rows, Loader>,
                         dim3(static_cast<unsigned>(smaller(a.tiles, plan.device.multiprocessors))), tile.threads(),
                         sizeof(hopper_storage<T, Problem.head_dim, Problem.rows>), stream, a);
}

/// Starts the portable kernel of `Problem`; keys and values are stored as KV.
template <attend_problem Problem, class KV, key_rotation Rotation, class T>
status launch_portable(attend_arguments<T> const& arguments, attend_plan const& plan, cudaStream_t stream,
                       launch_order order) {
    if (arguments.arrived != nullptr && arguments.step.step == nullptr) {
        // Cleared by a kernel and not by cudaMemsetAsync, which attention could not overlap.
        begin_arguments const begin{{arguments.arrived, nullptr}, {plan.counters() * plan.shape.batch, 0}};
        dim3 const blocks(static_cast<unsigned>(ceil_div(begin.count[0], begin_step_threads)));
        if (auto s = launch_kernel(begin_step<begin_step_threads>, blocks, begin_step_threads, 0, stream, begin); !s)
            return s;
        if (auto s = order_of_followers(plan.device.instructions, order); !s) return s;
    }
    attend_schedule const& schedule = plan.schedule;
    dim3 const grid(static_cast<unsigned>(schedule.query_tiles) * plan.shape.kv_heads * schedule.head_groups,
                    schedule.splits, plan.shape.batch);
    return launch_kernel(attend_sm80<T, Problem.head_dim, Problem.rows, KV, Rotation>, grid,
                         attend_bounds<Problem.head_dim, Problem.rows, KV>::threads,
                         sizeof(attend_block_storage<T, Problem.head_dim, Problem.rows, KV, Rotation>), stream,
                         arguments, order);
}

/// Kernel arguments of a plan's launch, without what decode, splits and anchors add.
template <class T>
attend_arguments<T> arguments_of(attend_params<T> const& p, attend_plan const& plan) {
    attend_schedule const& schedule = plan.schedule;
    return {p,
            schedule,
            plan.shape,
            fast_divider(static_cast<std::int32_t>(larger<std::int64_t>(p.keys.extent[1], 1))),
            fast_divider(schedule.tile_heads),
            fast_divider(schedule.head_groups),
            fast_divider(larger(schedule.query_tiles * schedule.head_groups, 1)),
            fast_divider(p.selection.empty() ? 1 : plan.shape.heads / p.selection.list_heads()),
            fast_divider(larger(schedule.split_keys / granule_keys, 1)),
            plan.shape.group(),
            {},
            nullptr,
            nullptr,
            {},
            rotary_arguments_of(p.rotation, plan.shape.head_dim),
            nullptr,
            {}};
}

/// Starts the kernel of `Problem` that a plan chose: the tiles, and the merge of splits only where `arguments` have the
/// counters for it. `Stored` is what the cache holds, T for void.
template <attend_problem Problem, class Stored = void, class T>
status launch_tiles(attend_arguments<T> const& arguments, attend_plan const& plan, workspace scratch,
                    cudaStream_t stream, launch_order order = launch_order::after_earlier) {
    using KV = std::conditional_t<std::is_void_v<Stored>, T, Stored>;
    attend_schedule const& schedule = plan.schedule;
    if constexpr (rows_of_class(attend_path::sm90, Problem) > 0) {
        if (schedule.path == attend_path::sm90) {
            switch (schedule.loader) {
            case key_loader::atoms:
                if constexpr (Problem.head_dim > 64)  // of one panel atoms are boxes, and plans say so
                    return launch_hopper<Problem, key_loader::atoms>(arguments, plan, scratch, stream);
                break;
            case key_loader::boxes:
                return launch_hopper<Problem, key_loader::boxes>(arguments, plan, scratch, stream);
            case key_loader::rows:
                if constexpr (Problem.rows != attend_rows::wide)  // its copying warps have too few registers
                    return launch_hopper<Problem, key_loader::rows>(arguments, plan, scratch, stream);
                break;
            }
        }
    }
    if constexpr (rows_of_class(attend_path::sm80, Problem) > 0) {
        if (schedule.path == attend_path::sm80) {
            if constexpr (std::is_same_v<T, KV>) {
                if (schedule.rotation != key_rotation::none)
                    return launch_portable<Problem, KV, key_rotation::streaming>(arguments, plan, stream, order);
            }
            return launch_portable<Problem, KV, key_rotation::none>(arguments, plan, stream, order);
        }
    }
    return {};
}

/// Runs a plan with the instance that serves `Problem`, one kernel for each path and loader; errc::wrong_plan if the plan chose
/// another. Allocates nothing, synchronises nothing, may be captured in a graph. Device contents (lengths, tables, lists)
/// may change between replays within the plan's maxima. `context` is sparse_decode's, `correction`
/// delta correction's; `Stored` is what the cache holds, T for void.
template <attend_problem Problem, class Stored = void, class T>
status launch(attend_params<T> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream,
              step_launch const& context = {}, anchor_results correction = {}) {
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

    if (shape.batch == 0 || shape.max_queries == 0) return {};
    attend_schedule const& schedule = plan.schedule;
    attend_arguments<T> arguments = arguments_of(p, plan);
    arguments.params.scales = context.scales;
    arguments.slots = context.slots;
    arguments.correction = correction;
    // Rows that are corrected are merged by a kernel of its own: the one that merges in place knows no correction.
    bool const merges = plan.merges_itself() && correction.output == nullptr;
    if (merges) arguments.arrived = region<std::int32_t>(scratch, plan.arrived), arguments.step = context.step;
    if (schedule.splits > 1) {
        arguments.partial_output = region<float>(scratch, plan.partial_output);
        arguments.partial_lse = region<float>(scratch, plan.partial_lse);
    }
    status const done = launch_tiles<Problem, Stored>(arguments, plan, scratch, stream, context.order);
    if (!done || schedule.splits == 1 || merges) return done;
    return launch_kernel(merge_splits<T, Problem.head_dim>, dim3(shape.heads, schedule.max_rows, shape.batch),
                         merge_warps * 32, 0, stream, arguments);
}

/// Runs a plan with any of the instances of one head dimension.
template <int HeadDim, class T>
status launch(attend_params<T> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream,
              step_launch const& context = {}, anchor_results correction = {}) {
    switch (plan.schedule.rows) {
    case attend_rows::decode:
        return launch<attend_problem{HeadDim, attend_rows::decode}>(p, plan, scratch, stream, context, correction);
    case attend_rows::medium:
        return launch<attend_problem{HeadDim, attend_rows::medium}>(p, plan, scratch, stream, context, correction);
    case attend_rows::large:
        return launch<attend_problem{HeadDim, attend_rows::large}>(p, plan, scratch, stream, context, correction);
    case attend_rows::wide:
        if constexpr (rows_of_class(attend_path::sm90, {HeadDim, attend_rows::wide}) > 0)
            return launch<attend_problem{HeadDim, attend_rows::wide}>(p, plan, scratch, stream, context, correction);
        break;
    }
    return fail(errc::wrong_plan, "plan.schedule.rows", "no such instance", static_cast<int>(plan.schedule.rows));
}

/// Runs a plan with any of the default instances: head_dim in supported_head_dims, all row classes.
template <class T>
status launch(attend_params<T> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream,
              step_launch const& context = {}, anchor_results correction = {}) {
    if (!plan) return plan.why;
    return dispatch(supported_head_dims{}, static_cast<int>(p.queries.extent[3]), "queries.extent[3]",
                    [&](auto head_dim) {
                        return launch<decltype(head_dim)::value>(p, plan, scratch, stream, context, correction);
                    });
}

/// Runs a plan of an fp8 cache with any of the default head dimensions.
template <class T>
status launch(attend_params<T, fp8_e4m3> const& p, attend_plan const& plan, workspace scratch, cudaStream_t stream,
              step_launch context = {}) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (plan.schedule.rows != attend_rows::decode)
        return fail(errc::wrong_plan, "plan.schedule.rows", "must be decode's for fp8 keys",
                    static_cast<int>(plan.schedule.rows));
    return dispatch(supported_head_dims{}, static_cast<int>(p.queries.extent[3]), "queries.extent[3]",
                    [&](auto head_dim) {
                        constexpr attend_problem problem{decltype(head_dim)::value, attend_rows::decode};
                        context.scales = p.scales;
                        return launch<problem, fp8_e4m3>(as_stored(p), plan, scratch, stream, context);
                    });
}

}  // namespace winnow
