// Delta correction: sparse prefill whose rows are corrected by what sparse attention missed at every gamma-th row.
//
//   output_i = S_i + (X_a - S_a),  a = the last row up to i at a multiple of gamma;  output_i = X_i at anchors and in the tail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/delta_params.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/op/check.hpp"
#include "winnow/policy/delta_policy.hpp"

namespace winnow {

/// Outcome of planning.
struct delta_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< bytes `launch` needs, aligned to workspace_alignment
    attend_plan sparse;               ///< the corrected rows
    attend_plan tail;                 ///< the dense rows at the end
    attend_plan other;                ///< anchors: the keys that the sparse call omits, or all
    attend_plan seen;                 ///< anchors: the keys that the sparse call sees; not for recompute
    std::size_t other_output = 0;     ///< offset of fp32 [batch, anchor, head, split, channel]
    std::size_t other_lse = 0;        ///< offset of fp32 [batch, anchor, head, split]
    std::size_t seen_output = 0;      ///< the same of `seen`
    std::size_t seen_lse = 0;         ///< the same of `seen`
    std::size_t scratch = 0;          ///< offset of what the four use in turn

    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
    /// True for plans that lay out the same launches.
    [[nodiscard]] constexpr bool same_layout(delta_plan const& o) const {
        return workspace_bytes == o.workspace_bytes && scratch == o.scratch && other_output == o.other_output &&
               seen_output == o.seen_output && sparse.same_layout(o.sparse) && tail.same_layout(o.tail) &&
               other.same_layout(o.other) && seen.same_layout(o.seen);
    }
};

/// The sparse rows: everything before the tail.
template <class T>
constexpr attend_params<T> sparse_part(delta_params<T> const& p) {
    attend_params<T> part = p.base;
    if (p.options.last_chunk) {
        part.range = row_range::without_tail;
        part.tail = p.options.dense_tail;
        part.tail_step = p.options.gamma;
    }
    return part;
}

/// Dense attention of the same rows.
template <class T>
constexpr attend_params<T> dense_part(delta_params<T> const& p) {
    attend_params<T> part = sparse_part(p);
    part.selection = {};
    part.window = {};
    return part;
}

/// The dense rows at the end of each request; only of a last chunk.
template <class T>
constexpr attend_params<T> tail_part(delta_params<T> const& p) {
    attend_params<T> part = dense_part(p);
    part.range = row_range::tail_only;
    return part;
}

/// True if there can be a tail.
constexpr bool has_tail(delta_options const& o) { return o.last_chunk && (o.dense_tail > 0 || o.gamma > 1); }

/// Anchors of the sparse rows, over the keys that they see.
template <class T>
constexpr attend_params<T> seen_part(delta_params<T> const& p) {
    attend_params<T> part = sparse_part(p);
    part.range = row_range::anchors;
    return part;
}

/// What the second pass over the anchors attends to: what the first omits where that is one run of keys and the form asks
/// for it, otherwise everything.
template <class T>
constexpr attended_keys others_of(delta_params<T> const& p) {
    bool const asked = p.options.form == delta_form::complement || p.options.form == delta_form::mass_preserving;
    return asked && p.base.selection.empty() ? attended_keys::omitted : attended_keys::seen;
}

/// Anchors of the sparse rows, over what others_of says.
template <class T>
constexpr attend_params<T> other_part(delta_params<T> const& p) {
    attend_params<T> part = seen_part(p);
    part.selection = {};
    if (others_of(p) == attended_keys::seen) part.window = {};
    return part;
}

/// Names of the options where a call reports them.
struct delta_fields {
    char const* gamma = "options.gamma";            ///< of delta_options::gamma
    char const* dense_tail = "options.dense_tail";  ///< of delta_options::dense_tail
    char const* form = "options.form";              ///< of delta_options::form
};

