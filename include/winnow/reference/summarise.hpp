// Summaries of chunks of keys by plain loops: the oracle of summarise.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "winnow/core/dtype.hpp"
#include "winnow/op/summarise.hpp"
#include "winnow/reference/rows.hpp"

namespace winnow::reference {

/// Computes `p` on host pointers: checks it, then writes the summaries of all chunks that `known` leaves open.
template <class T>
status summarise(summarise_params<T> const& p) {
    if (auto s = check(p); !s) return s;
    batch_shape const shape = p.shape();
    std::int32_t const sinks = p.method.window.sinks;
    auto const channels = static_cast<std::size_t>(shape.head_dim);
    bool const mean = p.method.scorer == scorer::mean_key;
    for (std::int32_t b = 0; b < shape.batch; ++b) {
        std::int32_t const row = p.summary.row_of(b);
        std::int32_t const keys = request_of(shape, {}, p.kv, page_size_of(p.keys, p.kv), causal{}, b).keys;
        std::int32_t const known = p.known == nullptr ? 0 : larger(p.known[b], 0);
        if (row < 0) continue;
        for (std::int32_t head = 0; head < shape.kv_heads; ++head) {
            row_cache<T> cache(p.keys, tensor_view<T const, 4>{}, p.kv, b, head, keys);
            for (std::int32_t stage = 0; stage < p.method.stage_count; ++stage) {
                summary_level const level = summary_level_of(p.method, shape.kv_heads, shape.head_dim, p.summary.rows,
                                                             p.summary.max_keys, stage);
                std::int32_t const size = level.chunk;
                for (std::int32_t c = whole_chunks(known, sinks, size); c < whole_chunks(keys, sinks, size); ++c) {
                    T* const to = p.summary.data + level.offset_of(row, c, head);
                    std::vector<float> sum(channels, 0.0f), low(channels, std::numeric_limits<float>::quiet_NaN());
                    std::vector<float> high = low;
                    for (std::int32_t j = sinks + c * size; j < sinks + (c + 1) * size; ++j) {
                        float const* const key = cache.key(cache.fetch(j));
                        for (std::size_t i = 0; i < channels; ++i) {
                            sum[i] += key[i];
                            low[i] = std::fmin(low[i], key[i]);  // NaN gives way to any number
                            high[i] = std::fmax(high[i], key[i]);
                        }
                    }
                    for (std::size_t i = 0; i < channels; ++i) {
                        to[i] = from_float<T>(mean ? sum[i] / static_cast<float>(size) : high[i]);
                        if (!mean) to[channels + i] = from_float<T>(low[i]);
                    }
                }
            }
        }
    }
    return {};
}

}  // namespace winnow::reference
