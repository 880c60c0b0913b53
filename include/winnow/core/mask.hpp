// Which keys a query row may see: causal or full mask, sinks, sliding window, and their split into disjoint parts.
//
// A row at position p with window W and S sinks sees, each key once:
//   window  p - W < j <= p,    sinks  j < S and j <= p - W,    list  S <= j <= p - W and j in a selected block.
#pragma once

#include <cstdint>
#include <limits>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

/// Offset value: the queries are the last rows of the context, so row 0 stands at kv_length - query_length.
inline constexpr std::int32_t end_aligned = std::numeric_limits<std::int32_t>::min();

/// Window length that reaches every earlier key; the default, which makes attention dense.
inline constexpr std::int32_t whole_context = std::numeric_limits<std::int32_t>::max();

/// Row i stands at position offset + i and sees keys up to its position. A row before position 0 sees nothing.
struct causal {
    std::int32_t offset = end_aligned;  ///< position of row 0, or end_aligned
};

/// Every row sees the context as its last token does: no upper limit, the window is the last `recent` keys.
/// `offset` still says which query block (of a selection) a row belongs to.
struct full {
    std::int32_t offset = end_aligned;  ///< position of row 0, or end_aligned
};

/// Which of the two masks.
enum class mask_kind : std::int32_t { causal, full };

/// Either of the two masks, as a value: `.mask = winnow::causal{offset}`.
struct attention_mask {
    mask_kind kind = mask_kind::causal;  ///< causal or full
    std::int32_t offset = end_aligned;   ///< position of row 0, or end_aligned

    constexpr attention_mask() = default;
    /// From either, implicitly: `.mask = winnow::causal{}`.
    WINNOW_HOST_DEVICE constexpr attention_mask(causal m) : kind(mask_kind::causal), offset(m.offset) {}
    /// From either, implicitly: `.mask = winnow::full{}`.
    WINNOW_HOST_DEVICE constexpr attention_mask(full m) : kind(mask_kind::full), offset(m.offset) {}
};

/// The part of the context that is always attended. Defaults to everything (dense attention).
struct attention_window {
    std::int32_t sinks = 0;               ///< first keys of the context, always visible
    std::int32_t recent = whole_context;  ///< the row's own position and the recent - 1 keys before it
};

/// The three disjoint parts a visible key can belong to.
enum class key_part : std::int32_t { sink, list, window };

/// What one row sees, as half-open key ranges.
struct visible_ranges {
    std::int32_t sink_end;      ///< sinks: [0, sink_end)
    std::int32_t list_begin;    ///< listed keys: [list_begin, list_end)
    std::int32_t list_end;      ///< one behind the last key that a list can show
    std::int32_t window_begin;  ///< window: [window_begin, window_end)
    std::int32_t window_end;    ///< one behind the row's last visible key

    /// True if the row sees `key` as a member of `part`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool sees(key_part part, std::int32_t key) const {
        switch (part) {
        case key_part::sink:
            return key < sink_end;
        case key_part::list:
            return key >= list_begin && key < list_end;
        case key_part::window:
            return key >= window_begin && key < window_end;
        }
        return false;
    }
};

/// Position at which a row looks at the context.
WINNOW_HOST_DEVICE constexpr std::int32_t looking_position(mask_kind kind, std::int32_t row_position,
                                                           std::int32_t kv_length) {
    return kind == mask_kind::causal ? row_position : kv_length - 1;
}

/// Ranges of a row that looks from position `p` (see looking_position) at `kv_length` keys.
WINNOW_HOST_DEVICE constexpr visible_ranges ranges_of(std::int32_t p, std::int32_t kv_length, attention_window window) {
    std::int32_t const last = larger(p, -1);
    std::int32_t const begin = last < window.recent ? 0 : last - window.recent + 1;
    std::int32_t const end = last < kv_length ? last + 1 : kv_length;
    std::int32_t const hidden = smaller(begin, kv_length);  // keys before the window
    return {smaller(window.sinks, hidden), window.sinks, hidden, begin, end};
}

}  // namespace winnow
