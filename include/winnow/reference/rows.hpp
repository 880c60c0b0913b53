// Key and value rows of one request and one KV head as floats: fetched through the kv_index once, then adjacent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "winnow/core/dtype.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/tensor_view.hpp"

namespace winnow::reference {

/// Tokens per page; 1 where there are no pages, so that it can always be divided by.
template <class T>
constexpr std::int32_t page_size_of(tensor_view<T const, 4> const& keys, kv_index const& kv) {
    bool const paged = kv.layout == kv_layout::block_table || kv.layout == kv_layout::page_list;
    return paged ? static_cast<std::int32_t>(keys.extent[1]) : 1;
}

/// Sum of products in double. Eight running sums, so that compilers vectorise it without reordering anything;
/// `channels` is a multiple of 8.
template <class Q>
inline double dot(Q const* q, float const* k, std::int32_t channels) {
    double sum[8] = {};
    for (std::int32_t c = 0; c < channels; c += 8)
        for (std::int32_t i = 0; i < 8; ++i) sum[i] += static_cast<double>(q[c + i]) * static_cast<double>(k[c + i]);
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/// Fetches rows on demand and keeps them. Rows whose page id is bad read as zeros, as in the kernels.
template <class T>
class row_cache {
public:
    /// `values` may be an empty view (data null) where only keys are needed.
    row_cache(tensor_view<T const, 4> const& keys, tensor_view<T const, 4> const& values, kv_index const& kv,
              std::int32_t request, std::int32_t kv_head, std::int32_t key_count)
        : keys_(keys), values_(values), kv_(kv), pages_(page_size_of(keys, kv)), request_(request), kv_head_(kv_head),
          channels_(static_cast<std::int32_t>(keys.extent[3])), width_(channels_ * (values.data ? 2 : 1)),
          slot_(static_cast<std::size_t>(key_count), -1) {}

    /// Slot of key `position`, for key() and value(). May move what earlier pointers point at.
    std::int32_t fetch(std::int32_t position) {
        std::int32_t& slot = slot_[static_cast<std::size_t>(position)];
        if (slot >= 0) return slot;
        slot = used_++;
        std::size_t const at = static_cast<std::size_t>(slot) * static_cast<std::size_t>(width_);
        data_.resize(at + static_cast<std::size_t>(width_), 0.0f);
        token_location const where = locate(kv_, pages_, keys_.extent[0], request_, position);
        if (where.outer < 0) return slot;
        copy(keys_, where, data_.data() + at);
        if (values_.data) copy(values_, where, data_.data() + at + channels_);
        return slot;
    }

    /// The KV head.
    std::int32_t head() const { return kv_head_; }
    /// Channels of the key in a slot.
    float const* key(std::int32_t slot) const { return data_.data() + static_cast<std::size_t>(slot) * width_; }
    /// Channels of the value in a slot.
    float const* value(std::int32_t slot) const { return key(slot) + channels_; }

private:
    void copy(tensor_view<T const, 4> const& view, token_location where, float* to) const {
        T const* const from = view.data + view.offset(where.outer, where.token, kv_head_);
        for (std::int32_t c = 0; c < channels_; ++c) to[c] = to_float(from[c]);
    }

    tensor_view<T const, 4> keys_, values_;
    kv_index kv_;
    fast_divider pages_;
    std::int32_t request_, kv_head_, channels_, width_;
    std::int32_t used_ = 0;
    std::vector<std::int32_t> slot_;
    std::vector<float> data_;
};

}  // namespace winnow::reference
