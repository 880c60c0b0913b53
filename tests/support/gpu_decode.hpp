// Decode steps on the device against the oracle, over 16-bit and over fp8 caches: their results, and the lists they keep.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "winnow/reference/sparse.hpp"

namespace winnow::testing {

/// What the oracle's lists hold before a step has written them; the device's hold -1, as all device_memory.
inline constexpr std::int32_t unwritten_entry = -12345;

/// Runs a step of the oracle on host pointers, and the rounded twin over the lists that it has just refreshed. `lengths`:
/// of the requests.
template <class T, class KV>
attend_expectation expect_decode(sparse_decode_params<T, KV> const& p, std::int32_t const* lengths) {
    attend_expectation e;
    REQUIRE(reference::sparse_decode(p, &e.exact, all_threads()).ok());
    // Padded rows have neither keys nor lists.
    auto attention = attend_part(p);
    std::vector<std::int32_t> seen, rows;
    for (std::int32_t b = 0; b < p.shape().batch; ++b) {
        rows.push_back(p.cache.index()(b));
        seen.push_back(rows.back() < 0 ? 0 : lengths[b]);
    }
    attention.kv.length = seen.data();
    attention.selection.list_row = rows.data();
    REQUIRE(reference::attend_rounded(attention, e.rounded, all_threads()).ok());
    return e;
}

/// Entries that were compared, and how many of them and of the counts differ.
struct list_comparison {
    std::size_t entries = 0, differing = 0;
};

/// All lists of the oracle's cache in `p` against `found`, a copy of the device's.
template <class T, class KV>
list_comparison compare_cached_lists(sparse_decode_params<T, KV> const& p, std::vector<std::int32_t> const& found) {
    batch_shape const shape = p.shape();
    std::int32_t const list_heads = list_heads_of(p.method.sharing, shape.heads, shape.kv_heads);
    list_comparison r;
    for (std::int32_t i = 0; i < p.method.stage_count; ++i)
        for (std::int32_t s = 0; s < p.cache.slots; ++s)
            for (std::int32_t h = 0; h < list_heads; ++h) {
                auto const list = reference::cached_list_of(p, i, s, h);
                auto const at = [&](std::int32_t const* x) {
                    return found[static_cast<std::size_t>(x - p.cache.lists)];
                };
                bool const used = *list.count != unwritten_entry;
                r.differing += at(list.count) != (used ? *list.count : -1);
                for (std::int32_t n = 0; used && n < *list.count; ++n, ++r.entries)
                    r.differing += at(list.entries + n) != list.entries[n];
            }
    return r;
}

/// Requests whose contexts grow by one token a step. Keys, values and queries of all steps are drawn beforehand; steps and
/// lists live twice, here for the oracle and on the device. Slots 0 and batch + 1 stay unused.
template <class T>
struct decode_state {
    std::int32_t batch, slots, heads, kv_heads, head_dim;
    prune_method method;
    attend_input<T> in, queries;  ///< `queries`: row s of request b is its query at step s
    std::vector<std::int32_t> step, lists, slot;
    refresh_intervals intervals{{8, 4, 2}};
    device_copy<T> memory;
    device_memory step_memory, list_memory, slot_memory;

    /// Keys of `first` are the lengths before the first of `steps` steps; it has one query a request.
    decode_state(input_shape const& first, std::int32_t steps, prune_method const& m)
        : batch(static_cast<std::int32_t>(first.keys.size())), slots(batch + 2), heads(first.heads),
          kv_heads(first.kv_heads), head_dim(first.head_dim), method(m), in(grown(first, steps)),
          queries({.queries = std::vector<std::int32_t>(first.keys.size(), steps),
                   .keys = std::vector<std::int32_t>(first.keys.size(), 1),
                   .heads = heads,
                   .kv_heads = kv_heads,
                   .head_dim = head_dim,
                   .values = first.values,
                   .seed = 9}),
          step(static_cast<std::size_t>(slots), 0),
          lists(stage_cache_entries(m, heads, kv_heads, slots), unwritten_entry), memory(in),
          step_memory(step.size() * 4), list_memory(lists.size() * 4, 4096),
          slot_memory(static_cast<std::size_t>(batch) * 4) {
        for (std::int32_t b = 0; b < batch; ++b) slot.push_back(batch - b);
        std::copy(first.keys.begin(), first.keys.end(), in.key_lengths());
        upload_cache();
    }

    /// Steps and slots as the engine writes them: to the device's cache.
    void upload_cache() {
        step_memory.upload(step.data(), step.size() * 4);
        slot_memory.upload(slot.data(), slot.size() * 4);
    }
    /// Puts the queries of step `at` where the params look for them, and lengths, tables and poison on the device.
    void begin(std::int32_t at) {
        for (std::int32_t b = 0; b < batch; ++b)
            for (std::int32_t h = 0; h < heads; ++h)
                for (std::int32_t c = 0; c < head_dim; ++c) in.query(b, 0, h, c) = queries.query(b, at, h, c);
        memory.refresh();
    }
    stage_cache host_cache() { return {step.data(), lists.data(), slot.data(), slots, intervals}; }
    stage_cache device_cache() const {
        return {step_memory.as<std::int32_t>(), list_memory.as<std::int32_t>(), slot_memory.as<std::int32_t>(), slots,
                intervals};
    }
    /// Runs the oracle's step, `p` on host pointers, and compares everything with what the device's step left.
    template <class KV>
    list_comparison check(sparse_decode_params<T, KV> const& p) {
        auto const e = expect_decode(p, in.key_lengths());
        auto bytes = memory.download();
        CHECK(memory.stray_write(bytes) == -1);
        check_close<T>(in.output(bytes.data()), in.lse(bytes.data()), e);
        CHECK(step_memory.download<std::int32_t>() == step);
        CHECK(list_memory.guard_intact());
        auto const found = compare_cached_lists(p, list_memory.download<std::int32_t>());
        CHECK(found.differing == 0);
        return found;
    }
    void grow() {
        for (std::int32_t b = 0; b < batch; ++b)
            if (in.key_lengths()[b] > 0) ++in.key_lengths()[b];
    }

private:
    static input_shape grown(input_shape s, std::int32_t steps) {
        s.queries.assign(s.keys.size(), 1);
        for (auto& n : s.keys) n += steps;
        return s;
    }
};

}  // namespace winnow::testing
