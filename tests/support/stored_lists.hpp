// Sets of key blocks and each format's memory for them, written and read by plain loops that share no code with the
// library's conversions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "support/random_input.hpp"
#include "winnow/core/block_formats.hpp"
#include "winnow/core/selection.hpp"

namespace winnow::testing {

/// The key blocks of every list: what all formats mean.
struct block_sets {
    list_axes axes;
    std::int32_t key_blocks = 0;
    std::vector<std::set<std::int32_t>> lists;  ///< [batch, head, query block]

    block_sets() = default;
    block_sets(list_axes a, std::int32_t blocks)
        : axes(a), key_blocks(blocks), lists(static_cast<std::size_t>(a.count())) {}
    std::set<std::int32_t>& at(std::int32_t b, std::int32_t h, std::int32_t m) {
        return lists[static_cast<std::size_t>((std::int64_t{b} * axes.heads + h) * axes.query_blocks + m)];
    }
    std::set<std::int32_t> const& at(std::int32_t b, std::int32_t h, std::int32_t m) const {
        return const_cast<block_sets&>(*this).at(b, h, m);
    }
    std::int32_t longest() const {
        std::size_t most = 0;
        for (auto const& list : lists) most = std::max(most, list.size());
        return static_cast<std::int32_t>(most);
    }
    std::int64_t entries() const {
        std::size_t sum = 0;
        for (auto const& list : lists) sum += list.size();
        return static_cast<std::int64_t>(sum);
    }
    template <class F>
    void for_each(F const& f) const {
        for (std::int32_t b = 0; b < axes.batch; ++b)
            for (std::int32_t h = 0; h < axes.heads; ++h)
                for (std::int32_t m = 0; m < axes.query_blocks; ++m) f(b, h, m, at(b, h, m));
    }
    friend bool operator==(block_sets const& a, block_sets const& b) { return a.lists == b.lists; }
};

/// Random sets; about one list in six is empty, and one holds everything.
inline block_sets random_sets(list_axes axes, std::int32_t key_blocks, double density, std::uint64_t seed) {
    random_source random(seed);
    block_sets sets(axes, key_blocks);
    for (auto& list : sets.lists) {
        std::int32_t const kind = random.below(6);
        for (std::int32_t j = 0; j < key_blocks && kind > 0; ++j)
            if (kind == 1 || random.uniform() < density) list.insert(j);
    }
    return sets;
}

/// How entries of a list of ids are laid out for reading.
enum class disorder : std::int32_t {
    none,  ///< ascending and unique
    mixed  ///< shuffled, with duplicates and with ids that are out of range
};

/// The entries that stand for a set.
inline std::vector<std::int32_t> entries_of(std::set<std::int32_t> const& list, std::int32_t key_blocks, disorder how,
                                            random_source& random) {
    std::vector<std::int32_t> entries(list.begin(), list.end());
    if (how == disorder::none) return entries;
    for (std::int32_t const bad : {-1, key_blocks, 2147483647, -2147483647 - 1}) entries.push_back(bad);
    for (std::size_t i = 0; i < list.size(); i += 3) entries.push_back(entries[i]);
    for (std::size_t i = entries.size(); i > 1; --i)
        std::swap(entries[i - 1], entries[static_cast<std::size_t>(random.below(static_cast<std::int32_t>(i)))]);
    return entries;
}
/// Entries that entries_of may make of `lists` sets of `n` ids in all.
constexpr std::int64_t disordered(std::int64_t n, std::size_t lists) {
    return n + n / 3 + 6 * static_cast<std::int64_t>(lists);
}

/// A strided view over [a, b, c, d] whose rows and outer axes have gaps between them.
template <class T>
tensor_view<T, 4> gapped_view(T* data, list_axes axes, std::int64_t width) {
    tensor_view<T, 4> v;
    v.data = data;
    std::int64_t const extent[] = {axes.batch, axes.heads, axes.query_blocks, width};
    std::int64_t stride = 1;
    for (int axis = 3; axis >= 0; --axis) {
        v.extent[axis] = extent[axis], v.stride[axis] = stride;
        stride *= extent[axis] + (axis == 3 ? 3 : 1);
    }
    return v;
}
inline std::size_t gapped_size(list_axes axes, std::int64_t width) {
    return static_cast<std::size_t>((axes.batch + 1) * std::int64_t{axes.heads + 1} * (axes.query_blocks + 1) *
                                    (width + 3));
}
template <class T>
tensor_view<T, 3> counts_view(T* data, list_axes axes) {
    return packed_view(data, {std::int64_t{axes.batch}, std::int64_t{axes.heads}, std::int64_t{axes.query_blocks}});
}

/// Memory of a format in an arena, all bytes 0x5a at first; view(base) is valid for a copy of the arena at `base`.
/// `entries`: capacity of a list (of the whole matrix, for BSR); capacity_for(sets) is just enough, room_for(sets) enough
/// for sets in disorder.
struct stored_selection {
    using buffer = block_selection_buffer;
    using reading = block_selection;
    list_axes axes;
    std::int32_t capacity, key_blocks;
    std::size_t blocks, counts;

