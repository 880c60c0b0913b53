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

namespace winnow {

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

/// Validates the options beside a call that was checked; `prefix` of the fields' names is "options".
constexpr status check_delta_options(delta_options const& o) {
    if (o.gamma < 1 || o.gamma > max_tail_step)
        return fail(errc::out_of_range, "options.gamma", "must lie in [1, 2^20]", o.gamma);
    if (o.dense_tail < 0 || o.dense_tail > max_tokens)
        return fail(errc::out_of_range, "options.dense_tail", "must lie in [0, max_tokens]", o.dense_tail);
    return check_enum(o.form, delta_form::recompute, "options.form");
}

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(delta_params<T> const& p) {
    if (auto s = check(p.base); !s) return s;
    if (p.base.mask.kind != mask_kind::causal)
        return fail(errc::unsupported, "base.mask", "must be causal", static_cast<int>(p.base.mask.kind));
    if (p.base.range != row_range::all)
        return fail(errc::unsupported, "base.range", "must be all", static_cast<int>(p.base.range));
    return check_delta_options(p.options);
}

}  // namespace winnow
