// Appending rows to a cache, with the rotation in double: the oracle of append.
//
//   cache[slot / page_size, slot % page_size] = rotated(row, position),   angle = position * theta^(-2 i / rotary_dim)
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "winnow/core/dtype.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/op/append.hpp"

namespace winnow::reference {

/// Unrounded results of an append; rows that go nowhere are there as well.
struct append_result {
    std::vector<double> keys;     ///< [row, kv_head, channel], packed
    std::vector<double> queries;  ///< [row, head, channel], packed; empty without queries
};

/// Rotates the channels of one head in place.
inline void rotate(rope const& r, std::int32_t position, std::vector<double>& channels) {
    std::int32_t const pairs = r.pairs(static_cast<std::int32_t>(channels.size()));
    for (std::int32_t i = 0; i < pairs; ++i) {
        double const frequency = r.inverse_frequency != nullptr
                                     ? static_cast<double>(r.inverse_frequency[i])
                                     : std::pow(static_cast<double>(r.theta), -static_cast<double>(i) / pairs);
        double const angle = position * frequency, cosine = std::cos(angle), sine = std::sin(angle);
        channel_pair const at = channels_of(r.pairing, pairs, i);
        double& first = channels[static_cast<std::size_t>(at.first)];
        double& second = channels[static_cast<std::size_t>(at.second)];
        double const x = first, y = second;
        first = x * cosine - y * sine;
        second = x * sine + y * cosine;
    }
}

/// Computes `p` on host pointers: checks it, then writes the caches and the queries, and unrounded results to `exact`
/// if given (of keys and queries before they are quantised). Where two rows have one slot, the later one stays. An fp8
/// cache takes x / scale of what a cache of T would hold.
template <class T, class C>
status append(append_params<T, C> const& p, append_result* exact = nullptr) {
    if (auto s = check(p); !s) return s;
    if (exact) *exact = {};
    auto const store = [](auto& to, T x, float scale) {
        if constexpr (std::is_same_v<std::remove_reference_t<decltype(to)>, T>)
            to = x;
        else
            to = from_float<C>(to_float(x) / scale);
    };
    // One head; without a rotation its bits stay what they are, NaN included.
    auto const move = [&](T const* from, auto* to, float scale, std::int64_t channels, bool rotates, std::int64_t row,
                          std::vector<double>* unrounded) {
        std::vector<double> values(static_cast<std::size_t>(channels));
        for (std::size_t c = 0; c < values.size(); ++c) values[c] = static_cast<double>(to_float(from[c]));
        if (rotates) rotate(p.rotation, p.position[row], values);
        std::int64_t const turned = rotates ? 2 * p.rotation.pairs(static_cast<std::int32_t>(channels)) : 0;
        for (std::int64_t c = 0; to != nullptr && c < channels; ++c)
            store(to[c], c < turned ? from_float<T>(static_cast<float>(values[static_cast<std::size_t>(c)])) : from[c],
                  scale);
        if (unrounded) unrounded->insert(unrounded->end(), values.begin(), values.end());
    };
    bool const rotates = !p.rotation.empty();
    for (std::int64_t row = 0; row < p.keys.extent[0]; ++row) {
        cache_place const at = place_of(p.slot[row], p.key_cache.extent[0], p.key_cache.extent[1]);
        for (std::int64_t head = 0; head < p.keys.extent[1]; ++head) {
            C* const key = at.page < 0 ? nullptr : p.key_cache.data + p.key_cache.offset(at.page, at.token, head);
            move(p.keys.data + p.keys.offset(row, head), key, p.scales.of_keys(static_cast<std::int32_t>(head)),
                 p.keys.extent[2], rotates, row, exact ? &exact->keys : nullptr);
            if (!p.takes_values() || at.page < 0) continue;
            move(p.values.data + p.values.offset(row, head),
                 p.value_cache.data + p.value_cache.offset(at.page, at.token, head),
                 p.scales.of_values(static_cast<std::int32_t>(head)), p.values.extent[2], false, row, nullptr);
        }
        for (std::int64_t head = 0; p.takes_queries() && head < p.queries.extent[1]; ++head) {
            T* const query = p.queries.data + p.queries.offset(row, head);
            move(query, query, 1.0f, p.queries.extent[2], true, row, exact ? &exact->queries : nullptr);
        }
    }
    return {};
}

}  // namespace winnow::reference
