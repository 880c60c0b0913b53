// Position in a ring of stages: which stage comes next, and which phase of its barriers to wait for.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow {

/// Item `index` of a ring of `Stages` slots. Every round a slot is filled once and emptied once, so its `full` barrier ends
/// phase `parity()` when the item is there, and its `empty` barrier ended phase `free_parity()` when the slot was free
/// for it; in the first round a fresh barrier says so at once.
template <int Stages>
struct ring_position {
    std::uint32_t index;  ///< below 2^32 items in all, which is hours of steps

    WINNOW_HOST_DEVICE constexpr std::uint32_t stage() const { return index % Stages; }
    WINNOW_HOST_DEVICE constexpr std::uint32_t parity() const { return index / Stages % 2; }
    WINNOW_HOST_DEVICE constexpr std::uint32_t free_parity() const { return parity() ^ 1; }
};

}  // namespace winnow
