// Softmax attention over sinks + sliding window + a list of key blocks; without limits it is dense attention.
//
//   output_i = sum_j p_ij values_j,  p_ij = exp(s_ij - lse_i),  s_ij = cap(scale queries_i . keys_j),  j visible to i,
//   exp(lse_i) = sum_j exp(s_ij), and exp(sink_logits_h) more where they are given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "winnow/core/attend_params.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/partial.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/tensor_view.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/check.hpp"
#include "winnow/op/check_rope.hpp"
#include "winnow/policy/attend_policy.hpp"

namespace winnow {

/// Limit of tail_step: a position and a step beyond it still fit int32.
inline constexpr std::int32_t max_tail_step = 1 << 20;

/// Outcome of planning: a status, the workspace it takes, and how the launch will run. Copyable, holds no pointer.
struct attend_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< bytes `launch` needs, aligned to workspace_alignment
    attend_schedule schedule;         ///< tiles, packing and splits
    batch_shape shape{};              ///< the extents it was made for
    device_info device;               ///< the device it was made for
    std::size_t partial_output = 0;   ///< offset of fp32 [batch, row, head, split, channel] when splits > 1
    std::size_t partial_lse = 0;      ///< offset of fp32 [batch, row, head, split]
    std::size_t arrived = 0;          ///< offset of int32 [batch, counters()] where the kernel merges by itself
    std::size_t next_tile = 0;        ///< offset of the int32 from which blocks draw their tiles (sm90)

    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
    /// True if the last block of a tile merges its splits: no second kernel.
    [[nodiscard]] constexpr bool merges_itself() const {
        return schedule.rows == attend_rows::decode && schedule.splits > 1;
    }
    /// Counters of one request, which are zero when its blocks begin to arrive: one a tile, and one for all tiles.
    [[nodiscard]] constexpr std::int32_t counters() const {
        return merges_itself() ? schedule.query_tiles * shape.kv_heads * schedule.head_groups + 1 : 0;
    }
    /// Bytes of them; they come first in the workspace.
    [[nodiscard]] constexpr std::size_t counter_bytes() const {
        return static_cast<std::size_t>(counters()) * static_cast<std::size_t>(shape.batch) * sizeof(std::int32_t);
    }
    /// True for plans that lay out the same launch.
    [[nodiscard]] constexpr bool same_layout(attend_plan const& other) const {
        return shape == other.shape && schedule == other.schedule && workspace_bytes == other.workspace_bytes;
    }
};

/// The same call over another cache. All fields are named, in their order: with a new one this does not compile until it
/// has its place here.
template <class C, class T, class KV>
constexpr attend_params<T, C> over_cache(attend_params<T, KV> const& p, tensor_view<C const, 4> const& keys,
                                         tensor_view<C const, 4> const& values, cache_scales const& scales) {
    auto const& [queries, old_keys, old_values, kv, rows, selection, window, output, lse, scale, soft_cap, mask, range,
                 tail, tail_step, rotation, sink_logits, old_scales] = p;
    return {queries, keys,     values, kv,    rows, selection, window,   output,      lse,
            scale,   soft_cap, mask,   range, tail, tail_step, rotation, sink_logits, scales};
}

