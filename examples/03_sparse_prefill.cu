// The call an engine makes for a prompt: sparse attention over 16384 tokens in one launch, on random tensors.
#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include <winnow/winnow.cuh>

using winnow::bf16;

namespace {

void must(cudaError_t error, char const* call) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
    std::exit(1);
}

/// Device memory with normal random numbers in it; it lives as long as the program.
bf16* random_tensor(std::size_t count) {
    static std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<bf16> values(count);
    for (bf16& v : values) v = winnow::from_float<bf16>(normal(generator));
    void* data = nullptr;
    must(cudaMalloc(&data, count * sizeof(bf16)), "cudaMalloc");
    must(cudaMemcpy(data, values.data(), count * sizeof(bf16), cudaMemcpyHostToDevice), "cudaMemcpy");
    return static_cast<bf16*>(data);
}

int report(winnow::status const& s) {
    if (s) return 0;
    std::fprintf(stderr, "%s: %s %s, found %lld\n", winnow::name(s.code), s.field, s.rule,
                 static_cast<long long>(s.value));
    return 1;
}

int prefill(winnow::device_info const& device, cudaStream_t stream) {
    constexpr std::int64_t tokens = 16384, heads = 32, kv_heads = 8, head_dim = 128;
    bf16 const* const q = random_tensor(tokens * heads * head_dim);
    bf16 const* const k = random_tensor(tokens * kv_heads * head_dim);
    bf16 const* const v = random_tensor(tokens * kv_heads * head_dim);
    bf16* const o = random_tensor(tokens * heads * head_dim);
    // [launch]
    winnow::sparse_prefill_params<bf16> p{
        .queries = winnow::packed_view(q, {1, tokens, heads, head_dim}),  // pointer, extents, strides in elements
        .keys = winnow::packed_view(k, {1, tokens, kv_heads, head_dim}),
        .values = winnow::packed_view(v, {1, tokens, kv_heads, head_dim}),
        .method = winnow::hip_3k,  // 256 sinks, the last 1024 keys, 2048 selected
        .output = winnow::packed_view(o, {1, tokens, heads, head_dim}),
        .scale = 1 / std::sqrt(128.0f)};
    auto const plan = winnow::plan(p, device);  // host arithmetic: no CUDA call, no tensor is read
    if (!plan) return report(plan.why);         // field, rule, value found
    void* scratch = nullptr;
    must(cudaMalloc(&scratch, plan.workspace_bytes), "cudaMalloc");
    if (auto s = winnow::launch(p, plan, {scratch, plan.workspace_bytes}, stream); !s) return report(s);
    // [/launch]
    must(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    std::printf("sparse prefill of %lld tokens: %.1f MB of workspace\n", static_cast<long long>(tokens),
                static_cast<double>(plan.workspace_bytes) / 1e6);
    return 0;
}

}  // namespace

int main() {
    winnow::device_info device;
    if (auto s = winnow::query_device(device, 0); !s) return report(s);
    return prefill(device, nullptr);
}
