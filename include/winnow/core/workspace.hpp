// Scratch memory: the caller's pointer and size, and the bump arithmetic that plans use to carve it up.
#pragma once

#include <cstddef>
#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"

namespace winnow {

/// Alignment of the workspace pointer and of every region inside it, in bytes.
inline constexpr std::size_t workspace_alignment = 256;

/// Device memory lent for the duration of a launch. Contents need no initialisation and mean nothing afterwards.
struct workspace {
    void* data = nullptr;   ///< device pointer, aligned to workspace_alignment
    std::size_t bytes = 0;  ///< size
};

/// Hands out offsets one after another; `bytes` is what has been asked for so far.
struct workspace_layout {
    std::size_t bytes = 0;  ///< what has been asked for so far

    /// Offset of a region of `count` elements of `size` bytes.
    constexpr std::size_t take(std::size_t count, std::size_t size) {
        std::size_t const offset = bytes;
        bytes = round_up(offset + count * size, workspace_alignment);
        return offset;
    }
};

/// Pointer to a region that a plan placed at `offset`.
template <class T>
WINNOW_HOST_DEVICE T* region(workspace const& scratch, std::size_t offset) {
    return reinterpret_cast<T*>(static_cast<char*>(scratch.data) + offset);
}

}  // namespace winnow
