// Every operator once, on a few random tensors and by the reference: how params are filled, for packed, ragged and
// paged tensors. With device pointers the same params go to plan() and launch(). The pages under docs/ quote this file.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include <winnow/reference/append.hpp>
#include <winnow/reference/attend.hpp>
#include <winnow/reference/cascade.hpp>
#include <winnow/reference/merge.hpp>
#include <winnow/reference/prune.hpp>
#include <winnow/reference/sparse.hpp>
#include <winnow/winnow.hpp>

using winnow::bf16;

namespace {

std::vector<bf16> random_values(std::size_t count) {
    static std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<bf16> values(count);
    for (bf16& v : values) v = winnow::from_float<bf16>(normal(generator));
    return values;
}

/// Prints a verdict and returns 0 if all is well.
int report(char const* what, winnow::status const& s) {
    if (s)
        std::printf("%-40s ok\n", what);
    else
        std::printf("%-40s %s: %s %s, found %lld\n", what, winnow::name(s.code), s.field, s.rule,
                    static_cast<long long>(s.value));
    return s ? 0 : 1;
}

/// Ok if the two differ by no more than two roundings to bf16.
winnow::status compare(std::vector<bf16> const& a, std::vector<bf16> const& b) {
    float most = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        most = std::fmax(most, std::fabs(winnow::to_float(a[i]) - winnow::to_float(b[i])));
        size = std::fmax(size, std::fabs(winnow::to_float(b[i])));
    }
    return most <= size / 64 ? winnow::status{}
                             : winnow::fail(winnow::errc::out_of_range, "output", "must equal the other", 0);
}

constexpr int heads = 8, kv_heads = 2, head_dim = 64;

/// One new token for each of two requests, keys and values in pages of 16 tokens.
int attend_paged_decode() {
    auto const q = random_values(2 * heads * head_dim), k = random_values(8 * 16 * kv_heads * head_dim),
               v = random_values(k.size());
    std::vector<bf16> o(q.size());
    std::vector<float> sums(2 * heads);
    // Request 0 has 40 keys in pages 5, 1, 7; request 1 has 16 keys in page 2.
    std::vector<std::int32_t> const table{5, 1, 7, 2, 0, 0}, lengths{40, 16};
    // [attend]
    winnow::attend_params<bf16> p{
        .queries = winnow::packed_view(q.data(), {2, 1, heads, head_dim}),
        .keys = winnow::packed_view(k.data(), {8, 16, kv_heads, head_dim}),  // [page, token in page, kv_head, channel]
        .values = winnow::packed_view(v.data(), {8, 16, kv_heads, head_dim}),
        .kv = {.layout = winnow::kv_layout::block_table,
               .length = lengths.data(),  // [batch], device memory for the kernels
               .pages = table.data(),     // [batch, table_stride]
               .table_stride = 3,
               .max_length = 48},  // bounds every length; plan and workspace depend on it alone
        .window = {.sinks = 4, .recent = 24},
        .output = winnow::packed_view(o.data(), {2, 1, heads, head_dim}),
        .lse = winnow::natural_lse{winnow::packed_view(sums.data(), {2, 1, heads})},
        .scale = 0.125f};
    // [/attend]
    auto const plan = winnow::plan(p, winnow::device_info{});
    if (!plan) return report("attend, paged decode", plan.why);
    return report("attend, paged decode", winnow::reference::attend(p));
}

/// Lists of key blocks for two requests of different length, packed one after the other.
int prune_ragged() {
    std::vector<std::int32_t> const start{0, 200, 500};
    auto const q = random_values(500 * heads * head_dim), k = random_values(500 * kv_heads * head_dim);
    // [prune]
    winnow::prune_method const method{
        .stages = {{64, 2, 64, 4}, {64, 1, 16, 8}},  // query_block, query_stride, chunk, keep
        .stage_count = 2,
        .window = {.sinks = 16, .recent = 64},
        .sharing = winnow::sharing::per_kv_group};
    winnow::prune_params<bf16> p{.queries = winnow::packed_view(q.data(), {1, 500, heads, head_dim}),
                                 .keys = winnow::packed_view(k.data(), {1, 500, kv_heads, head_dim}),
                                 .kv = {.layout = winnow::kv_layout::ragged, .start = start.data(), .max_length = 300},
                                 .rows = {.start = start.data(), .batch = 2, .max_length = 300},
                                 .method = method};
    auto const extents = winnow::selection_extents_of(method, p.shape());
    std::vector<std::int32_t> blocks(extents.list_count() * static_cast<std::size_t>(extents.capacity));
    std::vector<std::int32_t> counts(extents.list_count());
    p.selection = winnow::packed_selection(blocks.data(), counts.data(), method, p.shape());
    // [/prune]
    if (auto s = winnow::reference::prune(p); !s) return report("prune, ragged", s);
    return report("prune, ragged", winnow::check_contents(p.selection, 300));
}

