// A pointer with extents and int64 strides, in elements: how every tensor enters the library.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"

namespace winnow {

/// View of a strided tensor; owns nothing. `T` may be const. Strides count elements, not bytes, and may be any int64.
template <class T, int Rank>
struct tensor_view {
    T* data = nullptr;               ///< first element
    std::int64_t extent[Rank] = {};  ///< elements along each axis
    std::int64_t stride[Rank] = {};  ///< elements between neighbours along each axis

    /// Offset of an element, in elements.
    template <class... Index>
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t offset(Index... index) const {
        static_assert(sizeof...(Index) <= Rank, "more indices than axes");
        std::int64_t const at[] = {static_cast<std::int64_t>(index)...};
        std::int64_t sum = 0;
        for (int axis = 0; axis < static_cast<int>(sizeof...(Index)); ++axis) sum += at[axis] * stride[axis];
        return sum;
    }

    /// The element at an index.
    template <class... Index>
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr T& operator()(Index... index) const {
        static_assert(sizeof...(Index) == Rank, "one index per axis");
        return data[offset(index...)];
    }

    /// Number of elements; the product of the extents must fit int64.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int64_t size() const {
        std::int64_t n = 1;
        for (auto const e : extent) n *= e;
        return n;
    }

    /// True if no extent is 0 or negative.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool has_elements() const {
        for (auto const e : extent)
            if (e <= 0) return false;
        return true;
    }

    /// A view over other elements at the same places: extents and strides, in elements, stay.
    template <class U>
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr tensor_view<U, Rank> over(U* elements) const {
        tensor_view<U, Rank> view;
        view.data = elements;
        for (int axis = 0; axis < Rank; ++axis) {
            view.extent[axis] = extent[axis];
            view.stride[axis] = stride[axis];
        }
        return view;
    }

    /// A view of mutable elements serves where a view of const elements is asked for.
    template <class U>
    requires(std::is_same_v<U, T const> && !std::is_const_v<T>) WINNOW_HOST_DEVICE constexpr
    operator tensor_view<U, Rank>() const {
        return over<U>(data);
    }
};

/// Row-major view: the last axis has stride 1. `packed_view(pointer, {2, 128, 8, 64})`.
template <class T, int Rank>
WINNOW_HOST_DEVICE constexpr tensor_view<T, Rank> packed_view(T* data, std::int64_t const (&extent)[Rank]) {
    tensor_view<T, Rank> view;
    view.data = data;
    std::int64_t stride = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
        view.extent[axis] = extent[axis];
        view.stride[axis] = stride;
        stride *= extent[axis];
    }
    return view;
}

}  // namespace winnow
