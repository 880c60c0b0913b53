// Launches conversions between a selection and the formats that engines exchange, and the packing of page tables.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "winnow/core/device_query.cuh"
#include "winnow/kernel/convert.cuh"
#include "winnow/op/convert.hpp"
#include "winnow/op/launch_kernel.cuh"

namespace winnow {

/// Launches the lists of a job; `needed`, where it is wanted, starts at 0.
template <class Job>
status launch_lists(Job const& job, std::int64_t lists, cudaStream_t stream) {
    if (job.needed() != nullptr)
        if (auto s = cuda_status(cudaMemsetAsync(job.needed(), 0, sizeof(std::int64_t), stream), "cudaMemsetAsync"); !s)
            return s;
    return launch_kernel(copy_lists<Job>, dim3(static_cast<unsigned>(lists)), convert_threads, 0, stream, job);
}

/// Deterministic, allocates nothing, may be captured in a graph. The workspace may be empty. A list or matrix that does
/// not fit is cut to its first ids, and p.needed says so.
template <class From, class To>
status launch(convert_params<From, To> const& p, convert_plan const& plan, workspace, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    if constexpr (std::is_same_v<To, bsr_buffer>) {
        // The counts of the rows, their sums, and the ids; the last needs no report, since the sums know all.
        std::int64_t const rows = p.to.axes.count();
        convert_params<From, bsr_counts> const counting{p.from, {p.to}, p.key_blocks, p.key_length, nullptr};
        if (auto s = launch_lists(convert_job<From, bsr_counts>{counting}, rows, stream); !s) return s;
        sum_rows_arguments const sums{p.to, p.needed};
        if (auto s = launch_kernel(sum_rows<sum_rows_threads>, dim3(1), sum_rows_threads, 0, stream, sums); !s)
            return s;
        convert_params<From, To> filling = p;
        filling.needed = nullptr;
        return launch_lists(convert_job<From, To>{filling}, rows, stream);
    } else {
        convert_job<From, To> const job{p};
        return launch_lists(job, job.axes().count(), stream);
    }
}

/// Likewise. A template, so that including this header instantiates no kernel.
template <class Job = pack_pages_job>
status launch(pack_pages_params const& p, convert_plan const& plan, workspace, cudaStream_t stream) {
    if (!plan) return plan.why;
    if (auto s = check(p); !s) return s;
    return launch_lists(Job{p}, p.pages.extent[0] * p.pages.extent[1], stream);
}

}  // namespace winnow
