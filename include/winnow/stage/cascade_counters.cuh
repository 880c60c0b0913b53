// Copies a sequence's counters.
#pragma once

#include <cstdint>

#include "winnow/core/cascade_layout.hpp"
#include "winnow/core/config.hpp"

namespace winnow {

/// One thread a word: a struct's copy by one thread would be eighteen loads in a row. The caller's barrier follows.
WINNOW_DEVICE void load_counters(cascade_counters& to, cascade_counters const* from) {
    constexpr unsigned words = sizeof(cascade_counters) / 4;
    if (threadIdx.x < words)
        reinterpret_cast<std::int32_t*>(&to)[threadIdx.x] = reinterpret_cast<std::int32_t const*>(from)[threadIdx.x];
}

}  // namespace winnow
