// The version of Winnow: the one place it is written, which CMake reads too.
#pragma once

/// Sparse attention kernels: params, checks and plans for any C++20 compiler, launches for nvcc.
namespace winnow {

inline constexpr int version_major = 0;  ///< breaking changes, once there is a 1.0
inline constexpr int version_minor = 1;  ///< new features; before 1.0, breaking changes too
inline constexpr int version_patch = 0;  ///< fixes

}  // namespace winnow
