// A minimal C interface for the peer comparisons, which run on PyTorch tensors through ctypes.
#include <cstdio>

#include <winnow/winnow.cuh>

/// Packed bf16 [batch, token, head, channel] tensors as PyTorch makes them.
struct winnow_tensors {
    void const *q, *k, *v;
    void* out;
    long long batch, queries, keys, heads, kv_heads, head_dim;
};

namespace {

using namespace winnow;

int report(status const& s) {
    if (!s)
        std::fprintf(stderr, "winnow: %s: %s (%s, value %lld)\n", s.field, s.rule, name(s.code), (long long)s.value);
    return static_cast<int>(s.code);
}

// Launches, or with scratch null returns minus the bytes of workspace that the call needs.
template <class Params>
long long run(Params const& params, void* scratch, std::size_t bytes, void* stream) {
    device_info device;
    if (auto s = query_device(device, 0); !s) return report(s);
    auto const made = plan(params, device);
    if (!made) return report(made.why);
    if (scratch == nullptr && made.workspace_bytes > 0) return -static_cast<long long>(made.workspace_bytes);
    return report(launch(params, made, {scratch, bytes}, static_cast<cudaStream_t>(stream)));
}

template <class Params>
Params params_of(winnow_tensors const& t) {
    Params p;
    p.queries = packed_view(static_cast<bf16 const*>(t.q), {t.batch, t.queries, t.heads, t.head_dim});
    p.keys = packed_view(static_cast<bf16 const*>(t.k), {t.batch, t.keys, t.kv_heads, t.head_dim});
    p.values = packed_view(static_cast<bf16 const*>(t.v), {t.batch, t.keys, t.kv_heads, t.head_dim});
    p.output = packed_view(static_cast<bf16*>(t.out), {t.batch, t.queries, t.heads, t.head_dim});
    p.scale = 1.0f / __builtin_sqrtf(static_cast<float>(t.head_dim));
    return p;
}

}  // namespace

/// Dense causal attention; the queries are the last rows of the context. Returns the status code.
extern "C" long long winnow_dense_prefill(winnow_tensors const* t, void* scratch, long long bytes, void* stream) {
    return run(params_of<attend_params<bf16>>(*t), scratch, static_cast<std::size_t>(bytes), stream);
}

/// Sparse prefill with the hip_3k preset and `list_heads` 1 (one list for all heads) or kv_heads.
extern "C" long long winnow_sparse_prefill(winnow_tensors const* t, long long list_heads, void* scratch,
                                           long long bytes, void* stream) {
    auto p = params_of<sparse_prefill_params<bf16>>(*t);
    p.method = hip_3k;
    p.method.sharing = list_heads == 1 ? sharing::per_batch : sharing::per_kv_group;
    return run(p, scratch, static_cast<std::size_t>(bytes), stream);
}

/// Causal attention over lists alone, one for all heads of a query block. `blocks` [batch, query_blocks, capacity] and
/// `counts` [batch, query_blocks] are device memory.
extern "C" long long winnow_listed_prefill(winnow_tensors const* t, int const* blocks, int const* counts,
                                           long long query_blocks, long long capacity, long long query_block,
                                           long long block_size, void* scratch, long long bytes, void* stream) {
    auto p = params_of<attend_params<bf16>>(*t);
    p.window = {0, 0};
    p.selection.blocks = packed_view(blocks, {t->batch, 1, query_blocks, capacity});
    p.selection.counts = packed_view(counts, {t->batch, 1, query_blocks});
    p.selection.block_size = static_cast<int>(block_size);
    p.selection.query_block = static_cast<int>(query_block);
    return run(p, scratch, static_cast<std::size_t>(bytes), stream);
}

/// int32 entries of the lists that hip_3k keeps for `slots` requests, one list for all heads.
extern "C" long long winnow_stage_cache_entries(long long heads, long long kv_heads, long long slots) {
    return static_cast<long long>(
        stage_cache_entries(hip_3k, static_cast<int>(heads), static_cast<int>(kv_heads), static_cast<int>(slots)));
}

/// One decode step with the hip_3k preset; `step` [batch] and `lists` are device memory, `intervals` three host ints.
extern "C" long long winnow_sparse_decode(winnow_tensors const* t, int* step, int* lists, int const* intervals,
                                          void* scratch, long long bytes, void* stream) {
    auto p = params_of<sparse_decode_params<bf16>>(*t);
    p.cache.step = step, p.cache.lists = lists, p.cache.slots = static_cast<int>(t->batch);
    for (int i = 0; i < hip_3k.stage_count; ++i) p.cache.intervals.steps[i] = intervals[i];
    return run(p, scratch, static_cast<std::size_t>(bytes), stream);
}
