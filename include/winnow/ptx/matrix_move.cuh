// ldmatrix, stmatrix: four 8x8 matrices of 16-bit elements between shared memory and mma.sync's fragments.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"

namespace winnow::ptx {

/// Lane l gives the address of row l % 8 of matrix l / 8; register i receives matrix i.
WINNOW_DEVICE void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/// The same, each matrix transposed.
WINNOW_DEVICE void load_matrices_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/// stmatrix (sm_90), the other way round: register i goes to matrix i, whose row l % 8 lies at lane 8 i + l % 8's address.
WINNOW_DEVICE void store_matrices(std::uint32_t address, std::uint32_t const (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

}  // namespace winnow::ptx
