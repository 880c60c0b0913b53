// Launches the cascade operators: a chunk's keys are lined up, attended to and scored; then the chunk is inserted.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "winnow/core/device_query.cuh"
#include "winnow/kernel/cascade_decode.cuh"
#include "winnow/kernel/cascade_gather.cuh"
#include "winnow/kernel/cascade_insert.cuh"
#include "winnow/kernel/cascade_insert_token.cuh"
#include "winnow/kernel/cascade_reduce.cuh"
#include "winnow/kernel/cascade_score.cuh"
#include "winnow/kernel/cascade_score_sm90.cuh"
#include "winnow/kernel/cascade_token.cuh"
#include "winnow/op/attend.cuh"
#include "winnow/op/cascade.hpp"
#include "winnow/op/launch_kernel.cuh"
#include "winnow/op/tensor_map.cuh"

namespace winnow {

namespace detail {

/// Scores of tokens from the sums of heads.
template <class T>
status launch_reduce(cascade_attend_arguments<T> const& a, launch_order order, cudaStream_t stream) {
    dim3 const reduce(static_cast<unsigned>(ceil_div(a.shape.max_keys, cascade_reduce_threads)),
                      static_cast<unsigned>(a.params.cache.token_heads()), static_cast<unsigned>(a.shape.batch));
    return launch_kernel(cascade_reduce<T>, reduce, cascade_reduce_threads, 0, stream, a, order);
}

/// A decode step over rows as they lie; `a` is complete but for what concerns segments.
template <int HeadDim, class T>
status launch_segments(cascade_attend_arguments<T>& a, cascade_attend_plan const& plan, workspace scratch,
                       cudaStream_t stream) {
    auto const batch = static_cast<unsigned>(a.shape.batch), segments = static_cast<unsigned>(plan.segments);
    a.segments = plan.segments;
    a.splits = plan.splits;
    a.places = cascade_places<T>(a.params.cache);
    a.group = a.shape.group();
    a.heads_of_set = a.shape.heads / a.params.cache.token_heads();
    a.head_groups = fast_divider(plan.splits.head_groups);
    a.turned_queries = region<T>(scratch, plan.queries);
    a.partial_output = region<float>(scratch, plan.part_output);
    a.partial_lse = region<float>(scratch, plan.part_lse);
    a.arrived = region<std::int32_t>(scratch, plan.arrived);
    if (auto s = launch_kernel(cascade_segments<T>, dim3(segments + 2, batch), cascade_gather_threads, 0, stream, a);
        !s)
        return s;
    launch_order order{};
    if (auto s = order_of_followers(plan.attend.device.instructions, order); !s) return s;
    dim3 const attend(static_cast<unsigned>(a.shape.kv_heads * a.splits.head_groups),
                      static_cast<unsigned>(a.splits.count), batch);
    auto const attended =
        launch_kernel(cascade_attend_token<T, HeadDim>, attend, cascade_token_bounds<HeadDim>::threads,
                      sizeof(cascade_token_storage<T, HeadDim>), stream, a, order);
    if (!attended || !a.params.takes_scores()) return attended;
    dim3 const score(static_cast<unsigned>(ceil_div(a.places.slots + 1, cascade_token_threads)),
                     static_cast<unsigned>(a.params.cache.token_heads()), batch);
    return launch_kernel(cascade_score_token<T>, score, cascade_token_threads, 0, stream, a, order);
}

/// Scores of lined-up keys by the Hopper kernel.
template <int HeadDim, class T>
status launch_hopper_scores(cascade_attend_arguments<T> const& a, cascade_attend_plan const& plan, workspace scratch,
                            launch_order order, cudaStream_t stream) {
    constexpr cascade_hopper_tile tile = cascade_hopper_tile_of(HeadDim);
    if (order != launch_order::overlapping)
        return fail(errc::unsupported, "device.instructions", "90 needs a program with code for sm_90a", 90);
    batch_shape const& shape = a.shape;
    std::int32_t const pitch = cascade_offset_pitch(shape.max_queries);
    std::int32_t const tiles = ceil_div(shape.max_keys, tile.keys());
    cascade_hopper_arguments<T> h{{},
                                  {},
                                  a,
                                  region<float>(scratch, plan.offsets),
                                  pitch,
                                  tiles,
                                  tiles * shape.heads * shape.batch,
                                  region<std::int32_t>(scratch, plan.next_item)};
    T const* const keys = a.linear_keys;
    if (auto s = make_key_map(h.keys, lined_up(keys, shape), tile.keys()); !s) return s;
    if (auto s = make_row_map(h.queries, a.q, 1, tile.queries); !s) return s;
    dim3 const offsets(static_cast<unsigned>(ceil_div(pitch, cascade_offset_threads)),
                       static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.batch));
    if (auto s = launch_kernel(cascade_offsets<T>, offsets, cascade_offset_threads, 0, stream, h, order); !s) return s;
    dim3 const score(static_cast<unsigned>(smaller(h.items, plan.attend.device.multiprocessors)));
    return launch_kernel(cascade_score_sm90<T, HeadDim>, score, tile.threads(),
                         sizeof(cascade_hopper_storage<T, HeadDim>), stream, h, order);
}

/// Any other step: keys are lined up, attended to, and scored.
template <int HeadDim, class T>
status launch_lined_up(cascade_attend_arguments<T> const& a, cascade_attend_plan const& plan, workspace scratch,
                       cudaStream_t stream) {
    cascade_attend_params<T> const& p = a.params;
    batch_shape const& shape = a.shape;
    std::int32_t const rows = cascade_gather_rows_of(a.rotary.rotation.pairs(shape.head_dim));
    dim3 const gather(static_cast<unsigned>(ceil_div(shape.max_keys, rows)),
                      static_cast<unsigned>(a.key_sets + 1 + (p.rotation.empty() ? 0 : 1)),
                      static_cast<unsigned>(shape.batch));
    if (auto s = launch_kernel(cascade_gather<T>, gather, cascade_gather_threads, 0, stream, a); !s) return s;
    attend_params<T> attention = attend_part<T>(p, a.q, a.linear_keys, a.linear_values, a.lengths);
    attention.lse = a.lse;
    workspace const rest{region<char>(scratch, plan.scratch), scratch.bytes - plan.scratch};
    if (auto s = launch<HeadDim>(attention, plan.attend, rest, stream); !s) return s;
    if (!p.takes_scores()) return {};
    launch_order order{};
    if (auto s = order_of_followers(plan.attend.device.instructions, order); !s) return s;
    if (plan.score_path == attend_path::sm90) {
        if (auto s = launch_hopper_scores<HeadDim>(a, plan, scratch, order, stream); !s) return s;
    } else {
        constexpr cascade_score_tile tile = cascade_score_tile_of(HeadDim);
        dim3 const score(static_cast<unsigned>(ceil_div(shape.max_keys, tile.keys())),
                         static_cast<unsigned>(shape.heads / a.heads_per_block), static_cast<unsigned>(shape.batch));
        auto const scored = launch_kernel(cascade_score<T, HeadDim>, score, tile.threads(),
                                          sizeof(cascade_score_storage<T, HeadDim>), stream, a);
        if (!scored) return scored;
    }
    return launch_reduce(a, order, stream);
}

}  // namespace detail