/// Attention over the two halves of the keys, merged, against attention over all of them.
int merge_halves() {
    constexpr int rows = 5, keys = 96, half = keys / 2;
    auto const q = random_values(rows * heads * head_dim), k = random_values(keys * kv_heads * head_dim),
               v = random_values(k.size());
    std::vector<bf16> parts(2 * q.size()), merged(q.size()), whole(q.size());
    std::vector<float> sums(2 * rows * heads);
    auto const over = [&](int first, int count, bf16* output, float* lse) {
        std::size_t const skip = static_cast<std::size_t>(first) * kv_heads * head_dim;
        winnow::attend_params<bf16> p{.queries = winnow::packed_view(q.data(), {1, rows, heads, head_dim}),
                                      .keys = winnow::packed_view(k.data() + skip, {1, count, kv_heads, head_dim}),
                                      .values = winnow::packed_view(v.data() + skip, {1, count, kv_heads, head_dim}),
                                      .output = winnow::packed_view(output, {1, rows, heads, head_dim}),
                                      .scale = 0.125f,
                                      .mask = winnow::full{}};
        if (lse) p.lse = winnow::natural_lse{winnow::packed_view(lse, {1, rows, heads})};
        return winnow::reference::attend(p);
    };
    if (auto s = over(0, half, parts.data(), sums.data()); !s) return report("merge", s);
    if (auto s = over(half, half, parts.data() + q.size(), sums.data() + rows * heads); !s) return report("merge", s);
    if (auto s = over(0, keys, whole.data(), nullptr); !s) return report("merge", s);
    // [merge]
    winnow::merge_params<bf16> p{.outputs = winnow::packed_view(parts.data(), {2, rows, heads, head_dim}),
                                 .lses = winnow::packed_view(sums.data(), {2, rows, heads}),
                                 .base = winnow::lse_base::natural,
                                 .output = winnow::packed_view(merged.data(), {rows, heads, head_dim})};
    // [/merge]
    if (auto s = winnow::reference::merge(p); !s) return report("merge", s);
    return report("merge", compare(merged, whole));
}

/// Five new tokens of a fused projection go to pages of 16 tokens; queries and keys are rotated on the way.
int append_rotated() {
    constexpr int tokens = 5, row = (heads + 2 * kv_heads) * head_dim;
    auto projected = random_values(tokens * row);
    std::vector<bf16> k_cache(8 * 16 * kv_heads * head_dim), v_cache(k_cache.size());
    // [append]
    // [token, head, channel]: queries, keys and values lie side by side in one row.
    auto const part = [&](int first_head, int count) {
        winnow::tensor_view<bf16, 3> view =
            winnow::packed_view(projected.data() + first_head * head_dim, {tokens, count, head_dim});
        view.stride[0] = row;
        return view;
    };
    // Tokens 46, 47, 48 of a request whose pages are 5, 1, 7, 2; one token of another; one row of padding.
    std::vector<std::int64_t> const slot{7 * 16 + 14, 7 * 16 + 15, 2 * 16 + 0, 3 * 16 + 9, -1};
    std::vector<std::int32_t> const position{46, 47, 48, 9, 0};
    winnow::append_params<bf16> p{.keys = part(heads, kv_heads),
                                  .values = part(heads + kv_heads, kv_heads),
                                  .key_cache = winnow::packed_view(k_cache.data(), {8, 16, kv_heads, head_dim}),
                                  .value_cache = winnow::packed_view(v_cache.data(), {8, 16, kv_heads, head_dim}),
                                  .slot = slot.data(),          // [token]; the slot mapping of a paged engine
                                  .position = position.data(),  // [token]
                                  .rotation = {.theta = 10000.0f},
                                  .queries = part(0, heads)};  // rotated where they are
    // [/append]
    if (auto s = winnow::reference::append(p); !s) return report("append, rotated", s);
    winnow::tensor_view<bf16, 4> const& cache = p.value_cache;  // values are not rotated
    bool const there = cache(7, 15, 1, 3).bits == p.values(1, 1, 3).bits && cache(0, 0, 0, 0).bits == 0;
    return report("append, rotated", there ? winnow::status{}
                                           : winnow::fail(winnow::errc::out_of_range, "value_cache",
                                                          "must hold the new rows and nothing else", 0));
}

