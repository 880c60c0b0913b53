// One list of every format, to read and to write: the constexpr functions that host and device conversions share.
//
// A row to read gives ids in any order: count, at(i), where what is no id lies outside [0, limit). A row to write takes
// the list as words of 32 bits, put(word, bits, entries before), in any order, and then finish(entries, ...).
#pragma once

#include <cstdint>

#include "winnow/core/block_formats.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/selection.hpp"

namespace winnow {

/// Index of one list on the axes of its format.
struct list_place {
    std::int32_t batch;  ///< request
    std::int32_t head;   ///< list head
    std::int32_t block;  ///< query block
};

/// Place of list `index`, counted over [batch, head, query block].
WINNOW_HOST_DEVICE constexpr list_place list_place_of(list_axes axes, std::int32_t index) {
    std::int32_t const rows = index / axes.query_blocks;
    return {rows / axes.heads, rows % axes.heads, index % axes.query_blocks};
}

/// Row of a BSR matrix that holds a list; see basic_bsr.
WINNOW_HOST_DEVICE constexpr std::int64_t bsr_row_of(list_axes axes, list_place at) {
    return (std::int64_t{at.head} * axes.batch + at.batch) * axes.query_blocks + at.block;
}

/// Blocks (or pages) of `size` keys that hold `keys` keys; ceil_div, which adds first, would overflow at the limit.
WINNOW_HOST_DEVICE constexpr std::int32_t blocks_of(std::int32_t keys, std::int32_t size) {
    return keys <= 0 ? 0 : (keys - 1) / size + 1;
}

/// Bytes that hold one bit for each key block.
WINNOW_HOST_DEVICE constexpr std::int32_t bit_bytes_of(std::int32_t key_blocks) { return ceil_div(key_blocks, 8); }

// --- Axes of a format's lists ---

/// Axes of a selection's lists; batch -1: any, since requests find their lists through list_row.
template <class Index>
WINNOW_HOST_DEVICE constexpr list_axes axes_of(basic_selection<Index> const& s) {
    return {s.list_row != nullptr ? -1 : static_cast<std::int32_t>(s.blocks.extent[0]), s.list_heads(),
            static_cast<std::int32_t>(s.blocks.extent[2])};
}
/// Axes of a matrix's lists.
template <class Index>
WINNOW_HOST_DEVICE constexpr list_axes axes_of(basic_bsr<Index> const& f) {
    return f.axes;
}
/// Axes of the lists in a tensor [batch, head, query block, ...].
template <class T>
WINNOW_HOST_DEVICE constexpr list_axes axes_of(tensor_view<T, 4> const& v) {
    return {static_cast<std::int32_t>(v.extent[0]), static_cast<std::int32_t>(v.extent[1]),
            static_cast<std::int32_t>(v.extent[2])};
}
/// Axes of counted ids.
template <class Index>
WINNOW_HOST_DEVICE constexpr list_axes axes_of(basic_block_lists<Index> const& f) {
    return axes_of(f.ids);
}
/// Axes of bits.
template <class Byte>
WINNOW_HOST_DEVICE constexpr list_axes axes_of(basic_block_bits<Byte> const& f) {
    return axes_of(f.bytes);
}
/// Axes of flags.
template <class Byte>
WINNOW_HOST_DEVICE constexpr list_axes axes_of(basic_block_flags<Byte> const& f) {
    return axes_of(f.flags);
}

// --- Rows to read ---

/// Ids as they stand, less `base`.
///
/// Every row to read has
/// count: its entries, which may be in any order and repeat ids;
/// at(i): the id of entry i, 0 <= i < count; what lies outside [0, limit) is no id and is to be dropped.
struct id_row {
    std::int32_t const* ids = nullptr;  ///< [count]
    std::int64_t count = 0;             ///< entries
    std::int64_t base = 0;              ///< subtracted from every id
    /// Id of entry i.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t at(std::int64_t i) const { return ids[i] - base; }
};

/// One bit for each id; see basic_block_bits.
struct bit_row {
    std::uint8_t const* bytes = nullptr;  ///< [ceil(count / 8)]
    std::int64_t count = 0;               ///< key blocks
    /// As id_row's: i where bit i is set, else -1.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t at(std::int64_t i) const {
        return (bytes[i / 8] >> (i % 8) & 1) != 0 ? i : -1;
    }
};
/// One byte for each id, zero or not.
struct flag_row {
    std::uint8_t const* flags = nullptr;  ///< [count]
    std::int64_t count = 0;               ///< key blocks
    /// As id_row's: i where flag i is set, else -1.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t at(std::int64_t i) const { return flags[i] != 0 ? i : -1; }
};