/// Runs a plan with the kernels of one head dimension. Allocates nothing, synchronises nothing, may be captured in a
/// graph; counters, rows and sequences may change between replays.
template <int HeadDim, class T>
status launch(cascade_attend_params<T> const& p, cascade_attend_plan const& plan, workspace scratch,
              cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (!plan.same_layout(cascade_plan_of(p, plan.attend.device)))
        return fail(errc::wrong_plan, "plan", "was made for other params", plan.attend.shape.max_queries);
    batch_shape const shape = p.shape();
    if (shape.head_dim != HeadDim)
        return fail(errc::wrong_plan, "queries.extent[3]", "must be the instance's head_dim", shape.head_dim);
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    if (shape.batch == 0 || shape.max_queries == 0) return {};

    cascade_attend_arguments<T> a{};
    a.params = p;
    a.shape = shape;
    a.rotary = rotary_arguments_of(p.rotation, shape.head_dim);
    a.linear_keys = region<T>(scratch, plan.keys);
    a.linear_values = region<T>(scratch, plan.values);
    a.lengths = region<std::int32_t>(scratch, plan.lengths);
    a.sums = region<float>(scratch, plan.sums);
    a.q = p.queries;
    if (!p.rotation.empty()) {
        auto const& extent = p.queries.extent;
        a.turned_queries = region<T>(scratch, plan.queries);
        a.q = packed_view<T const>(a.turned_queries, {extent[0], extent[1], extent[2], extent[3]});
    }
    a.lse = p.lse;
    if (p.takes_scores() && p.lse.empty())
        a.lse = base2_lse{packed_view(region<float>(scratch, plan.lse),
                                      {p.queries.extent[0], p.queries.extent[1], p.queries.extent[2]})};
    a.log2_beta = std::log2(p.scorer.beta);
    // Heads have positions of their own where they keep tokens of their own and rotate by their indices.
    bool const own = p.positions == cascade_positions::original && p.cache.heads == cascade_heads::per_kv_head &&
                     !p.rotation.empty();
    a.key_sets = own ? shape.kv_heads : 1;
    a.set_heads = fast_divider(own ? 1 : shape.kv_heads);
    a.kv_heads = fast_divider(shape.kv_heads);
    a.heads = fast_divider(shape.heads);
    a.heads_per_block = cascade_score_heads(shape.max_queries, shape.group());

    return plan.segments > 0 ? detail::launch_segments<HeadDim>(a, plan, scratch, stream)
                             : detail::launch_lined_up<HeadDim>(a, plan, scratch, stream);
}

