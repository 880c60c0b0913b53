// What summarising keys is asked to do: the keys, the method whose chunks are meant, and where the summaries go.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/key_summary.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/prune_stages.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// Keys and their summaries. After keys were appended, `known` says up to where summaries are good already: only chunks
/// that were completed since are read. After a request was truncated, `known` is at most what was left of it.
template <class T>
struct summarise_params {
    tensor_view<T const, 4> keys = {};    ///< [batch | 1 | page, token, kv_head, channel], see kv_index
    kv_index kv = {};                     ///< where keys live
    std::int32_t batch = 0;               ///< requests
    prune_method method = hip_3k;         ///< stages, scorer (mean_key or min_max_bound) and sinks
    key_summary<T> summary = {};          ///< out
    std::int32_t const* known = nullptr;  ///< [batch] keys that are summarised already; null: none
    std::int32_t max_new = 0;             ///< bound of keys beyond `known`; 0: there may be any number

    /// Extents that plans are made from.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr batch_shape shape() const { return shape_of(queries(), {}, keys, kv); }
    /// A view of no queries, so that keys are seen as elsewhere.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr tensor_view<T const, 4> queries() const {
        std::int64_t const extent[4] = {batch, 0, keys.extent[2], keys.extent[3]};
        return packed_view(static_cast<T const*>(nullptr), extent);
    }
    /// Chunks of stage `stage` that one launch may complete.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t new_chunks(std::int32_t stage) const {
        batch_shape const s = shape();
        std::int32_t const all = whole_chunks(s.max_keys, method.window.sinks, method.stages[stage].chunk);
        return max_new > 0 ? smaller(all, max_new / method.stages[stage].chunk + 1) : all;
    }
};

}  // namespace winnow
