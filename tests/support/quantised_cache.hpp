// Keys and values of an input as an fp8 cache: the same places in memory, one byte an element, with scales.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/random_input.hpp"
#include "winnow/core/cache_scales.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow::testing {

/// The elements of a tensor, cast one by one. Rows that nothing may read hold NaN as they do in the input.
template <class T>
std::vector<fp8_e4m3> cast_to_fp8(tensor_view<T const, 4> const& from) {
    std::vector<fp8_e4m3> to(static_cast<std::size_t>(from.size()));
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = from_float<fp8_e4m3>(to_float(from.data[i]));
    return to;
}

/// Keys, values and scales in host memory. `scales`: how many of each, 0 for none; scale i is first * step^i.
template <class T>
struct quantised_cache {
    std::vector<fp8_e4m3> keys, values;
    std::vector<float> key_scale, value_scale;

    quantised_cache(attend_params<T> const& a, std::int32_t scales, float first_key, float first_value, float step)
        : keys(cast_to_fp8(a.keys)), values(cast_to_fp8(a.values)), key_scale(drawn(scales, first_key, step)),
          value_scale(drawn(scales, first_value, step)) {}

    static std::vector<float> drawn(std::int32_t count, float first, float step) {
        std::vector<float> r;
        for (std::int32_t i = 0; i < count; ++i, first *= step) r.push_back(first);
        return r;
    }
    /// `key`, `value`: where the scales lie, here or on a device.
    cache_scales scales(float const* key, float const* value) const {
        return key_scale.empty() ? cache_scales{}
                                 : cache_scales{key, value, static_cast<std::int32_t>(key_scale.size())};
    }
    cache_scales scales() const { return scales(key_scale.data(), value_scale.data()); }
    /// Element i of KV head `head` as T: what the cache stands for, if T holds it.
    T standing_for(fp8_e4m3 x, float const* scale, std::int32_t head) const {
        float const s = key_scale.empty() ? 1.0f : scale[key_scale.size() > 1 ? static_cast<std::size_t>(head) : 0];
        return from_float<T>(to_float(x) * s);
    }
};

}  // namespace winnow::testing