/// List of a selection. Counts outside [0, capacity] are clamped; a request whose list_row lies outside the lists has
/// none.
WINNOW_HOST_DEVICE constexpr id_row row_of(block_selection const& s, list_place at, std::int32_t) {
    std::int64_t const row = s.list_row != nullptr ? s.list_row[at.batch] : at.batch;
    if (row < 0 || row >= s.blocks.extent[0]) return {};
    std::int32_t const count = s.counts(row, at.head, at.block);
    return {s.blocks.data + s.blocks.offset(row, at.head, at.block), smaller(larger(count, 0), s.capacity()), 0};
}
/// List of a matrix. Offsets that leave `indices` or go back are clamped.
WINNOW_HOST_DEVICE constexpr id_row row_of(bsr const& f, list_place at, std::int32_t) {
    std::int32_t const* const span = f.indptr + bsr_row_of(f.axes, at);
    std::int64_t const begin = smaller<std::int64_t>(larger(span[0], 0), f.capacity);
    std::int64_t const end = smaller<std::int64_t>(span[1], f.capacity);
    return {f.indices + begin, larger<std::int64_t>(end - begin, 0), std::int64_t{at.batch} * f.column_stride};
}
/// List of counted ids. Counts outside [0, entries] are clamped; without counts every entry is read.
WINNOW_HOST_DEVICE constexpr id_row row_of(block_lists const& f, list_place at, std::int32_t) {
    std::int64_t const most = f.ids.extent[3];
    std::int64_t const count = f.counts.data != nullptr ? f.counts(at.batch, at.head, at.block) : most;
    return {f.ids.data + f.ids.offset(at.batch, at.head, at.block), smaller(larger<std::int64_t>(count, 0), most), 0};
}
/// List of bits, one for each of `key_blocks` key blocks.
WINNOW_HOST_DEVICE constexpr bit_row row_of(block_bits const& f, list_place at, std::int32_t key_blocks) {
    return {f.bytes.data + f.bytes.offset(at.batch, at.head, at.block), key_blocks};
}
/// List of flags, one for each of `key_blocks` key blocks.
WINNOW_HOST_DEVICE constexpr flag_row row_of(block_flags const& f, list_place at, std::int32_t key_blocks) {
    return {f.flags.data + f.flags.offset(at.batch, at.head, at.block), key_blocks};
}

// --- Rows to write ---

/// Ascending ids: the first `capacity` of them, and how many were written.
///
/// Every row to write has
/// columns(limit): ids that put is told of, [0, columns(limit)), where those of the list lie in [0, limit);
/// put(word, bits, before): takes id 32 * word + i for each bit i that is set, where `before` ids of the list are
/// smaller than 32 * word; called once for each word of the columns, in any order;
/// holds(entries): true if a list of `entries` ids fits;
/// finish(entries, last, thread, threads): ends a list of `entries` ids; called by `threads` threads, of which this is
/// number `thread`; `last`: the list holds the id limit - 1.
struct id_writer {
    std::int32_t* ids = nullptr;    ///< [capacity]
    std::int32_t capacity = 0;      ///< ids that fit
    std::int32_t base = 0;          ///< added to every id
    std::int32_t* count = nullptr;  ///< null: not wanted
    std::int32_t padded_end = 0;    ///< entries from the count up to here become `padding`
    std::int32_t padding = 0;       ///< value of entries behind the count
    bool nowhere = false;           ///< there is no such row, and nothing is written

    /// The limit; 0 where there is no such row.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t columns(std::int32_t limit) const {
        return nowhere ? 0 : limit;
    }
    /// At most `capacity` fit.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool holds(std::int32_t entries) const { return entries <= capacity; }
    /// Writes ids from entry `before` on, and drops those behind the capacity.
    WINNOW_HOST_DEVICE constexpr void put(std::int32_t word, std::uint32_t bits, std::int32_t before) const {
        for (std::int32_t id = word * 32 + base; bits != 0; ++id, bits >>= 1)
            if ((bits & 1) != 0) {
                if (before < capacity) ids[before] = id;
                ++before;
            }
    }
    /// Writes the count and the padding.
    WINNOW_HOST_DEVICE constexpr void finish(std::int32_t entries, bool /*last*/, std::int32_t thread,
                                             std::int32_t threads) const {
        std::int32_t const kept = smaller(entries, capacity);
        if (thread == 0 && count != nullptr) *count = kept;
        for (std::int32_t i = kept + thread; i < padded_end; i += threads) ids[i] = padding;
    }
};

/// How many ids there are, and nothing else: the first pass over a BSR matrix.
struct count_writer {
    std::int32_t* count = nullptr;  ///< receives the entries
    /// As id_writer's.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t columns(std::int32_t limit) const { return limit; }
    /// As id_writer's; any list fits.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool holds(std::int32_t) const { return true; }
    /// As id_writer's; writes nothing.
    WINNOW_HOST_DEVICE constexpr void put(std::int32_t, std::uint32_t, std::int32_t) const {}
    /// As id_writer's; writes the count.
    WINNOW_HOST_DEVICE constexpr void finish(std::int32_t entries, bool, std::int32_t thread, std::int32_t) const {
        if (thread == 0) *count = entries;
    }
};

