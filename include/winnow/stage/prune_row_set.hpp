// Which averaged query rows a scoring block holds, and where each comes from.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/prune_stages.hpp"

namespace winnow {

/// The rows that the walkers of a unit score: groups of averaged queries times heads.
struct prune_row_set {
    std::int32_t first_group;  ///< absolute position / query_stride
    std::int32_t groups;
    std::int32_t first_head;
    std::int32_t heads;         ///< of one walker
    std::int32_t walkers;       ///< in the unit
    std::int32_t product;       ///< rows that one product takes
    std::int32_t residues = 1;  ///< rows held for each group: its average, or all of them one by one
    /// Rows of one walker, and with the copies of its last one that fill a product.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t rows() const { return groups * heads; }
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t padded() const {
        return round_up(rows(), product) * residues;
    }
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

/// A row of queries that is not averaged.
struct prune_single_row {
    std::int32_t head;
    std::int32_t position;
    std::int32_t first;  ///< position of its group's first row
};

/// Row `row` of a set whose groups come by residues: eight groups' rows of residue 0, then of residue 1, and so on.
WINNOW_HOST_DEVICE constexpr prune_single_row single_row_of(prune_row_set const& set, std::int32_t row) {
    std::int32_t const tile = row / (set.product * set.residues), residue = row / set.product % set.residues;
    std::int32_t const real = smaller(tile * set.product + row % set.product, set.rows() - 1);
    std::int32_t const first = (set.first_group + real / set.heads) * set.residues;
    return {set.first_head + real % set.heads, first + residue, first};
}

WINNOW_HOST_DEVICE constexpr prune_query_row query_row_of(prune_row_set const& set, query_span span,
                                                          std::int32_t stride, std::int32_t walker, std::int32_t row) {
    // Copies of the last row fill the last product: they change no maximum.
    std::int32_t const real = smaller(row, set.rows() - 1), group = set.first_group + real / set.heads;
    return {set.first_head + walker * set.heads + real % set.heads, larger(group * stride, span.first),
            smaller(group * stride + stride - 1, span.last)};
}

}  // namespace winnow
