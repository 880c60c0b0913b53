// What correcting sparse attention is asked to do: the sparse call, how often a row is computed densely, and the form.
#pragma once

#include <cstdint>

#include "winnow/core/attend_params.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"

namespace winnow {

/// What the rows of a group take from their anchor a. S: sparse attention, X: dense; O, Z: attention over the keys that S
/// omits at a and their mass; T: the mass of the keys that S sees.
enum class delta_form : std::int32_t {
    complement,       ///< S_i + Z_a / (Z_a + T_a) (O_a - S_a): the same as X_a - S_a, without cancellation
    difference,       ///< S_i + (X_a - S_a) (Delta Attention, equation 6)
    mass_preserving,  ///< (Z_a O_a + T_i S_i) / (Z_a + T_i): exact if the omitted keys weigh the same for all of the group
    recompute         ///< S_i: anchors and tail alone are dense (Delta Attention, equation 5)
};

/// How much of a prefill is computed densely, and what becomes of it.
struct delta_options {
    std::int32_t gamma = 64;  ///< positions between two dense rows, >= 1; 0 where a call takes these as an option: none
    std::int32_t dense_tail = 128;             ///< last rows that are dense at least
    delta_form form = delta_form::complement;  ///< what a group takes from its anchor
    bool last_chunk = true;  ///< the rows end their prompts; otherwise there is no tail, since more chunks follow
};

/// Correction of a sparse prefill. Pointers are device pointers (for reference::, host).
///
/// Anchors are the rows at positions that gamma divides, and the first row of a request. The tail is the last dense_tail
/// rows of each request and those before them down to a multiple of gamma. Anchors and tail are dense, every other row is
/// its own sparse attention corrected by its anchor's.
template <class T>
struct delta_params {
    attend_params<T> base = {};  ///< the sparse call: window and sinks, lists, or both. Its output and lse receive the
        ///< result; mask causal, range all. lse of anchors and tail is dense attention's, of other
        ///< rows the sparse one's, or with mass_preserving that of the combined mass
    delta_options options = {};  ///< see there

    /// Extents that plans are made from.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr batch_shape shape() const { return base.shape(); }
};

}  // namespace winnow
