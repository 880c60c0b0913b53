// Conversions between a selection and the formats that engines exchange, on host pointers.
//
//   to(b, h, m) = { j in from(b, h, m) : 0 <= j < key_blocks },  ascending, unique, counted.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "winnow/core/convert_params.hpp"
#include "winnow/core/list_rows.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/pack_pages.hpp"
#include "winnow/op/convert.hpp"

namespace winnow::reference {

/// Writes lists [0, lists) of a job. Returns the most entries that a list had and its row did not hold, or 0.
template <class Job>
std::int64_t copy_lists(Job const& job, std::int64_t lists) {
    std::int64_t needed = 0;
    std::vector<std::uint32_t> words;
    for (std::int32_t list = 0; list < lists; ++list) {
        auto const row = job.row(list);
        auto const writer = job.writer(list);
        std::int64_t const limit = job.limit(list), columns = writer.columns(static_cast<std::int32_t>(limit));
        words.assign(static_cast<std::size_t>(ceil_div<std::int64_t>(columns, 32)), 0);
        auto const word_of = [&](std::int64_t id) -> std::uint32_t& {
            return words[static_cast<std::size_t>(id / 32)];
        };
        for (std::int64_t i = 0; i < row.count && columns > 0; ++i) {
            std::int64_t const id = row.at(i);
            if (id >= 0 && id < limit) word_of(id) |= 1u << (id % 32);
        }
        std::int32_t entries = 0;
        for (std::size_t w = 0; w < words.size(); ++w) {
            writer.put(static_cast<std::int32_t>(w), words[w], entries);
            entries += std::popcount(words[w]);
        }
        bool const last = columns > 0 && limit > 0 && (word_of(limit - 1) >> ((limit - 1) % 32) & 1) != 0;
        writer.finish(entries, last, 0, 1);
        if (!writer.holds(entries)) needed = larger<std::int64_t>(needed, entries);
    }
    return needed;
}

/// Converts `p` on host pointers. A list or matrix that does not fit is cut to its first ids, as on the device, and
/// reported: out_of_range with the capacity that would have been enough.
template <class From, class To>
status convert(convert_params<From, To> const& p) {
    if (auto s = check(p); !s) return s;
    std::int64_t needed = 0;
    if constexpr (std::is_same_v<To, bsr_buffer>) {
        std::int64_t const rows = p.to.axes.count();
        convert_params<From, bsr_counts> const counting{p.from, {p.to}, p.key_blocks, p.key_length, nullptr};
        copy_lists(convert_job<From, bsr_counts>{counting}, rows);
        std::int64_t entries = 0;
        p.to.indptr[0] = 0;
        for (std::int64_t row = 0; row < rows; ++row) {
            entries += p.to.indptr[row + 1];
            p.to.indptr[row + 1] = static_cast<std::int32_t>(smaller(entries, p.to.capacity));
        }
        copy_lists(convert_job<From, To>{p}, rows);
        needed = entries > p.to.capacity ? entries : 0;
    } else {
        convert_job<From, To> const job{p};
        needed = copy_lists(job, job.axes().count());
    }
    if (p.needed != nullptr) *p.needed = needed;
    return needed == 0 ? status{} : not_held(capacity_field(p.to), needed);
}

/// Packs page tables on host pointers; a table that does not fit is cut and reported likewise.
inline status pack_pages(pack_pages_params const& p) {
    if (auto s = check(p); !s) return s;
    std::int64_t const needed = copy_lists(pack_pages_job{p}, p.pages.extent[0] * p.pages.extent[1]);
    if (p.needed != nullptr) *p.needed = needed;
    return needed == 0 ? status{} : not_held("pages.extent[2]", needed);
}

}  // namespace winnow::reference
