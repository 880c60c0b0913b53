// The query rows of a scoring block: averaged in groups, rounded, and laid out in shared memory for probe_keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/barrier.cuh"
#include "winnow/stage/prune_place.cuh"
#include "winnow/stage/prune_row_set.hpp"
#include "winnow/tile/channel_summary.cuh"
#include "winnow/tile/panel.hpp"
#include "winnow/tile/probe_keys.cuh"

namespace winnow {

/// Where averaged query rows come from: what hold_query_rows needs of a launch. It lies in shared memory, since a function
/// does not read a kernel's arguments from the constant cache.
struct prune_query_source {
    void const* data;         ///< first row of the request, as if it stood at position 0
    std::int64_t row_stride;  ///< in elements
    std::int64_t head_stride;
    std::int32_t query_stride;  ///< rows averaged together
    query_span span;            ///< of the query block
    mask_kind mask;
    std::int32_t keys;
};

template <class T>
WINNOW_DEVICE prune_query_source query_source_of(prune_arguments<T> const& a, prune_place const& place) {
    tensor_view<T const, 4> const& q = a.params.queries;
    return {q.data + q.offset(place.request.outer, place.request.first_row - place.request.first_position),
            q.stride[1],
            q.stride[2],
            a.params.method.stages[a.stage].query_stride,
            place.span,
            a.params.mask.kind,
            place.request.keys};
}

/// Shared memory of a scoring block; the rows of queries lie behind it.
template <int HeadDim>
struct alignas(128) prune_score_storage {
    prune_place place;
    prune_query_source source;
    std::int32_t looking[prune_rows_held(HeadDim)];  ///< position each row looks from
    std::uint32_t best[prune_most_chunks];           ///< ordered_key of each chunk, over the walkers of the unit
    std::int64_t group;                              ///< of lists, in the batch; see prune_groups
    std::int32_t last;                               ///< this block is the last of its list
};

/// Offset of the rows.
template <int HeadDim>
inline constexpr std::size_t prune_rows_offset = round_up<std::size_t>(sizeof(prune_score_storage<HeadDim>), 1024);

/// The same behind the frequencies of a kernel that turns, which lie where rows would.
template <int HeadDim, product_unit Unit>
inline constexpr std::size_t prune_rows_behind = prune_rows_offset<HeadDim> +
                                                 (Unit == product_unit::turned
                                                      ? round_up<std::size_t>(HeadDim / 2 * sizeof(std::uint64_t), 1024)
                                                      : 0);

/// Puts a chunk of a row where products read it: wgmma does in panels of 64 channels of all `rows`.
template <int HeadDim, product_unit Unit>
WINNOW_DEVICE void hold_chunk(unsigned char* queries, std::int32_t rows, std::int32_t row, std::int32_t chunk,
                              uint4 v) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (by_warpgroups(Unit)) {
        *reinterpret_cast<uint4*>(queries + (chunk / 8 * rows + row) * panel_row_bytes + (((chunk ^ row) & 7) << 4)) =
            v;
        return;
    }
#endif
    std::uint32_t const place =
        Unit == product_unit::widened ? widened_place(static_cast<std::uint32_t>(chunk)) : chunk;
    *reinterpret_cast<uint4*>(queries + query_chunk_offset<HeadDim>(row, place)) = v;
}

/// Brings rows [first_row, first_row + count) of walkers from `first_walker` on into shared memory. Needs a barrier
/// before and behind. A function of its own: it is called in three places, and code that is fetched from memory costs a
/// decode step microseconds. The set comes by value: a caller whose set has an address keeps it in local memory.
template <class T, int HeadDim, product_unit Unit, class Storage>
__device__ __noinline__ void hold_query_rows(Storage& shared, unsigned char* queries, prune_row_set set,
                                             std::int32_t first_walker, std::int32_t first_row, std::int32_t count) {
    constexpr int chunks = HeadDim / 8, batch = 4;  // loads under way
    prune_query_source const& from = shared.source;
    std::int32_t const stride = from.query_stride, padded = set.padded();
    auto const source = [&](std::int32_t local) {
        return query_row_of(set, from.span, stride, first_walker + local / padded, first_row + local % padded);
    };
    auto const address = [&](prune_query_row const& row, std::int32_t column) {
        return static_cast<T const*>(from.data) + row.first * from.row_stride + row.head * from.head_stride +
               column * 8;
    };
#pragma unroll 1
    for (std::int32_t local = threadIdx.x; local < count; local += blockDim.x)
        shared.looking[local] = looking_position(from.mask, source(local).first, from.keys);
    if (stride == 1) {
#pragma unroll 1
        for (std::int32_t i = threadIdx.x; i < count * chunks; i += batch * blockDim.x) {
            uint4 v[batch];
            WINNOW_UNROLL
            for (int k = 0; k < batch; ++k) {
                std::int32_t const at = i + k * static_cast<std::int32_t>(blockDim.x);
                if (at < count * chunks)
                    v[k] = *reinterpret_cast<uint4 const*>(address(source(at / chunks), at % chunks));
            }
            WINNOW_UNROLL
            for (int k = 0; k < batch; ++k) {
                std::int32_t const at = i + k * static_cast<std::int32_t>(blockDim.x);
                if (at < count * chunks) hold_chunk<HeadDim, Unit>(queries, count, at / chunks, at % chunks, v[k]);
            }
        }
    } else {
#pragma unroll 1
        for (std::int32_t i = threadIdx.x; i < count * chunks; i += blockDim.x) {
            prune_query_row const row = source(i / chunks);
            T const* at = address(row, i % chunks);
            channel_mean<T> mean;
#pragma unroll 1
            for (std::int32_t q = row.first; q <= row.last; q += batch) {
                uint4 v[batch];
                WINNOW_UNROLL
                for (int k = 0; k < batch; ++k, at += from.row_stride)
                    v[k] = q + k <= row.last ? *reinterpret_cast<uint4 const*>(at) : make_uint4(0, 0, 0, 0);
                WINNOW_UNROLL
                for (int k = 0; k < batch; ++k) mean.add(v[k]);
            }
            hold_chunk<HeadDim, Unit>(queries, count, i / chunks, i % chunks, mean.value(0, row.last - row.first + 1));
        }
    }
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (by_warpgroups(Unit)) ptx::async_proxy_fence();
#endif
}

}  // namespace winnow
