// What a conversion between formats of block lists is asked to do, and the lists that it consists of.
#pragma once

#include <cstdint>

#include "winnow/core/block_formats.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/list_rows.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/selection.hpp"

namespace winnow {

/// `to` receives the lists of `from`; one of the two is a block_selection (to read) or block_selection_buffer (to write).
///
/// Whatever stands in `from`, the lists of `to` ascend, are unique and counted, and hold ids in range: other ids are
/// dropped. `to` has the batch of `from`. It may have more heads, a multiple: list head h of `to` is list_head_of(h, ...)
/// of `from`. The selection may have more query blocks than the other format: those are not read, or become empty.
template <class From, class To>
struct convert_params {
    From from = {};                            ///< lists to read
    To to = {};                                ///< lists to write
    std::int32_t key_blocks = 0;               ///< blocks of the longest context; ids lie in [0, key_blocks)
    std::int32_t const* key_length = nullptr;  ///< [batch] keys per request, bounds the ids of each; optional
    std::int64_t* needed = nullptr;            ///< receives 0, or the capacity that would have been enough; optional
};

/// Block size of the selection among two formats.
template <class Index, class Other>
WINNOW_HOST_DEVICE constexpr std::int32_t block_size_of(basic_selection<Index> const& s, Other const&) {
    return s.block_size;
}
/// Likewise, where it is the second.
template <class Other, class Index>
WINNOW_HOST_DEVICE constexpr std::int32_t block_size_of(Other const&, basic_selection<Index> const& s) {
    return s.block_size;
}
/// Likewise, where both are: the first one's.
template <class A, class B>
WINNOW_HOST_DEVICE constexpr std::int32_t block_size_of(basic_selection<A> const& s, basic_selection<B> const&) {
    return s.block_size;
}

/// A conversion as independent lists, counted over the axes of `to`.
template <class From, class To>
struct convert_job {
    convert_params<From, To> params;  ///< what is asked for

    /// Axes of `to`; with list_row, its batch is that of `from`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr list_axes axes() const {
        list_axes a = axes_of(params.to);
        if (a.batch < 0) a.batch = axes_of(params.from).batch;
        return a;
    }
    /// Place of list number `list` on those axes.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr list_place place(std::int32_t list) const {
        return list_place_of(axes(), list);
    }
    /// The list of `from`; no entries where `from` has no such query block.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr auto row(std::int32_t list) const {
        list_axes const a = axes_of(params.from);
        list_place at = place(list);
        using row_type = decltype(row_of(params.from, at, params.key_blocks));
        if (at.block >= a.query_blocks) return row_type{};
        at.head = list_head_of(at.head, axes().heads, a.heads);
        return row_of(params.from, at, params.key_blocks);
    }
    /// The list of `to`.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr auto writer(std::int32_t list) const {
        return writer_of(params.to, place(list), params.key_blocks);
    }
    /// Ids of the list lie below it.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t limit(std::int32_t list) const {
        if (params.key_length == nullptr) return params.key_blocks;
        return smaller(params.key_blocks,
                       blocks_of(params.key_length[place(list).batch], block_size_of(params.from, params.to)));
    }
    /// See convert_params.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t* needed() const { return params.needed; }
};

}  // namespace winnow
