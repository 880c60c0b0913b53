// Walks the keys of a tile: sinks, listed blocks and window as one sequence of 8-key granules.
#pragma once

#include <cstdint>

#include "winnow/core/attend_params.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/policy/attend_policy.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/tile/swizzle.hpp"

namespace winnow {

/// Where token 0 starts in the key and value tensors, in elements.
struct row_offsets {
    std::int64_t key;
    std::int64_t value;
};

/// Where one key's row starts; null: nothing to read, zeros instead.
template <class KV>
struct key_row {
    KV const* key;
    KV const* value;
};

/// Everything that is the same for all threads of a tile.
struct key_walk {
    granule_sequence sequence;
    visible_ranges early;  ///< of the tile's first row
    visible_ranges late;   ///< of the tile's last row
    std::int32_t const*
        list;  ///< block ids of the tile's query block; null: the keys behind the sinks, one after another
    std::int32_t list_count;
    std::int32_t block_shift;  ///< log2(block_size / granule_keys)
    std::int32_t keys;
    std::int32_t request;
    bool linear;          ///< contiguous and ragged sources: token t lies at origin + t * token stride
    token_location base;  ///< linear sources: where token 0 lies
    row_offsets origin;   ///< offset of token 0 (linear) or of the KV head (paged)
};

/// One granule: its first key with the part it belongs to in the low bits; `hidden_granule` where there is none.
struct granule {
    std::int32_t first;
    key_part part;
};
inline constexpr std::int32_t hidden_granule = -8;

/// The list's entry that granule `index` of the walk belongs to, read ahead of granule_at; -1 where there is none.
WINNOW_HOST_DEVICE constexpr std::int32_t list_entry(key_walk const& walk, std::int32_t index) {
    index -= walk.sequence.sinks;
    bool const listed = walk.list != nullptr && index >= 0 && index < walk.sequence.listed;
    return listed ? walk.list[index >> walk.block_shift] : -1;
}

/// Granule `index` of the walk; `entry(i)` is entry i of its list. Block ids outside the context are hidden rather than
/// followed.
template <class Entry>
WINNOW_HOST_DEVICE constexpr granule granule_at(key_walk const& walk, std::int32_t index, Entry const& entry) {
    if (index < walk.sequence.sinks) return {index * granule_keys, key_part::sink};
    index -= walk.sequence.sinks;
    if (index < walk.sequence.listed) {
        if (walk.list == nullptr)
            return {round_down(walk.late.list_begin, granule_keys) + index * granule_keys, key_part::list};
        std::int32_t const block = entry(index >> walk.block_shift);
        std::int32_t const inside = index & ((1 << walk.block_shift) - 1);
        std::int32_t const limit = (walk.keys - 1) >> (walk.block_shift + 3);
        if (block < 0 || block > limit) return {hidden_granule, key_part::list};
        return {((block << walk.block_shift) + inside) * granule_keys, key_part::list};
    }
    index -= walk.sequence.listed;
    if (index < walk.sequence.window) return {walk.sequence.window_origin + index * granule_keys, key_part::window};
    return {hidden_granule, key_part::window};
}
WINNOW_HOST_DEVICE constexpr granule granule_at(key_walk const& walk, std::int32_t index) {
    return granule_at(walk, index, [&](std::int32_t i) { return walk.list[i]; });
}

/// True when every row of the tile sees all 8 keys, so that no row needs a mask.
WINNOW_HOST_DEVICE constexpr bool seen_by_all(key_walk const& walk, granule g) {
    std::int32_t const end = g.first + granule_keys;
    switch (g.part) {
    case key_part::sink:
        return g.first >= 0 && end <= walk.early.sink_end;
    case key_part::list:
        return g.first >= walk.early.list_begin && end <= walk.early.list_end;
    case key_part::window:
        return g.first >= walk.late.window_begin && end <= walk.early.window_end;
    }
    return false;
}

/// Keys of a part that at least one row of the tile sees: [begin, end). Others are neither read nor counted, so garbage
/// there cannot leak.
struct key_range {
    std::int32_t begin;
    std::int32_t end;
    WINNOW_HOST_DEVICE constexpr bool contains(std::int32_t key) const { return key >= begin && key < end; }
};

/// The seen keys of one part.
WINNOW_HOST_DEVICE constexpr key_range seen_keys(key_walk const& walk, key_part part) {
    switch (part) {
    case key_part::sink:
        return {0, walk.late.sink_end};
    case key_part::list:
        return {walk.late.list_begin, walk.late.list_end};
    case key_part::window:
        return {walk.early.window_begin, walk.late.window_end};
    }
    return {0, 0};
}

/// One step's keys, as the threads that fetch and mask them read it.
template <class KV, int Keys>
struct key_step {
    key_row<KV> row[Keys];
    std::int32_t plain;  ///< rows lie one token stride apart: only row[0] is set, nothing is hidden
    std::int32_t granule[Keys / granule_keys];  ///< first key | part (first keys are multiples of 8)
    std::int32_t masked[(Keys + 31) / 32];      ///< per warp of locating threads: some granule needs a mask
};

/// Row of key `position` of the walk's request. Tensors hold KV, whatever their type says.
template <class KV, class T>
WINNOW_DEVICE key_row<KV> row_at(attend_params<T> const& p, fast_divider page_size, key_walk const& walk,
                                 std::int32_t position) {
    token_location where{0, position};
    if (!walk.linear) where = locate(p.kv, page_size, p.keys.extent[0], walk.request, position);
    if (where.outer < 0) return {nullptr, nullptr};
    std::int64_t key = walk.origin.key + where.token * p.keys.stride[1];
    std::int64_t value = walk.origin.value + where.token * p.values.stride[1];
    if (!walk.linear) key += where.outer * p.keys.stride[0], value += where.outer * p.values.stride[0];
    return {reinterpret_cast<KV const*>(p.keys.data) + key, reinterpret_cast<KV const*>(p.values.data) + value};
}

/// Thread t < Keys locates key t of step `step`; whole warps must call, of step numbers that are the same for a warp.
template <class KV, int Keys, class T>
WINNOW_DEVICE void locate_step(key_step<KV, Keys>& out, key_walk const& walk, std::int32_t step,
                               attend_params<T> const& p, fast_divider page_size, int t) {
    if (t >= Keys) return;
    std::int32_t const index = step * (Keys / granule_keys);
    std::int32_t const before_window = walk.sequence.sinks + walk.sequence.listed;
    std::int32_t const first = walk.sequence.window_origin + (index - before_window) * granule_keys;
    // Most steps of a long window lie inside it: no part to find, nothing to hide, and the same for all threads.
    bool const inside =
        index >= before_window && first >= walk.late.window_begin && first + Keys <= walk.early.window_end;
    if (t % 32 == 0) out.masked[t / 32] = false;
    if (t == 0) out.plain = inside && walk.linear;
    if (inside) {
        if (t == 0 || !walk.linear) out.row[t] = row_at<KV>(p, page_size, walk, first + t);
        return;
    }
    granule const g = granule_at(walk, index + t / granule_keys);
    std::int32_t const position = g.first + t % granule_keys;
    bool const read = g.first >= 0 && seen_keys(walk, g.part).contains(position);
    out.row[t] = read ? row_at<KV>(p, page_size, walk, position) : key_row<KV>{nullptr, nullptr};
    if (t % granule_keys == 0) out.granule[t / granule_keys] = g.first | static_cast<std::int32_t>(g.part);
    bool const masked = __any_sync(~0u, !seen_by_all(walk, g));
    if (t % 32 == 0 && masked) out.masked[t / 32] = true;
}

/// Starts the copies of one step's rows into a tile, swizzled by 16-byte chunks. All threads call. `token_stride` in
/// elements.
template <int HeadDim, int Threads, class KV, int Keys>
WINNOW_DEVICE void fetch_rows(std::uint32_t tile, std::int64_t token_stride, key_step<KV, Keys> const& step,
                              KV const* key_row<KV>::*which) {
    constexpr int elements = 16 / static_cast<int>(sizeof(KV));  // of a 16-byte chunk
    constexpr int chunks = HeadDim / elements, rows_per_pass = Threads / chunks;
    auto const at = [](int row, int chunk) { return swizzled<HeadDim * sizeof(KV) / 2>(row, chunk); };
    static_assert(Threads % chunks == 0 && Keys % rows_per_pass == 0, "every pass covers whole rows");
    int const chunk = threadIdx.x % chunks, first = threadIdx.x / chunks;
    if (step.plain) {
        KV const* const from = step.row[0].*which + first * token_stride + chunk * elements;
        WINNOW_UNROLL
        for (int pass = 0; pass < Keys / rows_per_pass; ++pass)
            ptx::copy_async_16(tile + at(pass * rows_per_pass + first, chunk),
                               from + pass * rows_per_pass * token_stride);
        return;
    }
    WINNOW_UNROLL
    for (int pass = 0; pass < Keys / rows_per_pass; ++pass) {
        int const row = pass * rows_per_pass + first;
        KV const* const from = step.row[row].*which;
        ptx::copy_async_16(tile + at(row, chunk), from + chunk * elements, from != nullptr);
    }
}

}  // namespace winnow
