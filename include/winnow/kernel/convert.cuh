// Conversion kernels: any list goes through a window of bits in shared memory, which sorts it and drops duplicates.
//
//   window[id / 32] |= 1 << id % 32 for every entry in range;  then each word is written behind the entries before it.
#pragma once

#include <cstdint>

#include "winnow/core/block_formats.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/tile/block_sum.cuh"

namespace winnow {

inline constexpr int convert_threads = 128;
/// Blocks of a multiprocessor that registers must allow. Without it ptxas aims at more of them, and spills.
inline constexpr int convert_blocks = 8;
/// 8 KB, 65536 ids: a million keys in blocks of 16 take one pass. Longer contexts read their lists once per window.
inline constexpr std::int32_t convert_window_words = 2048;

/// One block per list of a job (convert_job, pack_pages_job).
template <class Job>
__global__ void __launch_bounds__(convert_threads, convert_blocks) copy_lists(Job const __grid_constant__ job) {
    __shared__ std::uint32_t words[convert_window_words];
    __shared__ block_sum_storage<convert_threads, std::int32_t> sums;
    std::int32_t const t = threadIdx.x;
    auto const list = static_cast<std::int32_t>(blockIdx.x);
    auto const row = job.row(list);
    auto const writer = job.writer(list);
    std::int32_t const limit = job.limit(list);
    std::int32_t const word_count = static_cast<std::int32_t>(ceil_div<std::int64_t>(writer.columns(limit), 32));
    std::int32_t entries = 0;
    bool last = false;  // the id limit - 1 is in the list
    for (std::int32_t first = 0; first < word_count; first += convert_window_words) {
        std::int32_t const count = smaller(word_count - first, convert_window_words);
        std::int64_t const low = std::int64_t{first} * 32;
        std::int64_t const high = smaller<std::int64_t>(low + count * 32, limit);
        for (std::int32_t w = t; w < count; w += convert_threads) words[w] = 0;
        __syncthreads();
        for (std::int64_t i = t; i < row.count; i += convert_threads) {
            std::int64_t const id = row.at(i);
            if (id < low || id >= high) continue;
            auto const bit = static_cast<std::uint32_t>(id - low);
            atomicOr(&words[bit / 32], 1u << (bit % 32));
        }
        __syncthreads();
        for (std::int32_t base = 0; base < count; base += convert_threads) {
            std::int32_t const w = base + t;
            std::uint32_t const bits = w < count ? words[w] : 0;
            auto const sum = block_sum<convert_threads, std::int32_t>(sums, __popc(bits));
            if (w < count) writer.put(first + w, bits, entries + sum.before);
            entries += sum.all;
        }
        if (low < limit && high == limit) {
            auto const bit = static_cast<std::uint32_t>(limit - 1 - low);
            last = (words[bit / 32] >> (bit % 32) & 1u) != 0;
        }
        __syncthreads();  // the window has been read
    }
    writer.finish(entries, last, t, convert_threads);
    if (t == 0 && job.needed() != nullptr && !writer.holds(entries))
        atomicMax(reinterpret_cast<unsigned long long*>(job.needed()), static_cast<unsigned long long>(entries));
}

/// Rows of a BSR matrix that each thread of sum_rows takes at a time.
inline constexpr int rows_per_thread = 4;
inline constexpr int sum_rows_threads = 1024;

/// Where the sums of a matrix go.
struct sum_rows_arguments {
    bsr_buffer matrix;
    std::int64_t* needed;  ///< see convert_params
};

/// One block: turns the counts in indptr[1 ..] into offsets, clamped to the capacity.
template <int Threads>
__global__ void __launch_bounds__(Threads) sum_rows(sum_rows_arguments const __grid_constant__ a) {
    __shared__ block_sum_storage<Threads, std::int64_t> sums;
    std::int32_t* const offsets = a.matrix.indptr + 1;
    std::int64_t const rows = a.matrix.axes.count();
    std::int64_t entries = 0;
    for (std::int64_t base = 0; base < rows; base += Threads * rows_per_thread) {
        std::int64_t const mine = base + static_cast<std::int64_t>(threadIdx.x) * rows_per_thread;
        std::int64_t count[rows_per_thread], total = 0;
        WINNOW_UNROLL
        for (int i = 0; i < rows_per_thread; ++i) total += count[i] = mine + i < rows ? offsets[mine + i] : 0;
        auto const sum = block_sum(sums, total);
        std::int64_t end = entries + sum.before;
        WINNOW_UNROLL
        for (int i = 0; i < rows_per_thread; ++i) {
            end += count[i];
            if (mine + i < rows) offsets[mine + i] = static_cast<std::int32_t>(smaller(end, a.matrix.capacity));
        }
        entries += sum.all;
    }
    if (threadIdx.x != 0) return;
    a.matrix.indptr[0] = 0;
    if (a.needed != nullptr) *a.needed = entries > a.matrix.capacity ? entries : 0;
}

}  // namespace winnow