    stored_selection(arena& memory, list_axes a, std::int32_t key_block_count, std::int64_t entries)
        : axes(a), capacity(static_cast<std::int32_t>(entries)), key_blocks(key_block_count),
          blocks(memory.take<std::int32_t>(gapped_size(a, entries))),
          counts(memory.take<std::int32_t>(static_cast<std::size_t>(a.count()))) {}
    buffer view(void* base) const {
        buffer s;
        auto* const bytes = static_cast<char*>(base);
        s.blocks = gapped_view(reinterpret_cast<std::int32_t*>(bytes + blocks), axes, capacity);
        s.counts = counts_view(reinterpret_cast<std::int32_t*>(bytes + counts), axes);
        s.block_size = 16, s.query_block = 32;
        return s;
    }
    void write(void* base, block_sets const& sets, disorder how, random_source& random) const {
        auto const s = view(base);
        sets.for_each([&](std::int32_t b, std::int32_t h, std::int32_t m, auto const& list) {
            auto const entries = entries_of(list, key_blocks, how, random);
            for (std::size_t i = 0; i < entries.size(); ++i) s.blocks(b, h, m, i) = entries[i];
            s.counts(b, h, m) = static_cast<std::int32_t>(entries.size());
        });
    }
    /// False: a list is not ascending and unique.
    bool read(void* base, block_sets& sets) const {
        auto const s = view(base);
        bool good = true;
        for (std::int32_t b = 0; b < axes.batch; ++b)
            for (std::int32_t h = 0; h < axes.heads; ++h)
                for (std::int32_t m = 0; m < axes.query_blocks; ++m)
                    for (std::int32_t i = 0; i < s.counts(b, h, m); ++i) {
                        good = good && (i == 0 || s.blocks(b, h, m, i - 1) < s.blocks(b, h, m, i));
                        sets.at(b, h, m).insert(s.blocks(b, h, m, i));
                    }
        return good;
    }
    static std::int64_t capacity_for(block_sets const& sets) { return sets.longest(); }
    static std::int64_t room_for(block_sets const& sets) { return disordered(sets.longest(), 1); }
};

struct stored_bsr {
    using buffer = bsr_buffer;
    using reading = bsr;
    list_axes axes;
    std::int64_t capacity;
    std::int32_t key_blocks;
    std::int32_t column_stride = 0;
    std::size_t indptr, indices;

