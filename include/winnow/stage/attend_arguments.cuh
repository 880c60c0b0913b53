// Arguments that the attention kernels and the merge of their splits share.
#pragma once

#include <cstdint>

#include "winnow/core/attend_params.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/stage_cache.hpp"
#include "winnow/policy/attend_policy.hpp"

namespace winnow {

inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float ln_2 = 0.6931471805599453f;

/// Kernel arguments: the caller's params and what the plan made of them.
template <class T>
struct attend_arguments {
    attend_params<T> params;
    attend_schedule schedule;
    batch_shape shape;
    fast_divider page_size;
    fast_divider tile_heads;     ///< of the schedule
    fast_divider head_groups;    ///< of the schedule
    fast_divider kv_head_tiles;  ///< tiles that read one KV head
    slot_index slots;            ///< decode over a stage cache: rows without a slot see nothing
    float* partial_output;       ///< fp32 [batch, row, head, split, channel], only with splits
    float* partial_lse;          ///< fp32 base 2 [batch, row, head, split]
    std::int32_t* arrived;       ///< [batch, tile and one more]: pieces of a tile, tiles of a request that are finished
    decode_step step;            ///< of sparse_decode
};

}  // namespace winnow
