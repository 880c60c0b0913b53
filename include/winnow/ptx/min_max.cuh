// Minimum and maximum (sm_80) of packed 16-bit pairs, where one of two is NaN the other; and one of floats that keeps NaN.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"

namespace winnow::ptx {

/// The larger of two; NaN where one is.
WINNOW_DEVICE float maximum_or_nan(float a, float b) {
    float r;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

/// The larger of two in each half.
template <class T>
WINNOW_DEVICE std::uint32_t maximum(std::uint32_t a, std::uint32_t b);

template <>
WINNOW_DEVICE std::uint32_t maximum<bf16>(std::uint32_t a, std::uint32_t b) {
    std::uint32_t r;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

template <>
WINNOW_DEVICE std::uint32_t maximum<fp16>(std::uint32_t a, std::uint32_t b) {
    std::uint32_t r;
    asm("max.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

/// The smaller of two in each half.
template <class T>
WINNOW_DEVICE std::uint32_t minimum(std::uint32_t a, std::uint32_t b);

template <>
WINNOW_DEVICE std::uint32_t minimum<bf16>(std::uint32_t a, std::uint32_t b) {
    std::uint32_t r;
    asm("min.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

template <>
WINNOW_DEVICE std::uint32_t minimum<fp16>(std::uint32_t a, std::uint32_t b) {
    std::uint32_t r;
    asm("min.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

}  // namespace winnow::ptx
