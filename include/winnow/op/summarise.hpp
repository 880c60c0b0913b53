// Summaries of chunks of keys for the scorers mean_key and min_max_bound: filled once, then kept up with the cache.
//
//   mean: fp32 sum of a chunk's keys / their number, rounded;   bounds: largest and smallest value of each channel
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/device_info.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/summarise_params.hpp"
#include "winnow/core/workspace.hpp"
#include "winnow/op/check.hpp"
#include "winnow/op/prune.hpp"

namespace winnow {

/// Outcome of planning: nothing but a status.
struct summarise_plan {
    status why;                       ///< ok, or the reason there is no plan
    std::size_t workspace_bytes = 0;  ///< always 0
    /// True if there is a plan.
    [[nodiscard]] constexpr explicit operator bool() const { return why.ok(); }
};

/// Validates everything that can be seen without dereferencing device memory. Returns the first broken rule.
template <class T>
constexpr status check(summarise_params<T> const& p) {
    if (p.batch < 0) return fail(errc::out_of_range, "batch", "must be >= 0", p.batch);
    if (auto s = check_queries_and_keys(p.queries(), {}, p.keys, p.kv); !s) return s;
    if (auto s = check(p.method); !s) return s;
    if (p.summary.data == nullptr) return fail(errc::null_pointer, "summary.data", "must not be null", 0);
    if (auto s = check_summary(key_summary<T const>(p.summary), p.method, p.shape()); !s) return s;
    if (auto s = check_pointer(p.known, false, "known"); !s) return s;
    if (p.max_new < 0) return fail(errc::out_of_range, "max_new", "must be >= 0", p.max_new);
    return {};
}

/// Pure host arithmetic: no CUDA call, no tensor is read.
template <class T>
constexpr summarise_plan plan(summarise_params<T> const& p, device_info const& device) {
    summarise_plan result;
    result.why = check(p);
    if (result.why && device.compute_capability < 80)
        result.why = fail(errc::unsupported, "device.compute_capability", "must be >= 80", device.compute_capability);
    return result;
}

}  // namespace winnow
