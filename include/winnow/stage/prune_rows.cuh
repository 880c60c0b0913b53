// The query rows of a scoring block: averaged in groups, rounded, and laid out in shared memory for key_rows.
#pragma once

#include <cstdint>
#include <limits>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/stage/prune_place.cuh"
#include "winnow/tile/channel_summary.cuh"
#include "winnow/tile/key_rows.cuh"

namespace winnow {

/// Shared memory of a scoring block; the rows of queries lie behind it.
template <int HeadDim>
struct alignas(128) prune_score_storage {
    prune_place place;
    std::int32_t looking[prune_rows_held(HeadDim)];  ///< position each row looks from
    std::uint32_t best[prune_most_chunks];           ///< ordered_key of each chunk, over the walkers of the unit
};

/// The rows that the walkers of a unit score: groups of averaged queries times heads.
struct prune_row_set {
    std::int32_t first_group;  ///< absolute position / query_stride
    std::int32_t groups;
    std::int32_t first_head;
    std::int32_t heads;    ///< of one walker
    std::int32_t walkers;  ///< in the unit
    /// Rows of one walker, and with the copies of its last one that fill a product.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t rows() const { return groups * heads; }
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t padded() const { return round_up(rows(), prune_row_tile); }
    /// Walkers whose rows are held together; with more rows than fit, a single walker, in slices.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t walkers_held(std::int32_t held) const {
        return smaller(walkers, larger(held / padded(), 1));
    }
    /// Passes over a walker's rows.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t slices(std::int32_t held) const {
        return ceil_div(padded(), held);
    }
};

/// Where a row of queries and its average come from.
struct prune_query_row {
    std::int32_t head;
    std::int32_t first;  ///< position of the first row that is averaged
    std::int32_t last;
};

WINNOW_HOST_DEVICE constexpr prune_query_row query_row_of(prune_row_set const& set, query_span span,
                                                          std::int32_t stride, std::int32_t walker, std::int32_t row) {
    // Copies of the last row fill the last product: they change no maximum.
    std::int32_t const real = smaller(row, set.rows() - 1), group = set.first_group + real / set.heads;
    return {set.first_head + walker * set.heads + real % set.heads, larger(group * stride, span.first),
            smaller(group * stride + stride - 1, span.last)};
}

/// Brings rows [first_row, first_row + count) of walkers from `first_walker` on into shared memory. Needs a barrier
/// before and behind.
template <class T, int HeadDim>
WINNOW_DEVICE void hold_query_rows(prune_score_storage<HeadDim>& shared, unsigned char* queries,
                                   prune_arguments<T> const& a, prune_row_set const& set, std::int32_t first_walker,
                                   std::int32_t first_row, std::int32_t count) {
    constexpr int chunks = HeadDim / 8;
    prune_params<T> const& p = a.params;
    prune_place const& place = shared.place;
    std::int32_t const stride = p.method.stages[a.stage].query_stride, padded = set.padded();
    for (std::int32_t i = threadIdx.x; i < count * chunks; i += blockDim.x) {
        std::int32_t const local = i / chunks, column = i % chunks;
        prune_query_row const row =
            query_row_of(set, place.span, stride, first_walker + local / padded, first_row + local % padded);
        T const* at = p.queries.data + column * 8 +
                      p.queries.offset(place.request.outer,
                                       place.request.first_row + row.first - place.request.first_position, row.head);
        std::uint32_t const offset = query_chunk_offset<HeadDim>(local, column);
        if (column == 0) shared.looking[local] = looking_position(p.mask.kind, row.first, place.request.keys);
        if (stride == 1) {
            ptx::copy_async_16(ptx::shared_address(queries) + offset, at);
            continue;
        }
        channel_mean<T> mean;
        for (std::int32_t q = row.first; q <= row.last; q += 4) {  // four loads under way
            uint4 v[4];
            WINNOW_UNROLL
            for (int k = 0; k < 4; ++k, at += p.queries.stride[1])
                v[k] = q + k <= row.last ? *reinterpret_cast<uint4 const*>(at) : make_uint4(0, 0, 0, 0);
            WINNOW_UNROLL
            for (int k = 0; k < 4; ++k) mean.add(v[k]);
        }
        *reinterpret_cast<uint4*>(queries + offset) = mean.value(0, row.last - row.first + 1);
    }
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
}

}  // namespace winnow
