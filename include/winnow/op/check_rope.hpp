// Rules of a rotation, shared by the operators that rotate.
#pragma once

#include <cstdint>
#include <limits>

#include "winnow/core/rope.hpp"
#include "winnow/core/status.hpp"
#include "winnow/op/check.hpp"

namespace winnow {

/// A rotation of heads of `head_dim` channels; the field is called `rotation`.
constexpr status check_rope(rope const& r, std::int64_t head_dim) {
    if (auto s = check_enum(r.pairing, rope_pairing::adjacent, "rotation.pairing"); !s) return s;
    if (!(r.theta == 0 || (r.theta >= 1 && r.theta <= std::numeric_limits<float>::max())))
        return fail(errc::out_of_range, "rotation.theta", "must be 0, or >= 1 and finite", reported(r.theta));
    if (r.rotary_dim < 0 || r.rotary_dim > head_dim || r.rotary_dim % 16 != 0)
        return fail(errc::out_of_range, "rotation.rotary_dim", "must be a multiple of 16 in [0, head_dim]",
                    r.rotary_dim);
    if (!r.empty() && r.rotary_dim == 0 && head_dim % 16 != 0)
        return fail(errc::out_of_range, "rotation.rotary_dim", "0 (all channels) needs a head_dim of 16 n", head_dim);
    return check_pointer(r.inverse_frequency, false, "rotation.inverse_frequency");
}

}  // namespace winnow