/// One bit for each id, 8 a byte; see basic_block_bits.
struct bit_writer {
    std::uint8_t* bytes = nullptr;  ///< [ceil(key_blocks / 8)]
    std::int32_t key_blocks = 0;    ///< ids that the row has bits for
    /// As id_writer's; every id of the row, also from the limit on.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t columns(std::int32_t) const { return key_blocks; }
    /// As id_writer's; any list fits.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool holds(std::int32_t) const { return true; }
    /// As id_writer's.
    WINNOW_HOST_DEVICE constexpr void put(std::int32_t word, std::uint32_t bits, std::int32_t) const {
        std::int32_t const end = smaller(word * 4 + 4, bit_bytes_of(key_blocks));
        for (std::int32_t i = word * 4; i < end; ++i, bits >>= 8) bytes[i] = static_cast<std::uint8_t>(bits & 255u);
    }
    /// As id_writer's; nothing is left to do.
    WINNOW_HOST_DEVICE constexpr void finish(std::int32_t, bool, std::int32_t, std::int32_t) const {}
};

/// One byte for each id, 0 or 1.
struct flag_writer {
    std::uint8_t* flags = nullptr;  ///< [key_blocks]
    std::int32_t key_blocks = 0;    ///< ids that the row has flags for
    /// As id_writer's; every id of the row, also from the limit on.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t columns(std::int32_t) const { return key_blocks; }
    /// As id_writer's; any list fits.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool holds(std::int32_t) const { return true; }
    /// As id_writer's.
    WINNOW_HOST_DEVICE constexpr void put(std::int32_t word, std::uint32_t bits, std::int32_t) const {
        std::int32_t const end = smaller(word * 32 + 32, key_blocks);
        for (std::int32_t i = word * 32; i < end; ++i, bits >>= 1) flags[i] = static_cast<std::uint8_t>(bits & 1u);
    }
    /// As id_writer's; nothing is left to do.
    WINNOW_HOST_DEVICE constexpr void finish(std::int32_t, bool, std::int32_t, std::int32_t) const {}
};

/// A BSR matrix whose rows are only counted so far: indptr[r + 1] receives the entries of row r.
struct bsr_counts {
    bsr_buffer matrix = {};  ///< `indices` are not touched
};
/// Axes of the matrix's lists.
WINNOW_HOST_DEVICE constexpr list_axes axes_of(bsr_counts const& f) { return f.matrix.axes; }

/// List of a selection. A request whose list_row lies outside the lists is not written.
WINNOW_HOST_DEVICE constexpr id_writer writer_of(block_selection_buffer const& s, list_place at, std::int32_t) {
    std::int64_t const row = s.list_row != nullptr ? s.list_row[at.batch] : at.batch;
    if (row < 0 || row >= s.blocks.extent[0]) return {.nowhere = true};
    return {s.blocks.data + s.blocks.offset(row, at.head, at.block), s.capacity(), 0,
            s.counts.data + s.counts.offset(row, at.head, at.block)};
}
/// Count of a matrix's list, written where the row's end offset will stand.
WINNOW_HOST_DEVICE constexpr count_writer writer_of(bsr_counts const& f, list_place at, std::int32_t) {
    return {f.matrix.indptr + bsr_row_of(f.matrix.axes, at) + 1};
}
/// List of a matrix. Needs indptr; where that was clamped to the capacity, so is the row.
WINNOW_HOST_DEVICE constexpr id_writer writer_of(bsr_buffer const& f, list_place at, std::int32_t) {
    std::int32_t const* const span = f.indptr + bsr_row_of(f.axes, at);
    return {f.indices + span[0], span[1] - span[0], at.batch * f.column_stride};
}
/// List of counted ids, padded to the last entry.
WINNOW_HOST_DEVICE constexpr id_writer writer_of(block_lists_buffer const& f, list_place at, std::int32_t) {
    auto const most = static_cast<std::int32_t>(f.ids.extent[3]);
    return {f.ids.data + f.ids.offset(at.batch, at.head, at.block),
            most,
            0,
            f.counts.data != nullptr ? f.counts.data + f.counts.offset(at.batch, at.head, at.block) : nullptr,
            most,
            f.padding};
}
/// List of bits, one for each of `key_blocks` key blocks.
WINNOW_HOST_DEVICE constexpr bit_writer writer_of(block_bits_buffer const& f, list_place at, std::int32_t key_blocks) {
    return {f.bytes.data + f.bytes.offset(at.batch, at.head, at.block), key_blocks};
}
/// List of flags, one for each of `key_blocks` key blocks.
WINNOW_HOST_DEVICE constexpr flag_writer writer_of(block_flags_buffer const& f, list_place at,
                                                   std::int32_t key_blocks) {
    return {f.flags.data + f.flags.offset(at.batch, at.head, at.block), key_blocks};
}

}  // namespace winnow
