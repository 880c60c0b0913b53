// Scales of a quantised cache of keys and values: element x stands for x * scale.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow {

/// What the elements of a quantised cache stand for: element x of a key is x * key[head], of a value x * value[head].
struct cache_scales {
    float const* key = nullptr;    ///< [heads], device pointer; null: 1
    float const* value = nullptr;  ///< [heads]; null: 1
    std::int32_t heads = 1;        ///< 1: one scale for the tensor; else the number of KV heads

    /// Scale of the keys of KV head `head`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr float of_keys(std::int32_t head) const {
        return key == nullptr ? 1.0f : key[heads > 1 ? head : 0];
    }
    /// Scale of its values.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr float of_values(std::int32_t head) const {
        return value == nullptr ? 1.0f : value[heads > 1 ? head : 0];
    }
};

}  // namespace winnow
