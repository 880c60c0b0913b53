// Rotary embedding of 16-bit channels in registers: sine and cosine of an angle, and eight channels turned at a time.
//
//   (x, y) -> (x cos a - y sin a, x sin a + y cos a) in fp32, rounded once to nearest even
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/ptx/convert.cuh"

namespace winnow {

/// Cosine (x) and sine (y) of an angle in half turns, each within 1 ulp of fp32. Half turns need no reduction: the
/// function has no slow path and no local memory, which sincosf has.
WINNOW_DEVICE float2 rotation_by(float half_turns) {
    float2 r;
    sincospif(half_turns, &r.y, &r.x);
    return r;
}

/// One pair turned. Angle 0 gives back the same bits but for the sign of zeros.
WINNOW_DEVICE float2 turned(float x, float y, float2 r) {
    return make_float2(fmaf(x, r.x, -(y * r.y)), fmaf(x, r.y, y * r.x));
}

/// Two pairs: the lower halves of `x` and `y` by `low`, the upper ones by `high`.
template <class T>
WINNOW_DEVICE void turn_across(std::uint32_t& x, std::uint32_t& y, float2 low, float2 high) {
    float2 const a = ptx::unpack<T>(x), b = ptx::unpack<T>(y);
    float2 const first = turned(a.x, b.x, low), second = turned(a.y, b.y, high);
    x = ptx::pack<T>(first.x, second.x);
    y = ptx::pack<T>(first.y, second.y);
}

/// One pair: both halves of `x`.
template <class T>
WINNOW_DEVICE void turn_within(std::uint32_t& x, float2 r) {
    float2 const a = ptx::unpack<T>(x), b = turned(a.x, a.y, r);
    x = ptx::pack<T>(b.x, b.y);
}

/// rope_pairing::halves: channel k of `x` and of `y` turn together, by `rotation(k)`, k = 0 .. 7.
template <class T, class Rotation>
WINNOW_DEVICE void rotate_halves(uint4& x, uint4& y, Rotation rotation) {
    turn_across<T>(x.x, y.x, rotation(0), rotation(1));
    turn_across<T>(x.y, y.y, rotation(2), rotation(3));
    turn_across<T>(x.z, y.z, rotation(4), rotation(5));
    turn_across<T>(x.w, y.w, rotation(6), rotation(7));
}

/// rope_pairing::adjacent: the four pairs of `x` turn by `rotation(0 .. 3)`, those of `y` by `rotation(4 .. 7)`.
template <class T, class Rotation>
WINNOW_DEVICE void rotate_adjacent(uint4& x, uint4& y, Rotation rotation) {
    turn_within<T>(x.x, rotation(0)), turn_within<T>(x.y, rotation(1));
    turn_within<T>(x.z, rotation(2)), turn_within<T>(x.w, rotation(3));
    turn_within<T>(y.x, rotation(4)), turn_within<T>(y.y, rotation(5));
    turn_within<T>(y.z, rotation(6)), turn_within<T>(y.w, rotation(7));
}

}  // namespace winnow
