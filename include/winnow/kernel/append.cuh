// Append kernel: rows of keys, values and queries travel in 16-byte vectors, rotated on the way where asked.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/math.hpp"
#include "winnow/kernel/append_arguments.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/ptx/convert.cuh"
#include "winnow/stage/rotate_rows.cuh"

namespace winnow {

/// Offset of a row that goes nowhere; every other offset is a multiple of 8.
inline constexpr std::int64_t append_nowhere = -1;

/// What a block's threads share.
struct append_storage {
    float2 rotation[append_pairs];      ///< [row, k, column]: threads of neighbouring columns read neighbouring words
    std::uint64_t turns[append_pairs];  ///< [k, column], per position
    std::int64_t place[append_rows];    ///< offset of each row in the target
    std::int32_t position[append_rows];
};

template <class T>
WINNOW_DEVICE vector_pair load_pair(append_part<T> const& part, std::int64_t first_row, std::int32_t index) {
    append_item const item = part.item(index);
    T const* const from = part.source + (first_row + item.row) * part.source_row + item.head * part.source_head;
    vector_pair pair;
    pair.first = *reinterpret_cast<uint4 const*>(from + part.columns.first(item.column) * vector_channels);
    pair.second = part.columns.has_second(item.column)
                      ? *reinterpret_cast<uint4 const*>(from + part.columns.second(item.column) * vector_channels)
                      : uint4{};
    return pair;
}

/// Eight elements of T, divided by `scale` and rounded to fp8.
template <class T>
WINNOW_DEVICE void store_narrow(fp8_e4m3* to, uint4 const& vector, float scale) {
    std::uint32_t const words[4] = {vector.x, vector.y, vector.z, vector.w};
    std::uint32_t narrow[4];
    WINNOW_UNROLL
    for (int i = 0; i < 4; ++i) {
        float2 const x = ptx::unpack<T>(words[i]);
        narrow[i] = ptx::narrow_e4m3(x.x / scale, x.y / scale);
    }
    *reinterpret_cast<uint2*>(to) = make_uint2(narrow[0] | narrow[1] << 16, narrow[2] | narrow[3] << 16);
}

template <class T, class C>
WINNOW_DEVICE void store_pair(append_part<T> const& part, append_storage const& shared, std::int32_t index,
                              vector_pair pair) {
    append_item const item = part.item(index);
    std::int64_t const place = shared.place[item.row];
    if (place == append_nowhere) return;
    bool narrow = false;
    if constexpr (!std::is_same_v<T, C>) narrow = part.narrow != nullptr;
    if (narrow) {
        fp8_e4m3* const to = part.narrow + place + item.head * part.target_head;
        float const scale = part.scale == nullptr ? 1.0f : part.scale[part.scale_heads > 1 ? item.head : 0];
        store_narrow<T>(to + part.columns.first(item.column) * vector_channels, pair.first, scale);
        if (part.columns.has_second(item.column))
            store_narrow<T>(to + part.columns.second(item.column) * vector_channels, pair.second, scale);
        return;
    }
    T* const to = part.target + place + item.head * part.target_head;
    *reinterpret_cast<uint4*>(to + part.columns.first(item.column) * vector_channels) = pair.first;
    if (part.columns.has_second(item.column))
        *reinterpret_cast<uint4*>(to + part.columns.second(item.column) * vector_channels) = pair.second;
}

/// Places of the block's rows, and the rotations of each (row, pair), which all heads share. Ends with a barrier.
template <class T>
WINNOW_DEVICE void prepare_rows(append_arguments<T> const& a, append_part<T> const& part, std::int64_t first_row,
                                std::int32_t rows, append_storage& shared) {
    std::int32_t const thread = static_cast<std::int32_t>(threadIdx.x), columns = part.columns.rotary;
    if (thread < rows) {
        std::int64_t const row = first_row + thread;
        cache_place const at = place_of(part.slot == nullptr ? row : part.slot[row], part.pages, part.page_size);
        shared.place[thread] = at.page < 0 ? append_nowhere : at.page * part.target_page + at.token * part.target_token;
        if (columns > 0) shared.position[thread] = a.position[row];
    }
    if (columns > 0)
        fill_rotations<append_threads>(a, part.columns, rows, shared.position, shared.turns, shared.rotation);
    __syncthreads();
}

/// Each thread moves `append_items` pairs of vectors at a time. The first ones are loaded before the block waits for
/// places and rotations. C: elements of the caches; a branch instead would cost the 16-bit kernel 12 registers.
template <class T, class C = T>
__global__ void __launch_bounds__(append_threads) append_tensors(append_arguments<T> const __grid_constant__ a) {
    __shared__ append_storage shared;
    std::uint32_t const parts = static_cast<std::uint32_t>(a.part_count), group = blockIdx.x / parts;
    append_part<T> const& part = a.parts[blockIdx.x - group * parts];
    std::int64_t const first_row = std::int64_t{group} * a.rows_per_block;
    auto const rows = static_cast<std::int32_t>(smaller<std::int64_t>(a.rows - first_row, a.rows_per_block));
    std::int32_t const items = rows * part.row_items.divisor, thread = static_cast<std::int32_t>(threadIdx.x);

    vector_pair held[append_items];
    auto const load = [&](std::int32_t begin) {
        WINNOW_UNROLL
        for (int n = 0; n < append_items; ++n)
            if (std::int32_t const i = begin + n * append_threads; i < items) held[n] = load_pair(part, first_row, i);
    };
    load(thread);
    prepare_rows(a, part, first_row, rows, shared);
    for (std::int32_t begin = thread; begin < items; begin += append_items * append_threads) {
        if (begin != thread) load(begin);
        WINNOW_UNROLL
        for (int n = 0; n < append_items; ++n) {
            std::int32_t const i = begin + n * append_threads;
            if (i >= items) break;
            append_item const item = part.item(i);
            rotate_pair<T>(a, part.columns.rotary, shared.rotation, item.row, item.column, held[n]);
            store_pair<T, C>(part, shared, i, held[n]);
        }
    }
}

}  // namespace winnow
