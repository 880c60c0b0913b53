// Arguments that the attention kernels and the merge of their splits share.
#pragma once

#include <cstdint>

#include "winnow/core/attend_params.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/stage_cache.hpp"
#include "winnow/policy/append_policy.hpp"
#include "winnow/policy/attend_policy.hpp"

namespace winnow {

inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float ln_2 = 0.6931471805599453f;

/// What rows take from their anchors as they are finished: fp32 [batch, anchor, head, channel], at the first of the splits
/// that the anchors were computed in. Without `output` rows stay as they are.
struct anchor_results {
    float const* output =
        nullptr;                 ///< what is added to a row; with `lse`, attention over the keys that the anchor omits
    float const* lse = nullptr;  ///< base 2: output is merged by it and the row's own, instead of added
    std::int32_t gap = 1;        ///< positions between two anchors
    std::int32_t anchors = 0;    ///< of one request, at most
    std::int32_t splits = 1;     ///< places of one anchor and head
};

/// Kernel arguments: the caller's params and what the plan made of them.
template <class T>
struct attend_arguments {
    attend_params<T> params;
    attend_schedule schedule;
    batch_shape shape;
    fast_divider page_size;
    fast_divider tile_heads;      ///< of the schedule
    fast_divider head_groups;     ///< of the schedule
    fast_divider kv_head_tiles;   ///< tiles that read one KV head
    fast_divider list_heads;      ///< query heads that share a list; 1 without lists
    fast_divider split_granules;  ///< of a split's keys
    std::int32_t group;           ///< query heads of a KV head
    slot_index slots;             ///< decode over a stage cache: rows without a slot see nothing
    float* partial_output;        ///< fp32 [batch, row, head, split, channel]; null: rows are finished here
    float* partial_lse;           ///< fp32 base 2 [batch, row, head, split]
    anchor_results correction;    ///< of finished rows
    rotary_arguments rotation;    ///< of kernels that turn rows and keys
    std::int32_t* arrived;  ///< [batch, tile and one more]: pieces of a tile, tiles of a request that are finished;
                            ///< null where the kernel does not merge its splits
    decode_step step;       ///< of sparse_decode

    /// True if rows leave as partial results: key splits, and anchors.
    WINNOW_HOST_DEVICE constexpr bool partial() const { return partial_output != nullptr; }
};

}  // namespace winnow