/// A prompt, then some decode steps, against one cache of keys and values that holds them all.
int sparse_prefill_and_decode() {
    constexpr int prompt = 300, steps = 20, capacity = prompt + steps;
    auto const q = random_values(capacity * heads * head_dim), k = random_values(capacity * kv_heads * head_dim),
               v = random_values(k.size());
    std::vector<bf16> o(q.size());
    std::int32_t length = prompt;
    // [sparse_prefill]
    winnow::sparse_prefill_params<bf16> prefill{
        .queries = winnow::packed_view(q.data(), {1, prompt, heads, head_dim}),
        .keys = winnow::packed_view(k.data(), {1, capacity, kv_heads, head_dim}),
        .values = winnow::packed_view(v.data(), {1, capacity, kv_heads, head_dim}),
        .kv = {.length = &length},  // keys that are there; the extent is the bound
        .method = winnow::hip_tiny,
        .output = winnow::packed_view(o.data(), {1, prompt, heads, head_dim}),
        .scale = 0.125f};
    // [/sparse_prefill]
    if (auto s = winnow::reference::sparse_prefill(prefill); !s) return report("sparse_prefill", s);
    // [sparse_decode]
    constexpr int slots = 4;  // requests that can run at a time
    std::vector<std::int32_t> step(slots, 0), slot{2};
    std::vector<std::int32_t> lists(winnow::stage_cache_entries(winnow::hip_tiny, heads, kv_heads, slots));
    for (int i = 0; i < steps; ++i) {
        ++length;  // the new token's key and value are in the cache
        std::size_t const row = static_cast<std::size_t>(length - 1) * heads * head_dim;
        winnow::sparse_decode_params<bf16> decode{
            .queries = winnow::packed_view(q.data() + row, {1, 1, heads, head_dim}),
            .keys = prefill.keys,
            .values = prefill.values,
            .kv = prefill.kv,
            .method = winnow::hip_tiny,
            .cache = {.step = step.data(), .lists = lists.data(), .slot = slot.data(), .slots = slots},
            .output = winnow::packed_view(o.data() + row, {1, 1, heads, head_dim}),
            .scale = 0.125f};
        if (auto s = winnow::reference::sparse_decode(decode); !s) return report("sparse_decode", s);
    }
    // [/sparse_decode]
    return report("sparse_prefill, sparse_decode", {});
}

/// 300 tokens appended to an fp8 cache of pages, then a decode step over it.
int decode_fp8() {
    constexpr int tokens = 300, page_size = 16, pages = 19;
    auto const q = random_values(heads * head_dim), k = random_values(tokens * kv_heads * head_dim),
               v = random_values(k.size());
    std::vector<bf16> o(q.size());
    std::vector<std::int64_t> slot(tokens);
    std::vector<std::int32_t> table(pages), step(1, 0), length(1, tokens);
    for (int i = 0; i < tokens; ++i) slot[static_cast<std::size_t>(i)] = i;
    for (int i = 0; i < pages; ++i) table[static_cast<std::size_t>(i)] = i;
    std::vector<std::int32_t> lists(winnow::stage_cache_entries(winnow::hip_tiny, heads, kv_heads, 1));
    // [decode_fp8]
    std::vector<winnow::fp8_e4m3> key_cache(pages * page_size * kv_heads * head_dim), value_cache(key_cache.size());
    std::vector<float> const key_scale{0.02f, 0.03f}, value_scale{0.02f, 0.02f};  // one for each KV head
    winnow::cache_scales const scales{.key = key_scale.data(), .value = value_scale.data(), .heads = kv_heads};
    winnow::append_params<bf16, winnow::fp8_e4m3> rows{
        .keys = winnow::packed_view(k.data(), {tokens, kv_heads, head_dim}),
        .values = winnow::packed_view(v.data(), {tokens, kv_heads, head_dim}),
        .key_cache = winnow::packed_view(key_cache.data(), {pages, page_size, kv_heads, head_dim}),
        .value_cache = winnow::packed_view(value_cache.data(), {pages, page_size, kv_heads, head_dim}),
        .slot = slot.data(),
        .scales = scales};
    if (auto s = winnow::reference::append(rows); !s) return report("append, fp8", s);
    winnow::sparse_decode_params<bf16, winnow::fp8_e4m3> decode{
        .queries = winnow::packed_view(q.data(), {1, 1, heads, head_dim}),
        .keys = rows.key_cache,
        .values = rows.value_cache,
        .kv = {.layout = winnow::kv_layout::block_table,
               .length = length.data(),
               .pages = table.data(),
               .table_stride = pages,
               .max_length = tokens},
        .method = winnow::hip_tiny,
        .cache = {.step = step.data(), .lists = lists.data(), .slots = 1},
        .output = winnow::packed_view(o.data(), {1, 1, heads, head_dim}),
        .scale = 0.125f,
        .scales = scales};
    // [/decode_fp8]
    return report("sparse_decode, fp8 cache", winnow::reference::sparse_decode(decode));
}

