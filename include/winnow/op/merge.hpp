// Combines partial attention results (output, lse) over disjoint sets of keys: split-KV, cascades, context parallelism.
//
//   lse = ln sum_i exp(lse_i),   output = sum_i exp(lse_i - lse) output_i;   (0, -inf) is the identity.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/device_info.hpp"
#include "winnow/core/merge_params.hpp"
#include "winnow/core/partial.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/tensor_view.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/check.hpp"

namespace winnow {

/// Outcome of planning: nothing but a status.
struct merge_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< always 0
    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
};

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(merge_params<T> const& p) {
    if (p.outputs.extent[0] < 1)
        return fail(errc::bad_extent, "outputs.extent[0]", "must be >= 1", p.outputs.extent[0]);
    for (int axis = 0; axis < 4; ++axis)
        if (p.outputs.extent[axis] < 0 || p.outputs.extent[axis] > (std::int64_t{1} << 30))
            return fail(errc::bad_extent, "outputs.extent", "must lie in [0, 2^30]", p.outputs.extent[axis]);
    for (int axis = 0; axis < 3; ++axis) {
        if (p.lses.extent[axis] != p.outputs.extent[axis])
            return fail(errc::bad_extent, "lses.extent", "must equal the first three of outputs", p.lses.extent[axis]);
        if (p.output.extent[axis] != p.outputs.extent[axis + 1])
            return fail(errc::bad_extent, "output.extent", "must equal the last three of outputs",
                        p.output.extent[axis]);
    }
    if (p.outputs.extent[2] > 65535)
        return fail(errc::unsupported, "outputs.extent[2]", "heads must be <= 65535", p.outputs.extent[2]);
    if (p.outputs.extent[3] < 1 || p.outputs.extent[3] > 1024)
        return fail(errc::unsupported, "outputs.extent[3]", "channels must lie in [1, 1024]", p.outputs.extent[3]);
    if (p.outputs.stride[3] != 1) return fail(errc::bad_stride, "outputs.stride[3]", "must be 1", p.outputs.stride[3]);
    if (p.output.stride[2] != 1) return fail(errc::bad_stride, "output.stride[2]", "must be 1", p.output.stride[2]);
    if (auto s = check_enum(p.base, lse_base::two, "base"); !s) return s;
    if (!p.output.has_elements()) return {};
    if (auto s = check_pointer(p.outputs.data, true, "outputs.data"); !s) return s;
    if (auto s = check_pointer(p.lses.data, true, "lses.data"); !s) return s;
    if (auto s = check_pointer(p.output.data, true, "output.data"); !s) return s;
    if (auto s = check_distinct(p.output, "output.stride"); !s) return s;
    if (p.lse.data == nullptr) return {};
    for (int axis = 0; axis < 2; ++axis)
        if (p.lse.extent[axis] != p.output.extent[axis])
            return fail(errc::bad_extent, "lse.extent", "must equal the first two of output", p.lse.extent[axis]);
    if (auto s = check_pointer(p.lse.data, true, "lse.data"); !s) return s;
    return check_distinct(p.lse, "lse.stride");
}

/// Merging needs no workspace; the plan carries the check's verdict, as every operator's does.
template <class T>
constexpr merge_plan plan(merge_params<T> const& p, device_info const&) {
    return {check(p), 0};
}

}  // namespace winnow
