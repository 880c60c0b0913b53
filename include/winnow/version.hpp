// The version of Winnow: the one place it is written, which CMake reads too.
#pragma once

namespace winnow {

inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

}  // namespace winnow
