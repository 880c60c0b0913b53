// Summarises the chunks of keys that were completed since the last time, one block each.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/summarise_params.hpp"
#include "winnow/tile/channel_summary.cuh"

namespace winnow {

inline constexpr int summarise_threads = 128;  // eight KV heads of 128 channels, eight channels each

template <class T>
struct summarise_arguments {
    summarise_params<T> params;
    batch_shape shape;
    fast_divider page_size;
};

/// Chunks of all stages that one launch may complete for one request.
template <class T>
WINNOW_HOST_DEVICE constexpr std::int64_t new_chunks_of(summarise_params<T> const& p) {
    std::int64_t all = 0;
    for (std::int32_t i = 0; i < p.method.stage_count; ++i) all += p.new_chunks(i);
    return all;
}

/// The summary of keys [left, left + size): every key of eight channels in turn.
template <class Summary, class T>
WINNOW_DEVICE void summarise_channels(summarise_arguments<T> const& a, std::int32_t b, std::int32_t left,
                                      std::int32_t size, std::int32_t head, std::int32_t channel, T* to) {
    summarise_params<T> const& p = a.params;
    Summary of;
#pragma unroll 4
    for (std::int32_t key = left; key < left + size; ++key) {
        token_location const where = locate(p.kv, a.page_size, p.keys.extent[0], b, key);
        uint4 v = make_uint4(0, 0, 0, 0);  // bad pages read as zeros
        if (where.outer >= 0)
            v = *reinterpret_cast<uint4 const*>(p.keys.data + p.keys.offset(where.outer, where.token, head) + channel);
        of.add(v);
    }
    WINNOW_UNROLL
    for (int part = 0; part < Summary::parts; ++part)
        *reinterpret_cast<uint4*>(to + part * a.shape.head_dim + channel) = of.value(part, size);
}

template <class T>
__global__ void __launch_bounds__(summarise_threads)
    summarise_chunks(summarise_arguments<T> const __grid_constant__ a) {
    summarise_params<T> const& p = a.params;
    std::int32_t const b = blockIdx.y, sinks = p.method.window.sinks, row = p.summary.row_of(b);
    std::int32_t stage = 0, index = blockIdx.x;
    while (index >= p.new_chunks(stage)) index -= p.new_chunks(stage++);
    request_view const request = request_of(a.shape, {}, p.kv, a.page_size.divisor, causal{}, b);
    std::int32_t const size = p.method.stages[stage].chunk, known = p.known == nullptr ? 0 : larger(p.known[b], 0);
    std::int32_t const c = whole_chunks(known, sinks, size) + index;
    if (row < 0 || c >= whole_chunks(request.keys, sinks, size)) return;
    summary_level const level =
        summary_level_of(p.method, a.shape.kv_heads, a.shape.head_dim, p.summary.rows, p.summary.max_keys, stage);
    std::int32_t const columns = a.shape.head_dim / 8;
    for (std::int32_t i = threadIdx.x; i < a.shape.kv_heads * columns; i += summarise_threads) {
        std::int32_t const head = i / columns, channel = i % columns * 8;
        T* const to = p.summary.data + level.offset_of(row, c, head);
        if (p.method.scorer == scorer::mean_key)
            summarise_channels<channel_mean<T>>(a, b, sinks + c * size, size, head, channel, to);
        else
            summarise_channels<channel_bounds<T>>(a, b, sinks + c * size, size, head, channel, to);
    }
}

}  // namespace winnow
