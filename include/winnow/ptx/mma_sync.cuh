// mma.sync m16n8k16 (sm_80): d += a b with 16-bit inputs and fp32 accumulators, one warp.
//
// Lane l, g = l / 4, q = l % 4: d[2h + e] is row g + 8h, column 2q + e.
// a[0..3]: rows g, g+8, g, g+8; columns 2q and 2q + 8.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/dtype.hpp"

namespace winnow::ptx {

template <class T>
WINNOW_DEVICE void multiply_add(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t b0, std::uint32_t b1);

template <>
WINNOW_DEVICE void multiply_add<bf16>(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
WINNOW_DEVICE void multiply_add<fp16>(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
                 "%1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace winnow::ptx