/// The same call with an fp8 cache passed off as T's, see stored_view; the scales stay behind.
template <class T>
attend_params<T> as_stored(attend_params<T, fp8_e4m3> const& p) {
    return over_cache(p, stored_view<T>(p.keys), stored_view<T>(p.values), {});
}

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(attend_params<T> const& p) {
    if (p.scales.key != nullptr || p.scales.value != nullptr)
        return fail(errc::unsupported, "scales", "are for fp8 keys and values", p.scales.heads);
    if (auto s = check_queries_and_keys(p.queries, p.rows, p.keys, p.kv); !s) return s;
    if (auto s = check_channels(p.values, "values.data", "values.stride[3]", "values.stride"); !s) return s;
    for (int axis = 0; axis < 4; ++axis) {
        if (p.values.extent[axis] != p.keys.extent[axis])
            return fail(errc::bad_extent, "values.extent", "must equal keys.extent", p.values.extent[axis]);
        if (p.output.extent[axis] != p.queries.extent[axis])
            return fail(errc::bad_extent, "output.extent", "must equal queries.extent", p.output.extent[axis]);
    }
    if (auto s = check_channels(p.output, "output.data", "output.stride[3]", "output.stride"); !s) return s;
    if (auto s = check_distinct(p.output, "output.stride"); !s) return s;
    if (!p.lse.empty()) {
        for (int axis = 0; axis < 3; ++axis)
            if (p.lse.values.extent[axis] != p.queries.extent[axis])
                return fail(errc::bad_extent, "lse.values.extent", "must equal the first three of queries",
                            p.lse.values.extent[axis]);
        if (auto s = check_pointer(p.lse.values.data, true, "lse.values.data"); !s) return s;
        if (auto s = check_distinct(p.lse.values, "lse.values.stride"); !s) return s;
        if (auto s = check_enum(p.lse.base, lse_base::two, "lse.base"); !s) return s;
    }
    constexpr float most = std::numeric_limits<float>::max() / 2;  // kernels multiply by log2(e)
    if (!(p.scale > 0 && p.scale <= most))
        return fail(errc::out_of_range, "scale", "must be > 0 and < 2^127", reported(p.scale));
    constexpr float least = std::numeric_limits<float>::min();  // and divide by the cap
    if (!(p.soft_cap == 0 || (p.soft_cap >= least && p.soft_cap <= most)))
        return fail(errc::out_of_range, "soft_cap", "must be 0, or >= 2^-126 and < 2^127", reported(p.soft_cap));
    if (auto s = check_pointer(p.sink_logits, false, "sink_logits"); !s) return s;
    if (auto s = check_window(p.window, p.mask, p.shape().max_queries); !s) return s;
    if (auto s = check_enum(p.range, row_range::tail_only, "range"); !s) return s;
    if (p.tail < 0) return fail(errc::out_of_range, "tail", "must be >= 0", p.tail);
    if (p.range == row_range::all && p.tail > 0)
        return fail(errc::out_of_range, "tail", "must be 0 where range is all", p.tail);
    if (p.tail_step < 1 || p.tail_step > max_tail_step)
        return fail(errc::out_of_range, "tail_step", "must lie in [1, 2^20]", p.tail_step);
    if (auto s = check_rope(p.rotation, p.queries.extent[3]); !s) return s;
    if (!p.rotation.empty() && p.mask.kind != mask_kind::causal)
        return fail(errc::unsupported, "mask.kind", "must be causal with a rotation", static_cast<int>(p.mask.kind));
    bool const listed =
        !p.selection.empty() || p.selection.blocks.data != nullptr || p.selection.counts.data != nullptr;
    return listed ? check_selection(p.selection, p.shape()) : status{};
}

/// True if TMA can address a tensor [outer, token, head, channel]: strides that are positive, and below 2^40 bytes.
template <class T>
constexpr bool bulk_addressable(tensor_view<T, 4> const& view) {
    for (int axis = 0; axis < 3; ++axis) {
        std::int64_t const stride = view.stride[axis];
        if (view.extent[axis] > 1 && (stride <= 0 || stride >= (std::int64_t{1} << 40) / std::int64_t{sizeof(T)}))
            return false;
    }
    return true;
}

/// Elements between two heads, as maps of atoms see them: every outer entry's heads lie in one row of heads.
template <class T>
constexpr std::int64_t head_step(tensor_view<T, 4> const& view) {
    return view.extent[2] > 1 ? view.stride[2] : view.extent[0] > 1 ? view.stride[0] : 8;
}
/// Heads between two outer entries, 0 if there is but one.
template <class T>
constexpr std::int64_t heads_per_outer(tensor_view<T, 4> const& view) {
    return view.extent[0] > 1 ? view.stride[0] / head_step(view) : 0;
}

/// True if maps of atoms can hold a tensor of keys or values: outer entries a whole number of heads apart.
template <class T>
constexpr bool atom_addressable(tensor_view<T, 4> const& view) {
    if (!bulk_addressable(view) || view.extent[3] == 64) return false;  // one panel: boxes are atoms
    if (view.extent[0] > 1 && view.stride[0] % head_step(view) != 0) return false;
    std::int64_t const most = (std::int64_t{1} << 40) / std::int64_t{sizeof(T)};
    return view.stride[1] * 8 < most &&
           larger<std::int64_t>(view.extent[0], 1) * heads_per_outer(view) + view.extent[2] <
               std::numeric_limits<std::int32_t>::max();
}

/// Path and loader that serve a call best: TMA where pages hold whole granules, by atoms where granules begin at multiples
/// of 8 rows, which packed requests need not.
template <class T>
constexpr attend_target attend_target_of(attend_params<T> const& p, device_info const& device) {
    bool const turned = !p.rotation.empty();
    bool const hopper = device.compute_capability == 90 && device.instructions >= 90 && !turned;
    bool const paged = p.kv.layout == kv_layout::block_table || p.kv.layout == kv_layout::page_list;
    bool const boxes = (!paged || p.keys.extent[1] % 8 == 0) && bulk_addressable(p.keys) && bulk_addressable(p.values);
    bool const atoms = boxes && p.kv.layout != kv_layout::ragged && p.keys.extent[1] >= 8 && atom_addressable(p.keys) &&
                       atom_addressable(p.values);
    return {hopper ? attend_path::sm90 : attend_path::sm80,
            atoms   ? key_loader::atoms
            : boxes ? key_loader::boxes
                    : key_loader::rows,
            device.shared_memory_per_block, device.multiprocessors,
            turned ? key_rotation::streaming : key_rotation::none};
}