/// A prompt of 200 tokens through a cascading cache of 68, in chunks, then one token more.
int cascade() {
    constexpr int prompt = 200;
    auto const q = random_values((prompt + 1) * heads * head_dim),
               k = random_values((prompt + 1) * kv_heads * head_dim), v = random_values(k.size());
    std::vector<bf16> o(q.size());
    // [cascade]
    winnow::cascade_cache<bf16> cache{
        .layout = winnow::even_cascade(4, 64, 4),  // 4 sinks, 4 sub-caches of 16 slots; sliding_window(4, 64) is one
        .sequences = 1,
        .kv_heads = kv_heads,
        .head_dim = head_dim,
        .stored = winnow::cascade_keys::with_rotated};                         // decode steps read keys as they lie
    std::vector<std::uint64_t> memory(winnow::cascade_bytes(cache) / 8 + 32);  // zeros: an empty cache
    auto const address = reinterpret_cast<std::uintptr_t>(memory.data());
    cache.memory = memory.data() + (winnow::workspace_alignment - address % winnow::workspace_alignment) / 8;
    winnow::cascade_prefill_params<bf16> prefill{
        .queries = winnow::packed_view(q.data(), {1, prompt, heads, head_dim}),
        .keys = winnow::packed_view(k.data(), {1, prompt, kv_heads, head_dim}),  // not rotated
        .values = winnow::packed_view(v.data(), {1, prompt, kv_heads, head_dim}),
        .cache = cache,
        .output = winnow::packed_view(o.data(), {1, prompt, heads, head_dim}),
        .scale = 0.125f,
        .rotation = {.theta = 10000.0f},  // by place in the cache
        .chunk = 64};
    if (auto s = winnow::reference::cascade_prefill(prefill); !s) return report("cascade_prefill", s);

    std::vector<float> scores(kv_heads);  // of the new token: the attention that it gets
    winnow::cascade_attend_params<bf16> token{
        .queries = winnow::packed_view(q.data() + prompt * heads * head_dim, {1, 1, heads, head_dim}),
        .keys = winnow::packed_view(k.data() + prompt * kv_heads * head_dim, {1, 1, kv_heads, head_dim}),
        .values = winnow::packed_view(v.data() + prompt * kv_heads * head_dim, {1, 1, kv_heads, head_dim}),
        .cache = cache,
        .output = winnow::packed_view(o.data() + prompt * heads * head_dim, {1, 1, heads, head_dim}),
        .scale = 0.125f,
        .rotation = prefill.rotation,
        .scores = winnow::packed_view(scores.data(), {1, 1, kv_heads})};
    if (auto s = winnow::reference::cascade_attend(token); !s) return report("cascade_attend", s);
    if (auto s = winnow::reference::cascade_insert(winnow::insert_part(token)); !s) return report("cascade_insert", s);
    // [/cascade]
    if (cache.counters(0)->seen != prompt + 1)
        return report("cascade", winnow::fail(winnow::errc::out_of_range, "seen", "must count all tokens", 0));
    return report("cascade_prefill, cascade_attend, insert", {});
}

}  // namespace

int main() {
    return attend_paged_decode() + prune_ragged() + merge_halves() + append_rotated() + sparse_prefill_and_decode() +
           decode_fp8() + cascade();
}
