// What every translation unit of every library computes with Winnow, as text; all of them must say the same.
#pragma once

#ifdef REVERSED  // the order of includes must not matter
#include <winnow/version.hpp>

#include <winnow/op/sparse.hpp>

#include <winnow/op/prune.hpp>

#include <winnow/op/merge.hpp>

#include <winnow/reference/attend.hpp>

#include <winnow/op/attend.hpp>

#include <winnow/core/contents_fault.hpp>
#else
#include <winnow/reference/attend.hpp>
#include <winnow/winnow.hpp>
#endif

#include <cstdint>
#include <cstdio>

/// A plan, a refusal, and the bits of a small result. `static`: each unit has its own.
static char const* answer() {
    constexpr int heads = 4, kv_heads = 2, head_dim = 64, keys = 40;
    static winnow::bf16 q[2 * heads * head_dim], k[2 * keys * kv_heads * head_dim], v[2 * keys * kv_heads * head_dim];
    static winnow::bf16 o[2 * heads * head_dim];
    std::uint32_t state = 1;
    auto const fill = [&state](auto& values) {
        for (winnow::bf16& x : values) {
            state = state * 1664525u + 1013904223u;
            x = winnow::from_float<winnow::bf16>(static_cast<float>(state >> 25) / 64.0f - 1.0f);
        }
    };
    fill(q), fill(k), fill(v);
    winnow::attend_params<winnow::bf16> p{
        .queries = winnow::packed_view<winnow::bf16 const>(q, {2, 1, heads, head_dim}),
        .keys = winnow::packed_view<winnow::bf16 const>(k, {2, keys, kv_heads, head_dim}),
        .values = winnow::packed_view<winnow::bf16 const>(v, {2, keys, kv_heads, head_dim}),
        .window = {.sinks = 4, .recent = 16},
        .output = winnow::packed_view(o, {2, 1, heads, head_dim}),
        .scale = 0.125f};
    auto long_context = p;
    long_context.keys.extent[1] = long_context.values.extent[1] = 100000;
    long_context.window = {};
    auto const plan = winnow::plan(long_context, winnow::device_info{});
    auto refused = p;
    refused.keys.stride[3] = 2;
    auto const why = winnow::check(refused);
    auto const done = winnow::reference::attend(p);
    std::uint64_t hash = 14695981039346656037u;
    for (winnow::bf16 const x : o) hash = (hash ^ x.bits) * 1099511628211u;
    static char text[256];
    std::snprintf(text, sizeof text, "%zu bytes, %d splits; %s: %s %s, found %lld; %s, output %016llx; lists %zu",
                  plan.workspace_bytes, static_cast<int>(plan.schedule.splits), winnow::name(why.code), why.field,
                  why.rule, static_cast<long long>(why.value), winnow::name(done.code),
                  static_cast<unsigned long long>(hash),
                  winnow::stage_cache_entries(winnow::hip_3k, heads, kv_heads, 8));
    return text;
}
