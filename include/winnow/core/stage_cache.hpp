// Lists that pruning keeps between decode steps: one set per request slot, refreshed stage by stage.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/prune_stages.hpp"
#include "winnow/core/selection.hpp"

namespace winnow {

/// Which slot each request of a batch uses; the default lets every request through.
struct slot_index {
    std::int32_t const* slot = nullptr;  ///< [batch]
    std::int32_t slots = 0;              ///< 0: no slots, all rows count
    /// Slot of request `b`, or -1 for a padded row.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t operator()(std::int32_t b) const {
        std::int32_t const s = slot == nullptr ? b : slot[b];
        return s >= 0 && s < slots ? s : -1;
    }
    /// True if request `b` of the batch is padding.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool padded(std::int32_t b) const { return slots > 0 && (*this)(b) < 0; }
};

/// The caller owns the memory. A slot belongs to one running request: when a request enters a slot, or its sequence is
/// truncated, forked or replaced, the caller sets step[slot] = 0 (a device write) and every stage runs afresh.
struct stage_cache {
    std::int32_t* step = nullptr;   ///< [slots] decode steps since the slot was reset; sparse_decode adds 1
    std::int32_t* lists = nullptr;  ///< stage_cache_entries(...) int32, uninitialised
    std::int32_t const* slot =
        nullptr;  ///< [batch] slot of each request; a row outside [0, slots) is padding (-1 by custom). Null:
                  ///< slot = row
    std::int32_t slots = 0;                         ///< requests that the cache holds lists for
    refresh_intervals intervals = refresh_default;  ///< steps between two refreshes of each stage

    /// Which slot each request uses.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr slot_index index() const { return {slot, slots}; }
};

/// What attention has to know of the decode step it ends; the default is a call of its own.
struct decode_step {
    std::int32_t* step = nullptr;   ///< stage_cache::step; null: nothing to count, and no lists to wait for
    refresh_intervals intervals{};  ///< of the cache
    std::int32_t stages = 0;        ///< of the method
};

/// Where one stage's lists lie inside stage_cache::lists: first the counts [slots, list head], then the chunks'
/// left ends [slots, list head, keep].
struct stage_region {
    std::int64_t counts;  ///< offset of the counts, in int32
    std::int64_t lists;   ///< offset of the left ends (in the last stage: block ids), in int32
};

/// Region of `stage`; `rows` lists per list head are kept (the slots at decode).
WINNOW_HOST_DEVICE constexpr stage_region stage_region_of(prune_method const& method, std::int32_t list_heads,
                                                          std::int32_t rows, std::int32_t stage) {
    std::int64_t offset = 0;
    for (std::int32_t i = 0; i < stage; ++i)
        offset += static_cast<std::int64_t>(rows) * list_heads * (method.stages[i].keep + 1);
    return {offset, offset + static_cast<std::int64_t>(rows) * list_heads};
}

/// int32 elements of stage_cache::lists for a method.
constexpr std::size_t stage_cache_entries(prune_method const& method, std::int32_t heads, std::int32_t kv_heads,
                                          std::int32_t slots) {
    std::int32_t const stages = smaller<std::int32_t>(method.stage_count, max_prune_stages);  // check refuses more
    return static_cast<std::size_t>(
        stage_region_of(method, list_heads_of(method.sharing, heads, kv_heads), slots, stages).counts);
}

}  // namespace winnow
