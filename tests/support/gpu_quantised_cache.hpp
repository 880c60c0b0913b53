// An fp8 cache of an input in both memories: for the oracle, and for the device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "support/gpu_device.hpp"
#include "support/quantised_cache.hpp"

namespace winnow::testing {

/// Host and device copy of a quantised cache, which nothing may write.
template <class T>
struct cache_copy {
    quantised_cache<T> host;
    device_memory keys, values, key_scale, value_scale;

    /// Keys of KV head i stand for 4^i / 2 of their elements: with integers every score stays exact, and lists that KV
    /// heads share are others without the scales.
    cache_copy(attend_input<T>& in, std::int32_t scales, float first = 0.5f, float step = 4)
        : cache_copy(quantised_cache<T>(in.params(), scales, first, 1.7f, step)) {}
    explicit cache_copy(quantised_cache<T> const& from)
        : host(from), keys(host.keys.size()), values(host.values.size()), key_scale(host.key_scale.size() * 4),
          value_scale(host.value_scale.size() * 4) {
        upload();
    }
    /// Brings the device up to date with the host.
    void upload() {
        keys.upload(host.keys.data(), host.keys.size());
        values.upload(host.values.data(), host.values.size());
        key_scale.upload(host.key_scale.data(), host.key_scale.size() * 4);
        value_scale.upload(host.value_scale.data(), host.value_scale.size() * 4);
    }
    cache_scales device_scales() const { return host.scales(key_scale.as<float>(), value_scale.as<float>()); }
    bool untouched() const {
        auto const same = [](device_memory const& memory, std::vector<fp8_e4m3> const& from) {
            auto const found = memory.download<fp8_e4m3>();
            return std::equal(found.begin(), found.end(), from.begin(), from.end(),
                              [](fp8_e4m3 a, fp8_e4m3 b) { return a.bits == b.bits; });
        };
        return same(keys, host.keys) && same(values, host.values);
    }
};

}  // namespace winnow::testing