/// Validates the options and the mask that they need.
constexpr status check_delta(delta_options const& o, attention_mask const& mask, char const* mask_field,
                             delta_fields const& fields = {}) {
    if (o.gamma < 1 || o.gamma > max_tail_step)
        return fail(errc::out_of_range, fields.gamma, "must lie in [1, 2^20]", o.gamma);
    if (o.dense_tail < 0 || o.dense_tail > max_tokens)
        return fail(errc::out_of_range, fields.dense_tail, "must lie in [0, max_tokens]", o.dense_tail);
    if (auto s = check_enum(o.form, delta_form::recompute, fields.form); !s) return s;
    if (mask.kind != mask_kind::causal)
        return fail(errc::unsupported, mask_field, "must be causal", static_cast<int>(mask.kind));
    return {};
}

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(delta_params<T> const& p) {
    if (auto s = check(p.base); !s) return s;
    if (p.base.range != row_range::all)
        return fail(errc::unsupported, "base.range", "must be all", static_cast<int>(p.base.range));
    if (!p.base.rotation.empty())
        return fail(errc::unsupported, "base.rotation", "must be empty: anchors see keys as they are cached", 1);
    if (p.base.sink_logits != nullptr)
        return fail(errc::unsupported, "base.sink_logits", "must be null: corrections count keys alone", 1);
    return check_delta(p.options, p.base.mask, "base.mask");
}

/// Tiles of one pass over the anchors. Reads extents only.
template <class T>
constexpr attend_plan anchor_plan_of(attend_params<T> const& p, attended_keys attended, std::int32_t gamma,
                                     device_info const& device) {
    attend_plan result;
    result.device = device;
    result.shape = p.shape();
    result.schedule =
        anchor_schedule_of(result.shape, p.selection, p.window, attended, gamma, attend_target_of(p, device));
    result.why = lay_out_tiles(result);
    return result;
}

/// Layout of valid params: results of the anchors, then what the passes need one after the other. Reads extents only.
template <class T>
constexpr delta_plan delta_plan_of(delta_params<T> const& p, device_info const& device) {
    delta_plan result;
    result.sparse = attend_plan_of(sparse_part(p), device);
    if (result.why = result.sparse.why; !result.why) return result;
    if (has_tail(p.options)) result.tail = attend_plan_of(tail_part(p), device);
    if (result.why = result.tail.why; !result.why) return result;
    result.other = anchor_plan_of(other_part(p), others_of(p), p.options.gamma, device);
    if (result.why = result.other.why; !result.why) return result;
    bool const two = p.options.form != delta_form::recompute;
    if (two) result.seen = anchor_plan_of(seen_part(p), attended_keys::seen, p.options.gamma, device);
    if (result.why = result.seen.why; !result.why) return result;

    batch_shape const shape = p.shape();
    std::size_t const anchors = static_cast<std::size_t>(shape.batch) *
                                static_cast<std::size_t>(most_anchors(shape.max_queries, p.options.gamma)) *
                                static_cast<std::size_t>(shape.heads);
    workspace_layout layout;
    std::size_t const others = anchors * static_cast<std::size_t>(result.other.schedule.splits);
    result.other_output = layout.take(others * static_cast<std::size_t>(shape.head_dim), sizeof(float));
    result.other_lse = layout.take(others, sizeof(float));
    std::size_t const seen = two ? anchors * static_cast<std::size_t>(result.seen.schedule.splits) : 0;
    result.seen_output = layout.take(seen * static_cast<std::size_t>(shape.head_dim), sizeof(float));
    result.seen_lse = layout.take(seen, sizeof(float));
    result.scratch = layout.bytes;
    result.workspace_bytes = layout.bytes + larger(larger(result.sparse.workspace_bytes, result.tail.workspace_bytes),
                                                   larger(result.other.workspace_bytes, result.seen.workspace_bytes));
    return result;
}

/// Lays out all passes and counts the workspace. Pure host arithmetic: no CUDA call, no tensor is read.
template <class T>
constexpr delta_plan plan(delta_params<T> const& p, device_info const& device) {
    delta_plan result;
    result.why = check(p);
    return result.why ? delta_plan_of(p, device) : result;
}

}  // namespace winnow
