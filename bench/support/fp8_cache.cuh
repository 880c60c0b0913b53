// A problem's keys and values as an fp8 cache with a scale for each KV head, and the problem rounded to what it stands for.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "support/fill.cuh"
#include "support/machine.cuh"
#include "support/problem.cuh"
#include "winnow/core/cache_scales.hpp"
#include "winnow/core/dtype.hpp"

namespace winnow::bench {

/// narrow[i] = fp8(wide[i] / scale), and wide[i] becomes narrow[i] * scale, which T holds where scales are powers of
/// two. Elements are [.., kv_head, channel].
template <class T>
__global__ void quantise_elements(T* wide, fp8_e4m3* narrow, std::int64_t count, std::int32_t kv_heads,
                                  std::int32_t head_dim, float const* scales) {
    std::int64_t const step = std::int64_t{gridDim.x} * blockDim.x;
    for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        float const scale = scales[i / head_dim % kv_heads];
        narrow[i] = from_float<fp8_e4m3>(to_float(wide[i]) / scale);
        wide[i] = from_float<T>(to_float(narrow[i]) * scale);
    }
}

/// Keys and values in fp8, at the same places as the problem's.
class fp8_cache {
public:
    explicit fp8_cache(problem const& p)
        : keys_(p.keys.size()), values_(p.values.size()), key_scale_(powers_of_two(p.shape.kv_heads, 0)),
          value_scale_(powers_of_two(p.shape.kv_heads, 1)) {}

    /// Takes over the problem's keys and values, and leaves there what they are in fp8: a call over the problem, and the
    /// reference of it, then read the same numbers as one over the cache.
    void take(problem const& p) const {
        quantise(p.keys, keys_, p.shape, key_scale_);
        quantise(p.values, values_, p.shape, value_scale_);
    }
    /// Views with the extents and strides of `from`.
    tensor_view<fp8_e4m3 const, 4> keys(tensor_view<bf16 const, 4> const& from) const {
        return from.over(keys_.data());
    }
    tensor_view<fp8_e4m3 const, 4> values(tensor_view<bf16 const, 4> const& from) const {
        return from.over(values_.data());
    }
    cache_scales scales() const {
        return {key_scale_.data(), value_scale_.data(), static_cast<std::int32_t>(key_scale_.size())};
    }

private:
    static std::vector<float> powers_of_two(std::int32_t heads, std::int32_t first) {
        std::vector<float> r;
        for (std::int32_t h = 0; h < heads; ++h) r.push_back(0.25f * static_cast<float>(1 << (first + h) % 4));
        return r;
    }
    static void quantise(device_array<bf16> const& wide, device_array<fp8_e4m3> const& narrow, problem_shape const& s,
                         device_array<float> const& scales) {
        cudaStream_t const stream = this_machine().stream;
        quantise_elements<<<fill_blocks, fill_threads, 0, stream>>>(
            wide.data(), narrow.data(), static_cast<std::int64_t>(wide.size()), s.kv_heads, s.head_dim, scales.data());
        require(cudaGetLastError(), "quantise_elements");
        require(cudaStreamSynchronize(stream), "quantise_elements");
    }

    device_array<fp8_e4m3> keys_, values_;
    device_array<float> key_scale_, value_scale_;
};

}  // namespace winnow::bench
