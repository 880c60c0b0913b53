// What appending is asked to do: new rows, the cache and the slot that each row goes to, and a rotation on the way.
#pragma once

#include <cstdint>

#include "winnow/core/cache_scales.hpp"
#include "winnow/core/config.hpp"
#include "winnow/core/rope.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow {

/// New rows and where they go. T is bf16 or fp16, C the same or fp8_e4m3. Pointers are device pointers (for reference::, host). Last strides
/// are 1, the others multiples of 16 bytes. No tensor may overlap another; caches may be views into one tensor.
///
/// Row i goes to page slot[i] / page_size, token slot[i] % page_size. Where two rows have one slot, it is unspecified
/// which of them stays, and pieces of 16 bytes may differ in that.
template <class T, class C = T>
struct append_params {
    tensor_view<T const, 3> keys = {};  ///< [row, kv_head, channel]
    tensor_view<T const, 3> values =
        {};                            ///< [row, kv_head, channel], own head_dim; default, with value_cache: keys only
    tensor_view<C, 4> key_cache = {};  ///< [page, token in page, kv_head, channel]; contiguous: [batch, token, ...]
    tensor_view<C, 4> value_cache = {};      ///< same pages, tokens and kv_heads, own strides
    std::int64_t const* slot = nullptr;      ///< [row]; negative (padding) or beyond the cache: nothing is written
    std::int32_t const* position = nullptr;  ///< [row]; with a rotation only, and then needed
    rope rotation = {};                      ///< of keys and queries; default none
    tensor_view<T, 3> queries = {};  ///< [row, head, channel]; optional, rotated in place, whatever the row's slot

    cache_scales scales = {};  ///< of an fp8 cache: x is stored as x / scale, rounded to nearest even, 448 at most

    /// A view counts as given when it has a pointer or channels: a forgotten pointer is an error, not "no values".
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool takes_values() const {
        return values.data != nullptr || values.extent[2] != 0 || value_cache.data != nullptr ||
               value_cache.extent[3] != 0;
    }
    /// The same for queries.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr bool takes_queries() const {
        return queries.data != nullptr || queries.extent[2] != 0;
    }
};

/// Where a slot lies on axes 0 and 1 of a cache; page < 0: nowhere.
struct cache_place {
    std::int64_t page;   ///< index on axis 0
    std::int64_t token;  ///< index on axis 1
    /// Equal in both.
    friend constexpr bool operator==(cache_place const&, cache_place const&) = default;
};

/// Place of a slot in a cache of `pages` pages.
WINNOW_HOST_DEVICE constexpr cache_place place_of(std::int64_t slot, std::int64_t pages, std::int64_t page_size) {
    if (slot < 0 || slot >= pages * page_size) return {-1, 0};
    std::int64_t const page = slot / page_size;
    return {page, slot - page * page_size};
}

}  // namespace winnow