/// Checks that a schedule's tiles can be numbered, and gives the counter from which blocks draw them its place.
constexpr status lay_out_tiles(attend_plan& plan) {
    std::int64_t const tiles =
        std::int64_t{plan.schedule.query_tiles} * plan.shape.kv_heads * plan.schedule.head_groups;
    constexpr std::int64_t most_tiles = std::numeric_limits<std::int32_t>::max();
    if (tiles > most_tiles)  // the grid's first dimension
        return fail(errc::unsupported, "queries.extent", "row tiles of all heads must be < 2^31", tiles);
    if (plan.schedule.path == attend_path::sm90) {
        // Blocks draw from all requests' tiles, and a block may draw once more than there are.
        std::int64_t const pieces = std::int64_t{plan.schedule.splits} * plan.shape.batch;
        if (tiles * larger<std::int64_t>(pieces, 1) > most_tiles - plan.device.multiprocessors)
            return fail(errc::unsupported, "queries.extent", "row tiles of all requests must be < 2^31", tiles);
        workspace_layout layout{plan.workspace_bytes};
        plan.next_tile = layout.take(1, sizeof(std::int32_t));
        plan.workspace_bytes = layout.bytes;
    }
    return {};
}

/// Tiles, splits and workspace of valid params. Reads extents only, so pointers may still be missing.
template <class T>
constexpr attend_plan attend_plan_of(attend_params<T> const& p, device_info const& device) {
    attend_plan result;
    result.device = device;
    if (device.compute_capability < 80) {
        result.why = fail(errc::unsupported, "device.compute_capability", "must be >= 80", device.compute_capability);
        return result;
    }
    result.shape = p.shape();
    result.schedule =
        attend_schedule_of(result.shape, p.selection, p.window,
                           p.range == row_range::tail_only ? p.tail + p.tail_step - 1 : 0, attend_target_of(p, device));
    if (result.why = lay_out_tiles(result); !result.why) return result;
    if (result.schedule.splits > 1) {
        auto const rows = static_cast<std::size_t>(result.shape.batch) * result.schedule.max_rows * result.shape.heads *
                          result.schedule.splits;
        workspace_layout layout{result.workspace_bytes};
        result.arrived = layout.take(result.counter_bytes(), 1);
        result.partial_output = layout.take(rows * result.shape.head_dim, sizeof(float));
        result.partial_lse = layout.take(rows, sizeof(float));
        result.workspace_bytes = layout.bytes;
    }
    return result;
}

/// The same for an fp8 cache.
template <class T>
status check(attend_params<T, fp8_e4m3> const& p) {
    if (auto s = check(as_stored(p)); !s) return s;
    if (auto s = check_channels(p.keys, "keys.data", "keys.stride[3]", "keys.stride"); !s) return s;
    if (auto s = check_channels(p.values, "values.data", "values.stride[3]", "values.stride"); !s) return s;
    if (!p.rotation.empty()) return fail(errc::unsupported, "rotation", "must be empty with fp8 keys", 1);
    return check_scales(p.scales, p.keys.extent[2]);
}

/// Tiles, splits and workspace of valid params with an fp8 cache: those of decode, or none.
template <class T>
attend_plan attend_plan_of(attend_params<T, fp8_e4m3> const& p, device_info const& device) {
    attend_plan result = attend_plan_of(as_stored(p), device);
    if (result.why && result.schedule.rows != attend_rows::decode)
        result.why = fail(errc::unsupported, "queries.extent[1]", "at most 16 rows may share fp8 keys",
                          result.shape.max_queries);
    return result;
}

/// Plan of a call with an fp8 cache: decode, up to 16 rows (tokens times heads of a group) that share their keys.
template <class T>
attend_plan plan(attend_params<T, fp8_e4m3> const& p, device_info const& device) {
    attend_plan result;
    result.why = check(p);
    return result.why ? attend_plan_of(p, device) : result;
}

/// Chooses tiles and splits, and counts the workspace. Pure host arithmetic: no CUDA call, no pointer is read.
template <class T>
constexpr attend_plan plan(attend_params<T> const& p, device_info const& device) {
    attend_plan result;
    result.why = check(p);
    return result.why ? attend_plan_of(p, device) : result;
}

}  // namespace winnow
