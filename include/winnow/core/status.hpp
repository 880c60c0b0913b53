// What a call reports: success, or which field broke which rule with which value. No exception, no print, no exit.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow {

/// Kinds of failure.
enum class errc : std::int32_t {
    ok = 0,
    null_pointer,         ///< a required pointer is null
    bad_extent,           ///< an extent is negative, zero where it may not be, or disagrees with another field
    bad_stride,           ///< a stride the kernels cannot use
    misaligned,           ///< a pointer or stride is not a multiple of the access width
    unsupported,          ///< a valid request that no instance serves
    out_of_range,         ///< a scalar or a device-side index lies outside its range
    not_ascending,        ///< a list is not ascending and unique
    workspace_too_small,  ///< the workspace holds fewer bytes than the plan asks for
    wrong_plan,           ///< the plan was made for another problem
    cuda_error            ///< a launch or driver call failed; `value` is the cudaError_t
};

/// Result of every check, plan and launch. `field` and `rule` are string literals and never null.
struct [[nodiscard]] status {
    errc code = errc::ok;    ///< what kind of rule was broken
    char const* field = "";  ///< the field that broke the rule, e.g. "keys.stride[3]"
    char const* rule = "";   ///< the rule, e.g. "must be 1"
    std::int64_t value = 0;  ///< the value found

    /// True when nothing went wrong.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool ok() const { return code == errc::ok; }
    /// True when nothing went wrong.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr explicit operator bool() const { return ok(); }
};

/// Shorthand that checks read well with: `return fail(errc::bad_extent, "queries.extent[0]", "must be >= 0", n);`
WINNOW_HOST_DEVICE constexpr status fail(errc code, char const* field, char const* rule, std::int64_t value) {
    return status{code, field, rule, value};
}

/// Name of a code for messages.
constexpr char const* name(errc code) {
    switch (code) {
    case errc::ok:
        return "ok";
    case errc::null_pointer:
        return "null pointer";
    case errc::bad_extent:
        return "bad extent";
    case errc::bad_stride:
        return "bad stride";
    case errc::misaligned:
        return "misaligned";
    case errc::unsupported:
        return "unsupported";
    case errc::out_of_range:
        return "out of range";
    case errc::not_ascending:
        return "not ascending";
    case errc::workspace_too_small:
        return "workspace too small";
    case errc::wrong_plan:
        return "wrong plan";
    case errc::cuda_error:
        return "CUDA error";
    }
    return "unknown";
}

}  // namespace winnow
