// What pruning is asked to do: queries and keys, the method, and where the lists go.
#pragma once

#include <cstdint>

#include "winnow/core/cache_scales.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/key_summary.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/prune_stages.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/core/selection.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// Inputs and outputs of pruning. T is bf16 or fp16, KV the same or fp8_e4m3. Queries need no scale: scores only rank.
///
/// Candidates of a query block are the keys between the sinks and the window of its last row: [sinks, eligible_end).
/// A probe counts for a row only if the row's mask allows the key. When a stage has no more candidates than it keeps,
/// it keeps all of them. Query averaging takes the fp32 mean of query_stride rows, grouped by absolute position.
template <class T, class KV = T>
struct prune_params {
    tensor_view<T const, 4> queries =
        {};                              ///< [batch, token, head, channel]; ragged: [1, row, head, channel] with `rows`
    tensor_view<KV const, 4> keys = {};  ///< [batch | 1 | page, token, kv_head, channel], see kv_index
    kv_index kv = {};                    ///< where keys live
    query_index rows = {};               ///< ragged queries
    prune_method method = hip_3k;        ///< stages, scorer, sharing, window
    block_selection_buffer selection =
        {};  ///< out: [batch, list head, query block, entry] and counts; see selection_extents_of
    attention_mask mask = causal{};  ///< causal or full, with the position of row 0
    std::int32_t lookahead = 0;      ///< decode steps a list must stay complete for; see eligible_end
    key_summary<T const> summary =
        {};              ///< of the keys, for scorers that look at whole chunks; optional, changes no list
    rope rotation = {};  ///< queries and cached keys come without rotary embedding; default: nothing is turned
    scan_style scan = scan_style::relative;  ///< with a rotation: where probes stand
    cache_scales scales = {};  ///< of fp8 keys, > 0, which multiply scores in fp32: heads that share a list compare
                               ///< what their keys stand for. Values have no part in it; default 1

    /// Extents that plans are made from.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr batch_shape shape() const { return shape_of(queries, rows, keys, kv); }
};

}  // namespace winnow