/// Runs a plan with any of the default instances: head_dim in supported_head_dims.
template <class T>
status launch(cascade_attend_params<T> const& p, cascade_attend_plan const& plan, workspace scratch,
              cudaStream_t stream) {
    if (!plan) return plan.why;
    return dispatch(supported_head_dims{}, static_cast<int>(p.queries.extent[3]), "queries.extent[3]",
                    [&](auto head_dim) { return launch<decltype(head_dim)::value>(p, plan, scratch, stream); });
}

/// One kernel for a token, two for few, else three and one for a rotated copy; each row of the cache is written once at most. Sequences that take tokens may be no two alike.
template <class T>
status launch(cascade_insert_params<T> const& p, cascade_insert_plan const& plan, workspace scratch,
              cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (plan.workspace_bytes != cascade_plan_of(p, device_info{}).workspace_bytes)
        return fail(errc::wrong_plan, "plan", "was made for other params", p.max_tokens());
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    if (p.batch() == 0 || p.max_tokens() == 0) return {};
    std::int32_t const moves = max_cascade_moves(p.cache.layout, p.max_tokens());
    cascade_insert_arguments<T> const a{p,
                                        p.max_tokens(),
                                        moves,
                                        region<cascade_offer>(scratch, plan.offered),
                                        region<cascade_offer>(scratch, plan.winner),
                                        region<std::int32_t>(scratch, plan.appended),
                                        region<cascade_move>(scratch, plan.moves),
                                        region<std::int32_t>(scratch, plan.move_count),
                                        region<cascade_counters>(scratch, plan.counters),
                                        region<T>(scratch, plan.staged),
                                        rotary_arguments_of(p.rotation, p.cache.head_dim),
                                        cascade_places<T>(p.cache)};
    auto const batch = static_cast<unsigned>(p.batch());
    if (p.max_tokens() == 1)
        return launch_kernel(cascade_insert_token<T>, dim3(batch), cascade_insert_token_threads, 0, stream, a);
    dim3 const decide(static_cast<unsigned>(p.cache.token_heads()), batch);
    bool const few = cascade_decide_threads_of(p.max_tokens()) == cascade_decide_threads::few;
    auto const kernel =
        few ? cascade_decide<T, cascade_decide_threads::few> : cascade_decide<T, cascade_decide_threads::many>;
    auto const threads = static_cast<int>(cascade_decide_threads_of(p.max_tokens()));
    if (auto s = launch_kernel(kernel, decide, threads, 0, stream, a); !s) return s;
    launch_order order{};
    if (auto s = order_of_followers(plan.instructions, order); !s) return s;
    bool const at_once = moves <= cascade_moves_at_once;
    dim3 const move(at_once ? 1 : static_cast<unsigned>(ceil_div(moves, cascade_move_rows_of_block)),
                    static_cast<unsigned>(p.cache.kv_heads), batch);
    auto const pass = [&](auto kernel) {
        return launch_kernel(kernel, move, cascade_move_threads, 0, stream, a, order);
    };
    if (!at_once)
        if (auto s = pass(cascade_move_rows<T, cascade_pass::stage>); !s) return s;
    auto const placed =
        at_once ? pass(cascade_move_rows<T, cascade_pass::at_once>) : pass(cascade_move_rows<T, cascade_pass::place>);
    if (!placed || at_once || !p.cache.has_rotated()) return placed;
    std::int32_t const rows = cascade_gather_rows_of(a.rotary.rotation.pairs(p.cache.head_dim));
    dim3 const turn(static_cast<unsigned>(ceil_div(moves, rows)), move.y, batch);
    return launch_kernel(cascade_turn_rows<T>, turn, cascade_move_threads, 0, stream, a, order);
}

