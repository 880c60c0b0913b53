// What attention is asked to do: tensors, where keys live, which of them count, scale and mask.
#pragma once

#include <cstdint>

#include "winnow/core/cache_scales.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/partial.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// Inputs and outputs of attention. T is bf16 or fp16, KV the same or fp8_e4m3 (decode only). Pointers are device pointers (for reference::, host).
///
/// A row sees key j if the mask allows it and j is a sink, in its window, or in a block of its list; each key counts
/// once (HiP, InfiniteHiP). With the default window everything is visible: dense attention.
/// Query head h reads KV head h / (heads / kv_heads). Rows without a visible key give output 0 and lse -inf.
template <class T, class KV = T>
struct attend_params {
    tensor_view<T const, 4> queries =
        {};                              ///< [batch, token, head, channel]; ragged: [1, row, head, channel] with `rows`
    tensor_view<KV const, 4> keys = {};  ///< [batch | 1 | page, token, kv_head, channel], see kv_index
    tensor_view<KV const, 4> values = {};  ///< same axes as keys, own strides; shares the index of the keys
    kv_index kv = {};                      ///< where tokens live; default contiguous
    query_index rows = {};                 ///< ragged queries; default one row range per batch entry
    block_selection selection = {};        ///< selected key blocks; default none
    attention_window window = {};          ///< sinks and recent keys; default the whole context
    tensor_view<T, 4> output = {};         ///< axes of queries; written for every row, and nothing else is
    lse_view lse = {};                     ///< [batch, token, head]; ragged [1, row, head]; optional
    float scale = 0;                       ///< of the scores, usually 1 / sqrt(head_dim); must be > 0
    float soft_cap = 0;                    ///< > 0: scores become soft_cap * tanh(score / soft_cap)
    attention_mask mask = causal{};        ///< causal or full, with the position of row 0
    row_range range = row_range::all;      ///< rows to compute: all, or without / only the last `tail` of each request
    std::int32_t tail = 0;                 ///< see `range`
    std::int32_t tail_step = 1;  ///< the tail begins at a position that this divides, up to so many rows earlier
    rope rotation = {};  ///< queries and cached keys come without rotary embedding; attention turns them by streaming
                         ///< positions (core/streaming.hpp). Causal mask; default: nothing is turned
    float const* sink_logits =
        nullptr;               ///< [head] learned sinks: a natural logit more in each row's softmax, without a
                               ///< value; the lse counts it. Rows without a visible key stay as they are
    cache_scales scales = {};  ///< of fp8 keys and values; default 1

    /// Extents that plans are made from.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr batch_shape shape() const { return shape_of(queries, rows, keys, kv); }
};

}  // namespace winnow
