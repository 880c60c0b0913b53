// Conversions and special functions in one instruction each: packed fp32 -> 16 bit, 2^x, log2 x.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"

namespace winnow::ptx {

/// Two floats rounded to nearest even; `low` goes to the lower half.
template <class T>
WINNOW_DEVICE std::uint32_t pack(float low, float high);

template <>
WINNOW_DEVICE std::uint32_t pack<bf16>(float low, float high) {
    std::uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

template <>
WINNOW_DEVICE std::uint32_t pack<fp16>(float low, float high) {
    std::uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

/// Both halves of a packed pair as floats.
template <class T>
WINNOW_DEVICE float2 unpack(std::uint32_t pair);

template <>
WINNOW_DEVICE float2 unpack<bf16>(std::uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

template <>
WINNOW_DEVICE float2 unpack<fp16>(std::uint32_t pair) {
    float2 r;
    asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(r.x), "=f"(r.y)
        : "r"(pair));
    return r;
}

/// The two fp8 e4m3 in the low half of `pair` as fp16, exactly; NaN stays NaN. One instruction from sm_89 on. Before, bits
/// are moved to where fp16 has them, which is 2^-8 of the value, subnormals included.
WINNOW_DEVICE std::uint32_t widen_e4m3(std::uint32_t pair) {
    std::uint32_t r;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    asm("{ .reg .b16 x; cvt.u16.u32 x, %1; cvt.rn.f16x2.e4m3x2 %0, x; }" : "=r"(r) : "r"(pair));
#else
    std::uint32_t const two = (pair & 0xffu) | (pair & 0xff00u) << 8;
    std::uint32_t const moved = (two & 0x800080u) << 8 | (two & 0x7f007fu) << 7;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(moved), "r"(0x5c005c00u));  // 256
    r |= (((two & 0x7f007fu) + 0x10001u) & 0x800080u) * 0xffu;                 // 0x7f carries into bit 7: NaN
#endif
    return r;
}

/// The two fp8 e4m3 in the low half of `pair` as T, exactly.
template <class T>
WINNOW_DEVICE std::uint32_t widen(std::uint32_t pair);

template <>
WINNOW_DEVICE std::uint32_t widen<fp16>(std::uint32_t pair) {
    return widen_e4m3(pair);
}

template <>
WINNOW_DEVICE std::uint32_t widen<bf16>(std::uint32_t pair) {
    float2 const x = unpack<fp16>(widen_e4m3(pair));
    return pack<bf16>(x.x, x.y);
}

/// Two floats rounded to fp8 e4m3, to nearest even and 448 at most; `low` goes to the lower byte of the low half.
WINNOW_DEVICE std::uint32_t narrow_e4m3(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    std::uint16_t r;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(high), "f"(low));
    return r;
#else
    return from_float<fp8_e4m3>(low).bits | static_cast<std::uint32_t>(from_float<fp8_e4m3>(high).bits) << 8;
#endif
}

/// 2^x with a relative error near 2^-22; subnormal results flush to 0, 2^-inf is 0.
WINNOW_DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

WINNOW_DEVICE float log2_fast(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

}  // namespace winnow::ptx
