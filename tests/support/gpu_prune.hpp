// Pruning on the device against the oracle: lists must be equal on integer inputs, and within a score margin otherwise.
#pragma once

#include <cstdint>
#include <vector>

#include "support/gpu_device.hpp"
#include "support/selection_compare.hpp"
#include "winnow/reference/prune.hpp"

namespace winnow::testing {

/// Lists in device memory, next to each other; filled with -1 until a launch writes them.
class device_selection {
public:
    device_selection(prune_method const& method, batch_shape const& shape)
        : method_(method), shape_(shape), extents_(selection_extents_of(method, shape)),
          blocks_(extents_.list_count() * static_cast<std::size_t>(extents_.capacity) * 4, 4096),
          counts_(extents_.list_count() * 4, 4096) {}
    block_selection_buffer view() const {
        return packed_selection(blocks_.as<std::int32_t>(), counts_.as<std::int32_t>(), method_, shape_);
    }
    reference::selection_storage download() const {
        CHECK(blocks_.guard_intact());
        CHECK(counts_.guard_intact());
        reference::selection_storage s(method_, shape_);
        auto const blocks = blocks_.download<std::int32_t>(), counts = counts_.download<std::int32_t>();
        std::copy(blocks.begin(), blocks.end(), s.blocks.begin());
        std::copy(counts.begin(), counts.end(), s.counts.begin());
        return s;
    }

private:
    prune_method method_;
    batch_shape shape_;
    selection_extents extents_;
    device_memory blocks_, counts_;
};

/// Launches pruning of the input as `set` wants it; only the lists may be written.
template <class T, class Set>
reference::selection_storage run_prune(attend_input<T>& in, prune_method const& method, Set const& set) {
    device_copy<T> memory(in);
    auto p = prune_params_of(memory.params(), method);
    set(p);
    device_selection const selection(p.method, p.shape());
    p.selection = selection.view();
    run_on_device(p);
    CHECK(memory.stray_write(memory.download()) == -1);
    return selection.download();
}

/// The same against the oracle; `margin` as in compare_selection, 0 asks for equal lists. Returns the device's lists.
template <class T, class Set>
reference::selection_storage check_prune(attend_input<T>& in, prune_method const& method, double margin,
                                         Set const& set) {
    auto found = run_prune(in, method, set);
    auto p = prune_params_of(in.params(), method);
    set(p);
    reference::selection_storage const own(p.method, p.shape());
    p.selection = own.view;
    reference::prune_trace trace;
    REQUIRE(reference::prune(p, &trace, all_threads()).ok());
    p.selection = found.view;
    auto const verdict = compare_selection(p, trace, margin);
    INFO(verdict.message);
    CHECK(verdict.ok);
    CHECK(verdict.lists > 0);
    return found;
}

template <class T>
reference::selection_storage check_prune(attend_input<T>& in, prune_method const& method, double margin = 0) {
    return check_prune(in, method, margin, [](prune_params<T>&) {});
}

/// One list as block ids.
inline std::vector<std::int32_t> list_of(reference::selection_storage const& s, std::int32_t b, std::int32_t head,
                                         std::int32_t m) {
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < s.view.counts(b, head, m); ++i) ids.push_back(s.view.blocks(b, head, m, i));
    return ids;
}

}  // namespace winnow::testing