    stored_bsr(arena& memory, list_axes a, std::int32_t key_block_count, std::int64_t entries)
        : axes(a), capacity(entries), key_blocks(key_block_count),
          indptr(memory.take<std::int32_t>(static_cast<std::size_t>(a.count()) + 1)),
          indices(memory.take<std::int32_t>(static_cast<std::size_t>(entries) + 1)) {}
    buffer view(void* base) const {
        auto* const bytes = static_cast<char*>(base);
        return {reinterpret_cast<std::int32_t*>(bytes + indptr), reinterpret_cast<std::int32_t*>(bytes + indices),
                capacity, axes, column_stride};
    }
    void write(void* base, block_sets const& sets, disorder how, random_source& random) const {
        auto const f = view(base);
        std::int32_t row = 0;
        f.indptr[0] = 0;
        for (std::int32_t h = 0; h < axes.heads; ++h)
            for (std::int32_t b = 0; b < axes.batch; ++b)
                for (std::int32_t m = 0; m < axes.query_blocks; ++m, ++row) {
                    std::int32_t at = f.indptr[row];
                    // Another request's columns are as far out of range as any.
                    for (std::int32_t const id : entries_of(sets.at(b, h, m), key_blocks, how, random))
                        f.indices[at++] = id < 0 || id > key_blocks ? id : id + b * column_stride;
                    f.indptr[row + 1] = at;
                }
    }
    bool read(void* base, block_sets& sets) const {
        auto const f = view(base);
        std::int32_t row = 0;
        bool good = f.indptr[0] == 0;
        for (std::int32_t h = 0; h < axes.heads; ++h)
            for (std::int32_t b = 0; b < axes.batch; ++b)
                for (std::int32_t m = 0; m < axes.query_blocks; ++m, ++row)
                    for (std::int32_t i = f.indptr[row]; i < f.indptr[row + 1]; ++i) {
                        good = good && (i == f.indptr[row] || f.indices[i - 1] < f.indices[i]);
                        sets.at(b, h, m).insert(f.indices[i] - b * column_stride);
                    }
        return good;
    }
    static std::int64_t capacity_for(block_sets const& sets) { return sets.entries(); }
    static std::int64_t room_for(block_sets const& sets) { return disordered(sets.entries(), sets.lists.size()); }
};

struct stored_block_lists {
    using buffer = block_lists_buffer;
    using reading = block_lists;
    list_axes axes;
    std::int64_t capacity;
    std::int32_t key_blocks;
    std::size_t ids, counts;
    bool counted = true;
    std::int32_t padding = 0;

    stored_block_lists(arena& memory, list_axes a, std::int32_t key_block_count, std::int64_t entries)
        : axes(a), capacity(entries), key_blocks(key_block_count),
          ids(memory.take<std::int32_t>(gapped_size(a, entries))),
          counts(memory.take<std::int32_t>(static_cast<std::size_t>(a.count()))) {}
    buffer view(void* base) const {
        auto* const bytes = static_cast<char*>(base);
        buffer f;
        f.ids = gapped_view(reinterpret_cast<std::int32_t*>(bytes + ids), axes, capacity);
        if (counted) f.counts = counts_view(reinterpret_cast<std::int32_t*>(bytes + counts), axes);
        f.padding = padding;
        return f;
    }
    void write(void* base, block_sets const& sets, disorder how, random_source& random) const {
        auto const f = view(base);
        sets.for_each([&](std::int32_t b, std::int32_t h, std::int32_t m, auto const& list) {
            auto const entries = entries_of(list, key_blocks, how, random);
            for (std::int64_t i = 0; i < capacity; ++i)
                f.ids(b, h, m, i) =
                    i < static_cast<std::int64_t>(entries.size()) ? entries[static_cast<std::size_t>(i)] : padding;
            if (counted) f.counts(b, h, m) = static_cast<std::int32_t>(entries.size());
        });
    }
    bool read(void* base, block_sets& sets) const {
        auto const f = view(base);
        bool good = true;
        for (std::int32_t b = 0; b < axes.batch; ++b)
            for (std::int32_t h = 0; h < axes.heads; ++h)
                for (std::int32_t m = 0; m < axes.query_blocks; ++m) {
                    std::int64_t n = 0;
                    while (n < capacity && (counted ? n < f.counts(b, h, m) : f.ids(b, h, m, n) != padding)) ++n;
                    for (std::int64_t i = 0; i < capacity; ++i) {
                        if (i < n)
                            sets.at(b, h, m).insert(f.ids(b, h, m, i));
                        else
                            good = good && f.ids(b, h, m, i) == padding;
                        if (i > 0 && i < n) good = good && f.ids(b, h, m, i - 1) < f.ids(b, h, m, i);
                    }
                }
        return good;
    }
    static std::int64_t capacity_for(block_sets const& sets) { return sets.longest(); }
    static std::int64_t room_for(block_sets const& sets) { return disordered(sets.longest(), 1); }
};

/// The same without counts, padded with -1.
struct stored_padded_lists : stored_block_lists {
    stored_padded_lists(arena& memory, list_axes a, std::int32_t key_block_count, std::int64_t entries)
        : stored_block_lists(memory, a, key_block_count, entries) {
        counted = false;
        padding = -1;
    }
};

/// Bits or bytes: [batch, head, query block, width].
template <class Buffer, class Reading, int BitsPerByte>
struct stored_dense {
    using buffer = Buffer;
    using reading = Reading;
    list_axes axes;
    std::int32_t key_blocks;
    std::size_t bytes;

