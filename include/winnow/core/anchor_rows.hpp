// Anchors: the rows of a request that are computed densely, one in every `gap` positions, and the groups that they lead.
//
//   anchor a stands at row max(a gap - phase, 0), phase = first position mod gap;  row i belongs to anchor (i + phase) / gap.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

/// Remainder in [0, d), for any a and d > 0.
WINNOW_HOST_DEVICE constexpr std::int32_t floor_remainder(std::int32_t a, std::int32_t d) {
    std::int32_t const r = a % d;
    return r < 0 ? r + d : r;
}

/// Rows [begin, end) of a request.
struct row_span {
    std::int32_t begin;  ///< the first
    std::int32_t end;    ///< one behind the last
};

/// First row of a request's tail: its last `tail` rows, and those before them down to a position that `tail_step` divides.
WINNOW_HOST_DEVICE constexpr std::int32_t tail_begin(request_view const& r, std::int32_t tail, std::int32_t tail_step) {
    std::int32_t const cut = larger(r.queries - tail, 0);
    return tail_step <= 1 ? cut : larger(cut - floor_remainder(r.first_position + cut, tail_step), 0);
}

/// Rows that a range covers. `anchors` lie among the rows before the tail.
WINNOW_HOST_DEVICE constexpr row_span rows_of_range(request_view const& r, row_range range, std::int32_t tail,
                                                    std::int32_t tail_step) {
    std::int32_t const cut = tail_begin(r, tail, tail_step);
    return {range == row_range::tail_only ? cut : 0,
            range == row_range::without_tail || range == row_range::anchors ? cut : r.queries};
}

/// Anchors of requests whose first row stands at some position. They stand at absolute positions that `gap` divides, so that
/// chunks of a prompt have those of the whole; a chunk that begins between two has one more, its first row.
struct anchor_rows {
    std::int32_t gap;    ///< positions between two anchors, >= 1
    std::int32_t phase;  ///< of the first row: its position modulo `gap`

    /// Anchors every `every` positions of a request whose first row stands at `first_position`.
    WINNOW_HOST_DEVICE constexpr anchor_rows(std::int32_t first_position, std::int32_t every)
        : gap(every), phase(floor_remainder(first_position, every)) {}

    /// Row of an anchor.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t row(std::int32_t anchor) const {
        return larger(anchor * gap - phase, 0);
    }
    /// Anchor whose group a row belongs to.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t anchor_of(std::int32_t row) const {
        return (row + phase) / gap;
    }
    /// Anchors among the first `rows` rows.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t before(std::int32_t rows) const {
        return rows <= 0 ? 0 : anchor_of(rows - 1) + 1;
    }
};

/// Anchors that `rows` rows can have, wherever they start.
WINNOW_HOST_DEVICE constexpr std::int32_t most_anchors(std::int32_t rows, std::int32_t gap) {
    return rows <= 0 ? 0 : static_cast<std::int32_t>((std::int64_t{rows} + gap - 2) / gap) + 1;
}

}  // namespace winnow
