// Random device memory, made on the device: zeros would let the card clock higher and hide wrong results.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "support/machine.cuh"
#include "winnow/core/dtype.hpp"

namespace winnow::bench {

enum class draw : std::int32_t {
    normal,   ///< standard normal
    integers  ///< -4 .. 4: dot products are exact in fp32, so that kernel and reference agree on every comparison
};

inline constexpr int fill_threads = 256, fill_blocks = 4096;

/// Counter-based: element i depends on the seed and on i alone (the mixer is SplitMix64's).
template <class T>
__global__ void fill_random(T* data, std::int64_t count, std::uint64_t seed, draw kind) {
    std::int64_t const step = std::int64_t{gridDim.x} * blockDim.x;
    for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        std::uint64_t z = (seed << 40) + static_cast<std::uint64_t>(i + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        auto const high = static_cast<std::uint32_t>(z >> 32), low = static_cast<std::uint32_t>(z);
        if (kind == draw::integers) {
            data[i] = from_float<T>(static_cast<float>(static_cast<std::int32_t>(high % 9u) - 4));
        } else {
            float const u = (static_cast<float>(high >> 8) + 1.0f) * 0x1p-24f;  // (0, 1]
            float const v = static_cast<float>(low >> 8) * 0x1p-24f;
            data[i] = from_float<T>(sqrtf(-2.0f * logf(u)) * cospif(2.0f * v));
        }
    }
}

template <class T>
void fill(device_array<T> const& to, draw kind, std::uint64_t seed) {
    cudaStream_t const stream = this_machine().stream;
    fill_random<<<fill_blocks, fill_threads, 0, stream>>>(to.data(), static_cast<std::int64_t>(to.size()), seed, kind);
    require(cudaGetLastError(), "fill_random");
    require(cudaStreamSynchronize(stream), "fill_random");
}

}  // namespace winnow::bench