    stored_dense(arena& memory, list_axes a, std::int32_t key_block_count, std::int64_t)
        : axes(a), key_blocks(key_block_count), bytes(memory.take<std::uint8_t>(gapped_size(a, width()))) {}
    std::int64_t width() const { return (key_blocks + BitsPerByte - 1) / BitsPerByte; }
    tensor_view<std::uint8_t, 4> tensor(void* base) const {
        return gapped_view(reinterpret_cast<std::uint8_t*>(static_cast<char*>(base) + bytes), axes, width());
    }
    buffer view(void* base) const { return {tensor(base)}; }
    void write(void* base, block_sets const& sets, disorder how, random_source& random) const {
        auto const v = tensor(base);
        sets.for_each([&](std::int32_t b, std::int32_t h, std::int32_t m, auto const& list) {
            for (std::int64_t i = 0; i < width(); ++i) v(b, h, m, i) = 0;
            if constexpr (BitsPerByte == 8) {
                for (std::int32_t const j : list)
                    v(b, h, m, j / 8) = static_cast<std::uint8_t>(v(b, h, m, j / 8) | 1 << j % 8);
                // What stands behind the last block is never read.
                for (std::int32_t j = key_blocks; how == disorder::mixed && j < width() * 8; ++j)
                    v(b, h, m, j / 8) = static_cast<std::uint8_t>(v(b, h, m, j / 8) | 1 << j % 8);
            } else {
                for (std::int32_t const j : list)
                    v(b, h, m, j) = static_cast<std::uint8_t>(how == disorder::mixed ? random.between(1, 255) : 1);
            }
        });
    }
    bool read(void* base, block_sets& sets) const {
        auto const v = tensor(base);
        bool good = true;
        for (std::int32_t b = 0; b < axes.batch; ++b)
            for (std::int32_t h = 0; h < axes.heads; ++h)
                for (std::int32_t m = 0; m < axes.query_blocks; ++m)
                    for (std::int32_t j = 0; j < width() * BitsPerByte; ++j) {
                        int const value = BitsPerByte == 8 ? v(b, h, m, j / 8) >> j % 8 & 1 : v(b, h, m, j);
                        good = good && (value == 0 || (value == 1 && j < key_blocks));
                        if (value != 0) sets.at(b, h, m).insert(j);
                    }
        return good;
    }
    static std::int64_t capacity_for(block_sets const&) { return 0; }
    static std::int64_t room_for(block_sets const&) { return 0; }
};
using stored_bits = stored_dense<block_bits_buffer, block_bits, 8>;
using stored_flags = stored_dense<block_flags_buffer, block_flags, 1>;

/// Every byte of the arena becomes 0x5a, so that what is not written shows.
inline void poison(arena& memory) { std::memset(memory.base(), 0x5a, memory.size()); }

}  // namespace winnow::testing
