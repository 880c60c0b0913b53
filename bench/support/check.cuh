// Outputs against the reference on a few rows, before anything is timed: a wrong kernel gets no time.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "../../tests/support/tolerance.hpp"
#include "support/lists.hpp"
#include "support/problem.cuh"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/delta.hpp"
#include "winnow/reference/prune.hpp"
#include "winnow/reference/rounded.hpp"

namespace winnow::bench {

/// Rows of one request, by index within it.
struct row_set {
    std::int32_t request, first, count;
};

inline reference::run_options all_threads() {
    return {.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
}

/// Copies keys (or values) [0, count) of a request, heads [first_head, first_head + heads), to packed memory. One block
/// a key; `count` may be a million.
template <class T>
__global__ void gather_keys(tensor_view<T const, 4> from, kv_index kv, std::int32_t page_size, std::int32_t request,
                            std::int32_t first_head, std::int32_t heads, T* to) {
    auto const position = static_cast<std::int32_t>(blockIdx.x);
    auto const channels = static_cast<std::int32_t>(from.extent[3]);
    token_location const at = locate(kv, fast_divider(page_size), from.extent[0], request, position);
    for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < heads * channels;
         i += static_cast<std::int32_t>(blockDim.x))
        to[std::int64_t{position} * heads * channels + i] =
            from(at.outer, at.token, first_head + i / channels, i % channels);
}

/// [count, heads, channel] in host memory.
template <class T>
std::vector<T> host_keys(tensor_view<T const, 4> const& from, kv_index const& kv, std::int32_t request,
                         std::int32_t first_head, std::int32_t heads, std::int32_t count) {
    device_array<T> const packed(static_cast<std::size_t>(count) * heads * static_cast<std::size_t>(from.extent[3]));
    auto const page_size = static_cast<std::int32_t>(from.extent[1]);
    gather_keys<<<static_cast<unsigned>(count), 128>>>(from, kv, page_size, request, first_head, heads, packed.data());
    require(cudaGetLastError(), "gather_keys");
    return packed.download();
}

/// Query or output rows [count, heads, channel] in host memory.
template <class T>
std::vector<T> host_rows(device_array<T> const& from, problem_shape const& s, row_set rows) {
    std::size_t const row = static_cast<std::size_t>(s.heads) * s.head_dim;
    std::size_t const first = static_cast<std::size_t>(rows.request) * s.queries + rows.first;
    return from.download(first * row, static_cast<std::size_t>(rows.count) * row);
}

/// Throws unless the output of `rows`, for the query heads of `kv_head`, is the reference's. `lists` may be null; else
/// all `rows` use its lists of query block `m`. `p` is the call that wrote the output. With a `correction` it was delta
/// correction of that call; `rows` then begin at an anchor, before the tail.
template <class T, class KV>
void check_rows(problem_of<T, KV> const& problem, attend_params<T, KV> const& p, row_set rows, std::int32_t kv_head,
                host_lists const* lists, std::int32_t m, delta_options const* correction = nullptr) {
    problem_shape const& s = problem.shape;
    std::int32_t const group = s.group(), position = s.first_position(rows.request) + rows.first;
    bool const is_causal = p.mask.kind == mask_kind::causal;
    std::int32_t const limit = is_causal ? position + rows.count : s.length(rows.request);  // later keys are nobody's
    auto const queries = host_rows(problem.queries, s, rows), found = host_rows(problem.output, s, rows);
    auto const keys = host_keys(p.keys, p.kv, rows.request, kv_head, 1, limit);
    auto const values = host_keys(p.values, p.kv, rows.request, kv_head, 1, limit);

    attend_params<T, KV> host;
    host.queries = packed_view(queries.data(), {1, rows.count, s.heads, s.head_dim});
    host.queries.data += kv_head * group * s.head_dim;
    host.queries.extent[2] = group;
    host.keys = packed_view(keys.data(), {1, limit, 1, s.head_dim});
    host.values = packed_view(values.data(), {1, limit, 1, s.head_dim});
    std::vector<T> output(static_cast<std::size_t>(rows.count) * group * s.head_dim);
    host.output = packed_view(output.data(), {1, rows.count, group, s.head_dim});
    host.window = p.window, host.scale = p.scale, host.soft_cap = p.soft_cap;
    host.mask = p.mask, host.mask.offset = position;
    std::vector<std::int32_t> blocks, counts;
    if (lists != nullptr) {
        std::int32_t const list_head = list_head_of(kv_head, s.kv_heads, lists->list_heads);
        std::int32_t const spanned = query_blocks_of(rows.count, lists->query_block);
        blocks.resize(static_cast<std::size_t>(spanned * lists->capacity));
        counts.resize(static_cast<std::size_t>(spanned));
        counts[0] = lists->count(list_head, m);
        std::copy_n(lists->begin(list_head, m), counts[0], blocks.begin());
        host.selection.blocks = packed_view<std::int32_t const>(blocks.data(), {1, 1, spanned, lists->capacity});
        host.selection.counts = packed_view<std::int32_t const>(counts.data(), {1, 1, spanned});
        host.selection.block_size = lists->block_size, host.selection.query_block = lists->query_block;
    }
    reference::attend_result exact, rounded;
    if (correction == nullptr) {
        require(reference::attend(host, &exact, all_threads()));
        require(reference::attend_rounded(host, rounded, all_threads()));
    } else if constexpr (std::is_same_v<T, KV>) {
        delta_params<T> corrected{.base = host, .options = *correction};
        corrected.options.last_chunk = false;
        require(reference::delta(corrected, &exact, all_threads()));
        require(reference::delta_rounded(corrected, rounded, all_threads()));
    }

    std::vector<double> values_found;
    for (std::int32_t i = 0; i < rows.count; ++i)
        for (std::int32_t c = 0; c < group * s.head_dim; ++c)
            values_found.push_back(to_float(
                found[(static_cast<std::size_t>(i) * s.heads + static_cast<std::size_t>(kv_head * group)) * s.head_dim +
                      static_cast<std::size_t>(c)]));
    auto const verdict = testing::compare<T>(values_found, exact.output, rounded.output);
    if (!verdict)
        throw std::runtime_error("wrong output, request " + std::to_string(rows.request) + ", row " +
                                 std::to_string(rows.first) + ", KV head " + std::to_string(kv_head) + ": " +
                                 verdict.message);
}

/// A few rows at the start, in the middle and at the end of the first and the last request, a different KV head each.
/// Among ragged requests also the last rows of the longest.
template <class T, class KV>
void check_output(problem_of<T, KV> const& problem, attend_params<T, KV> const& p, host_lists const* lists = nullptr) {
    problem_shape const& s = problem.shape;
    std::int32_t const count = smaller(s.keys > (1 << 18) ? 1 : 2, s.queries);
    // Even numbers: two rows then lie in one query block, since blocks and the first position are even.
    std::int32_t const last = round_down(s.queries - count, count), middle = round_down(s.queries / 2, count);
    auto const check = [&](std::int32_t request, std::int32_t first, std::int32_t kv_head) {
        std::int32_t const from = s.first_position(request);
        std::int32_t const m = lists == nullptr ? 0 : query_block_of(from + first, from, lists->query_block);
        check_rows(problem, p, {request, first, count}, kv_head, lists, m);
    };
    check(0, 0, 0);
    if (s.queries > count) check(0, middle, s.kv_heads / 2);
    check(s.batch - 1, last, s.kv_heads - 1);
    if (s.ragged()) check(s.long_request, last, s.kv_heads / 2);
}

/// The reference's lists of query block `m` of a request. Exact on integer inputs: kernel and reference agree.
inline host_lists reference_lists(problem const& problem, attend_params<bf16> const& p, prune_method const& method,
                                  std::int32_t request, std::int32_t m, std::int32_t lookahead) {
    problem_shape const& s = problem.shape;
    std::int32_t const block = method.stages[0].query_block, start = s.first_position();
    query_span const span = span_of({0, 0, s.queries, s.keys, start}, block, m);
    row_set const rows{request, span.first - start, span.last - span.first + 1};
    auto const queries = host_rows(problem.queries, s, rows);
    std::int32_t const limit = span.last + 1;
    auto const keys = host_keys(p.keys, p.kv, request, 0, s.kv_heads, limit);
    prune_params<bf16> host;
    host.queries = packed_view(queries.data(), {1, rows.count, s.heads, s.head_dim});
    host.keys = packed_view(keys.data(), {1, limit, s.kv_heads, s.head_dim});
    host.method = method, host.mask = causal{span.first}, host.lookahead = lookahead;
    reference::selection_storage storage(method, host.shape());
    host.selection = storage.view;
    require(reference::prune(host, nullptr, all_threads()));
    host_lists l;
    l.list_heads = storage.view.list_heads(), l.query_blocks = static_cast<std::int32_t>(storage.view.blocks.extent[2]);
    l.capacity = storage.view.capacity(), l.block_size = storage.view.block_size, l.query_block = block;
    l.blocks = storage.blocks, l.counts = storage.counts;
    return l;
}

/// Lists of one request as a launch left them on the device.
inline host_lists device_lists(block_selection_buffer const& s, std::int32_t request) {
    host_lists l;
    l.list_heads = s.list_heads(), l.query_blocks = static_cast<std::int32_t>(s.blocks.extent[2]);
    l.capacity = s.capacity(), l.block_size = s.block_size, l.query_block = s.query_block;
    std::size_t const lists = static_cast<std::size_t>(l.list_heads) * static_cast<std::size_t>(l.query_blocks);
    l.counts.resize(lists), l.blocks.resize(lists * static_cast<std::size_t>(l.capacity));
    require(cudaMemcpy(l.counts.data(), s.counts.data + request * s.counts.stride[0], l.counts.size() * 4,
                       cudaMemcpyDeviceToHost),
            "download");
    require(cudaMemcpy(l.blocks.data(), s.blocks.data + request * s.blocks.stride[0], l.blocks.size() * 4,
                       cudaMemcpyDeviceToHost),
            "download");
    return l;
}

/// Throws unless list (list head, m) of `found` is list (list head, 0) of `wanted`, for all list heads.
inline void require_same_lists(host_lists const& found, std::int32_t m, host_lists const& wanted) {
    for (std::int32_t h = 0; h < wanted.list_heads; ++h) {
        std::int32_t const count = wanted.count(h, 0);
        if (found.count(h, m) != count ||
            !std::equal(wanted.begin(h, 0), wanted.begin(h, 0) + count, found.begin(h, m)))
            throw std::runtime_error("wrong list, query block " + std::to_string(m) + ", list head " +
                                     std::to_string(h));
    }
}

}  // namespace winnow::bench
