// A translation unit of a library that uses Winnow from CUDA. ENTRY: its answer; LAUNCH: merges two rows on the device, if
// there is one, and says how that went.
#include <winnow/winnow.cuh>

#include "answer.hpp"

extern "C" char const* ENTRY() { return answer(); }

extern "C" char const* LAUNCH() {
    winnow::device_info device;
    if (!winnow::query_device(device, 0)) return "no device";
    constexpr int channels = 64;
    struct {
        float outputs[2][channels], lses[2], output[channels];
    } host{}, *there = nullptr;
    for (int c = 0; c < channels; ++c) host.outputs[0][c] = 1, host.outputs[1][c] = 3;
    if (cudaMalloc(&there, sizeof host) != cudaSuccess) return "cudaMalloc failed";
    if (cudaMemcpy(there, &host, sizeof host, cudaMemcpyHostToDevice) != cudaSuccess) return "cudaMemcpy failed";
    winnow::merge_params<float> const p{.outputs =
                                            winnow::packed_view<float const>(there->outputs[0], {2, 1, 1, channels}),
                                        .lses = winnow::packed_view<float const>(there->lses, {2, 1, 1}),
                                        .output = winnow::packed_view(there->output, {1, 1, channels})};
    auto const done = winnow::launch(p, winnow::plan(p, device), {}, nullptr);
    if (!done) return done.field;
    if (cudaMemcpy(&host, there, sizeof host, cudaMemcpyDeviceToHost) != cudaSuccess) return "the kernel failed";
    cudaFree(there);
    for (float const x : host.output)
        if (!(x > 1.999f && x < 2.001f)) return "wrong result";
    return "merged";
}