/// Chunk after chunk on one stream with the kernels of one head dimension: attend, score where tokens fight, insert.
template <int HeadDim, class T>
status launch(cascade_prefill_params<T> const& p, cascade_prefill_plan const& plan, workspace scratch,
              cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if (plan.workspace_bytes != cascade_plan_of(p, plan.device).workspace_bytes)
        return fail(errc::wrong_plan, "plan", "was made for other params", p.chunk);
    if (auto s = check_workspace(scratch, plan.workspace_bytes); !s) return s;
    if (p.keys.extent[0] == 0) return {};
    float* const scores = p.cache.layout.selects() ? region<float>(scratch, 0) : nullptr;
    workspace const rest{region<char>(scratch, plan.scratch), scratch.bytes - plan.scratch};
    std::int64_t const tokens = p.keys.extent[1];
    for (std::int64_t first = 0; first < tokens; first += p.chunk) {
        auto const part = attend_part(p, first, smaller<std::int64_t>(p.chunk, tokens - first), scores);
        if (auto s = launch<HeadDim>(part, cascade_plan_of(part, plan.device), rest, stream); !s) return s;
        auto const insertion = insert_part(part);
        if (auto s = launch(insertion, cascade_plan_of(insertion, plan.device), rest, stream); !s) return s;
    }
    return {};
}

/// The same with any of the default instances.
template <class T>
status launch(cascade_prefill_params<T> const& p, cascade_prefill_plan const& plan, workspace scratch,
              cudaStream_t stream) {
    if (!plan) return plan.why;
    return dispatch(supported_head_dims{}, static_cast<int>(p.queries.extent[3]), "queries.extent[3]",
                    [&](auto head_dim) { return launch<decltype(head_dim)::value>(p, plan, scratch, stream); });
}

/// Forgets the tokens of a sequence. One asynchronous memset; may be captured.
template <class T>
status cascade_reset(cascade_cache<T> const& cache, std::int32_t sequence, cudaStream_t stream) {
    if (auto s = check_sequence(cache, sequence, "sequence"); !s) return s;
    return cuda_status(cudaMemsetAsync(cache.counters(sequence), 0, sizeof(cascade_counters), stream),
                       "cudaMemsetAsync");
}

/// Forgets the tokens of a sequence and erases them.
template <class T>
status cascade_clear(cascade_cache<T> const& cache, std::int32_t sequence, cudaStream_t stream) {
    if (auto s = check_sequence(cache, sequence, "sequence"); !s) return s;
    return cuda_status(
        cudaMemsetAsync(cache.counters(sequence), 0, static_cast<std::size_t>(cache.sequence_bytes()), stream),
        "cudaMemsetAsync");
}

/// Makes sequence `to` a copy of sequence `from`: one asynchronous copy of sequence_bytes().
template <class T>
status cascade_fork(cascade_cache<T> const& cache, std::int32_t from, std::int32_t to, cudaStream_t stream) {
    if (auto s = check_sequence(cache, from, "from"); !s) return s;
    if (auto s = check_sequence(cache, to, "to"); !s) return s;
    if (from == to) return {};
    return cuda_status(cudaMemcpyAsync(cache.counters(to), cache.counters(from),
                                       static_cast<std::size_t>(cache.sequence_bytes()), cudaMemcpyDeviceToDevice,
                                       stream),
                       "cudaMemcpyAsync");
}

}  // namespace winnow
