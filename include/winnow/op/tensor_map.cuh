// Describes keys and values to TMA: tensor maps, encoded on the host by a driver function found at run time.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "winnow/core/device_query.cuh"
#include "winnow/core/dtype.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/status.hpp"
#include "winnow/core/tensor_view.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/stage/key_boxes.cuh"
#include "winnow/tile/panel.hpp"

namespace winnow {

/// The driver's cuTensorMapEncodeTiled, without linking libcuda; null where the driver has none. It only packs bits on
/// the host, in about 0.2 us.
inline auto tensor_map_encoder() {
    static auto const function = [] {
        void* found = nullptr;
        cudaDriverEntryPointQueryResult result{};
        auto const error =
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
        bool const ok = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
        return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(ok ? found : nullptr);
    }();
    return function;
}

/// Encodes a map of `Rank` axes, the fastest first; strides in elements, of all axes but the first. Boxes with 128-byte
/// swizzle.
template <class T, int Rank>
status encode_map(CUtensorMap& map, T const* data, std::int64_t const (&extents)[Rank],
                  std::int64_t const (&strides)[Rank - 1], std::int32_t const (&box)[Rank]) {
    auto const encode = tensor_map_encoder();
    if (encode == nullptr)
        return fail(errc::unsupported, "cuTensorMapEncodeTiled", "the driver must have it (CUDA 12)", 0);
    cuuint64_t sizes[Rank], steps[Rank - 1];
    cuuint32_t boxes[Rank], every[Rank];
    for (int i = 0; i < Rank; ++i) {
        sizes[i] = static_cast<cuuint64_t>(larger<std::int64_t>(extents[i], 1));
        boxes[i] = static_cast<cuuint32_t>(box[i]), every[i] = 1;
        // The stride of an axis with one entry may be anything; TMA wants it valid.
        if (i > 0) steps[i - 1] = extents[i] > 1 ? static_cast<cuuint64_t>(strides[i - 1]) * sizeof(T) : 16;
    }
    auto const type = dtype_of<T> == dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    auto const result =
        encode(&map, type, Rank, const_cast<T*>(data), sizes, steps, boxes, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
               CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return fail(errc::cuda_error, "cuTensorMapEncodeTiled", "must succeed", static_cast<std::int64_t>(result));
    return {};
}

/// Boxes of 64 channels of `tokens` tokens of one KV head of a tensor [outer, token, kv_head, channel].
template <class T>
status make_key_map(CUtensorMap& map, tensor_view<T const, 4> const& view, std::int32_t tokens) {
    auto const& e = view.extent;
    auto const& s = view.stride;
    return encode_map<T, 4>(map, view.data, {e[3], e[1], e[2], e[0]}, {s[1], s[2], s[0]},
                            {panel_channels, tokens, 1, 1});
}

/// Boxes of all channels of `tokens` tokens, a multiple of 8, of one KV head; see key_maps.
template <class T>
status make_atom_map(CUtensorMap& map, tensor_view<T const, 4> const& view, std::int32_t tokens) {
    auto const& e = view.extent;
    auto const& s = view.stride;
    std::int32_t const panels = static_cast<std::int32_t>(e[3] / panel_channels);
    std::int64_t const heads = larger<std::int64_t>(e[0] - 1, 0) * heads_per_outer(view) + e[2];
    return encode_map<T, 5>(map, view.data, {panel_channels, granule_keys, panels, e[1] / granule_keys, heads},
                            {s[1], panel_channels, s[1] * granule_keys, head_step(view)},
                            {panel_channels, granule_keys, panels, tokens / granule_keys, 1});
}

/// Boxes of `rows` rows of a tile of queries or output: tokens, and in each `heads` heads.
template <class T>
status make_row_map(CUtensorMap& map, tensor_view<T, 4> const& view, std::int32_t heads, std::int32_t rows) {
    auto const& e = view.extent;
    auto const& s = view.stride;
    return encode_map<std::remove_const_t<T>, 4>(map, view.data, {e[3], e[2], e[1], e[0]}, {s[2], s[1], s[0]},
                                                 {panel_channels, heads, rows / heads, 1});
}

/// All boxes that a kernel copies whose steps have `step_keys` keys.
template <key_loader Loader, class T>
status make_key_maps(key_maps& maps, tensor_view<T const, 4> const& view, std::int32_t step_keys) {
    maps.heads_per_outer = 0;
    if (auto s = make_key_map(maps.row, view, 1); !s) return s;
    auto const make = [&](CUtensorMap& map, std::int32_t tokens) {
        return Loader == key_loader::atoms ? make_atom_map(map, view, tokens) : make_key_map(map, view, tokens);
    };
    if constexpr (Loader == key_loader::atoms) maps.heads_per_outer = static_cast<std::int32_t>(heads_per_outer(view));
    for (int i = 0; i < run_sizes; ++i)
        if (auto s = make(maps.run[i], granule_keys << i); !s) return s;
    return make(maps.step, step_keys);
}

}  // namespace winnow
