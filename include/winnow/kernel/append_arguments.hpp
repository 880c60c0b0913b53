// What the append kernel is told: up to three tensors on their way, and the rotation they share.
#pragma once

#include <cstdint>

#include "winnow/core/append_params.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/policy/append_policy.hpp"

namespace winnow {

/// One pair of vectors of a block's rows.
struct append_item {
    std::int32_t row;  ///< of the block
    std::int32_t head;
    std::int32_t column;  ///< of vector_columns
};

/// Keys, values or queries, and where they go. Queries go where they are: a cache of one page whose slots are the rows.
template <class T>
struct append_part {
    T const* source;           ///< [row, head, channel]
    T* target;                 ///< [page, token, head, channel]
    std::int64_t const* slot;  ///< [row]; null: row i has slot i
    std::int64_t source_row, source_head;
    std::int64_t target_page, target_token, target_head;
    std::int64_t pages, page_size;
    vector_columns columns;     ///< `rotary` is 0 for values
    fast_divider row_items;     ///< items of a row: heads * columns
    fast_divider head_columns;  ///< items of a head
    fp8_e4m3* narrow;           ///< not null: the target, of one byte an element
    float const* scale;         ///< of its elements, [scale_heads]; null: 1
    std::int32_t scale_heads;

    [[nodiscard]] WINNOW_HOST_DEVICE constexpr append_item item(std::int32_t i) const {
        std::int32_t const row = row_items.quotient(i), in_row = i - row * row_items.divisor;
        std::int32_t const head = head_columns.quotient(in_row);
        return {row, head, in_row - head * head_columns.divisor};
    }
};

/// Kernel arguments. Block b takes rows [b / part_count * rows_per_block, ...) of part b % part_count: tensors that
/// wait for sines and tensors that do not share a multiprocessor.
template <class T>
struct append_arguments : rotary_arguments {
    append_part<T> parts[3];
    std::int32_t part_count;
    std::int32_t rows_per_block;
    std::int64_t rows;
    std::int32_t const* position;

    [[nodiscard]] constexpr std::int64_t blocks() const {
        return ceil_div(rows, std::int64_t{rows_per_block}) * part_count;
    }
};

namespace detail {

template <class T>
constexpr append_part<T> append_part_of(tensor_view<T const, 3> const& from, tensor_view<T, 4> const& to,
                                        std::int64_t const* slot, std::int32_t pairs) {
    vector_columns const columns{static_cast<std::int32_t>(from.extent[2]) / vector_channels, pairs / vector_channels};
    return {.source = from.data,
            .target = to.data,
            .slot = slot,
            .source_row = from.stride[0],
            .source_head = from.stride[1],
            .target_page = to.stride[0],
            .target_token = to.stride[1],
            .target_head = to.stride[2],
            .pages = to.extent[0],
            .page_size = to.extent[1],
            .columns = columns,
            .row_items = fast_divider(static_cast<std::int32_t>(from.extent[1]) * columns.count()),
            .head_columns = fast_divider(columns.count()),
            .narrow = nullptr,
            .scale = nullptr,
            .scale_heads = 1};
}

}  // namespace detail

/// Arguments of a launch; `p` has passed check().
template <class T>
append_arguments<T> append_arguments_of(append_params<T> const& p) {
    std::int32_t const pairs = p.rotation.pairs(static_cast<std::int32_t>(p.keys.extent[2]));
    append_arguments<T> a{};
    static_cast<rotary_arguments&>(a) = rotary_arguments_of(p.rotation, static_cast<std::int32_t>(p.keys.extent[2]));
    a.rows = p.keys.extent[0];
    a.position = p.position;
    a.rows_per_block = append_rows_of(a.rows, pairs);
    a.parts[a.part_count++] = detail::append_part_of(p.keys, p.key_cache, p.slot, pairs);
    if (p.takes_values()) a.parts[a.part_count++] = detail::append_part_of(p.values, p.value_cache, p.slot, 0);
    if (p.takes_queries()) {
        tensor_view<T, 3> const& q = p.queries;
        tensor_view<T, 4> const rows{
            q.data, {1, q.extent[0], q.extent[1], q.extent[2]}, {0, q.stride[0], q.stride[1], q.stride[2]}};
        a.parts[a.part_count++] = detail::append_part_of<T>(q, rows, nullptr, pairs);
    }
    return a;
}

/// The same for an fp8 cache.
template <class T>
append_arguments<T> append_arguments_of(append_params<T, fp8_e4m3> const& p) {
    append_arguments<T> a = append_arguments_of(as_stored(p));
    a.parts[0].narrow = p.key_cache.data, a.parts[0].scale = p.scales.key, a.parts[0].scale_heads = p.scales.heads;
    if (!p.takes_values()) return a;
    a.parts[1].narrow = p.value_cache.data, a.parts[1].scale = p.scales.value, a.parts[1].scale_heads = p.scales.heads;
    return a;
}

}  // namespace winnow
