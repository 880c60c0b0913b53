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

/// Map of a tensor [outer, token, head, channel] with axes from the fastest on: channels, then `axes`. Boxes hold 64
/// channels and `second`, `third` entries along the next two axes. Strides as bulk_addressable wants them.
template <class T>
status make_map(CUtensorMap& map, tensor_view<T, 4> const& view, int const (&axes)[3], std::int32_t second,
                std::int32_t third) {
    using element = std::remove_const_t<T>;
    auto const encode = tensor_map_encoder();
    if (encode == nullptr)
        return fail(errc::unsupported, "cuTensorMapEncodeTiled", "the driver must have it (CUDA 12)", 0);
    cuuint64_t extents[4] = {static_cast<cuuint64_t>(view.extent[3])}, strides[3] = {};
    for (int i = 0; i < 3; ++i) {  // the stride of an axis with one entry may be anything
        extents[i + 1] = static_cast<cuuint64_t>(larger<std::int64_t>(view.extent[axes[i]], 1));
        strides[i] = view.extent[axes[i]] > 1 ? static_cast<cuuint64_t>(view.stride[axes[i]]) * sizeof(T) : 16;
    }
    cuuint32_t const box[] = {panel_channels, static_cast<cuuint32_t>(second), static_cast<cuuint32_t>(third), 1};
    cuuint32_t const every[] = {1, 1, 1, 1};
    auto const type =
        dtype_of<element> == dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    auto const result = encode(&map, type, 4, const_cast<element*>(view.data), extents, strides, box, every,
                               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return fail(errc::cuda_error, "cuTensorMapEncodeTiled", "must succeed", static_cast<std::int64_t>(result));
    return {};
}

/// Boxes of `tokens` tokens of one KV head.
template <class T>
status make_key_map(CUtensorMap& map, tensor_view<T const, 4> const& view, std::int32_t tokens) {
    return make_map(map, view, {1, 2, 0}, tokens, 1);
}

/// Boxes of `rows` output rows as a tile has them: tokens, and in each `heads` heads.
template <class T>
status make_row_map(CUtensorMap& map, tensor_view<T, 4> const& view, std::int32_t heads, std::int32_t rows) {
    return make_map(map, view, {2, 1, 0}, heads, rows / heads);
}

/// All boxes that a kernel with steps of `step_keys` keys copies.
template <class T>
status make_key_maps(key_maps& maps, tensor_view<T const, 4> const& view, std::int32_t step_keys) {
    if (auto s = make_key_map(maps.step, view, step_keys); !s) return s;
    for (int i = 0; i < run_sizes; ++i)
        if (auto s = make_key_map(maps.run[i], view, granule_keys << i); !s) return s;
    return make_key_map(maps.row, view, 1);
}

}  // namespace winnow
