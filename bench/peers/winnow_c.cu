// A minimal C interface over attention for the peer comparisons, which run on PyTorch tensors through ctypes.
#include <cstdio>

#include <winnow/winnow.cuh>

namespace {

using namespace winnow;

int report(status const& s) {
    if (!s) std::fprintf(stderr, "winnow: %s: %s (%s, value %lld)\n", s.field, s.rule, name(s.code), (long long)s.value);
    return static_cast<int>(s.code);
}

template <class Params>
int run(Params const& params, void* scratch, std::size_t bytes, void* stream) {
    device_info device;
    if (auto s = query_device(device, 0); !s) return report(s);
    auto const made = plan(params, device);
    if (!made) return report(made.why);
    return report(launch(params, made, {scratch, bytes}, static_cast<cudaStream_t>(stream)));
}

}  // namespace

/// Causal attention on packed bf16 [batch, token, head, channel]; `recent` < 0: dense. Returns the status code.
extern "C" int winnow_attend_bf16(void const* q, void const* k, void const* v, void* out, float* lse, long long batch,
                                  long long queries, long long keys, long long heads, long long kv_heads,
                                  long long head_dim, int is_causal, int sinks, int recent, void* scratch,
                                  long long scratch_bytes, void* stream) {
    attend_params<bf16> p;
    p.queries = packed_view(static_cast<bf16 const*>(q), {batch, queries, heads, head_dim});
    p.keys = packed_view(static_cast<bf16 const*>(k), {batch, keys, kv_heads, head_dim});
    p.values = packed_view(static_cast<bf16 const*>(v), {batch, keys, kv_heads, head_dim});
    p.output = packed_view(static_cast<bf16*>(out), {batch, queries, heads, head_dim});
    if (lse != nullptr) p.lse = natural_lse{packed_view(lse, {batch, queries, heads})};
    p.scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
    p.mask = is_causal ? attention_mask(causal{}) : attention_mask(full{});
    if (recent >= 0) p.window = {sinks, recent};
    return run(p, scratch, static_cast<std::size_t>(scratch_bytes), stream);
}
