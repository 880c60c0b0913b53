// What the cascade kernels share: a sequence's counters, and the rotations of a block's rows.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"
#include "winnow/policy/cascade_policy.hpp"

namespace winnow {

/// One thread a word: a struct's copy by one thread would be eighteen loads in a row. The caller's barrier follows.
WINNOW_DEVICE void load_counters(cascade_counters& to, cascade_counters const* from) {
    constexpr unsigned words = sizeof(cascade_counters) / 4;
    if (threadIdx.x < words)
        reinterpret_cast<std::int32_t*>(&to)[threadIdx.x] = reinterpret_cast<std::int32_t const*>(from)[threadIdx.x];
}

/// Rotations of the rows of one block.
struct cascade_turns {
    float2 rotation[cascade_gather_turns];      ///< [row, k, column]
    std::uint64_t turns[cascade_gather_turns];  ///< [k, column]
    std::int32_t position[cascade_gather_rows];
};

}  // namespace winnow
