// Sparse attention next to dense attention on a real model's queries, keys and values, by the CUDA kernels.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <winnow/winnow.cuh>

#include "quickstart.hpp"

namespace {

using element = winnow::bf16;

/// Ends the program if a CUDA call failed.
void must(cudaError_t error, char const* call) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "quickstart: %s: %s\n", call, cudaGetErrorString(error));
    std::exit(1);
}

/// Device memory.
template <class T>
class device_buffer {
public:
    explicit device_buffer(std::size_t count) : bytes_(count * sizeof(T)) {
        if (bytes_ > 0) must(cudaMalloc(&data_, bytes_), "cudaMalloc");
    }
    /// A copy of packed host memory.
    device_buffer(T const* host, std::size_t count) : device_buffer(count) {
        if (bytes_ > 0) must(cudaMemcpy(data_, host, bytes_, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
    }
    device_buffer(device_buffer const&) = delete;
    device_buffer& operator=(device_buffer const&) = delete;
    ~device_buffer() { cudaFree(data_); }

    void copy_to(T* host) const {
        if (bytes_ > 0) must(cudaMemcpy(host, data_, bytes_, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
    }
    T* data() const { return static_cast<T*>(data_); }
    std::size_t bytes() const { return bytes_; }

private:
    void* data_ = nullptr;
    std::size_t bytes_;
};

/// Device copies of the tensors of one call, which are packed here.
template <class Params>
struct device_tensors {
    device_buffer<element> queries, keys, values, output;

    explicit device_tensors(Params const& p)
        : queries(p.queries.data, p.queries.size()), keys(p.keys.data, p.keys.size()),
          values(p.values.data, p.values.size()), output(p.output.size()) {}

    /// The same call on the device.
    Params moved(Params p) const {
        p.queries.data = queries.data();
        p.keys.data = keys.data();
        p.values.data = values.data();
        p.output.data = output.data();
        return p;
    }
};

class gpu_backend : public quickstart::backend {
public:
    gpu_backend(winnow::device_info const& device, std::string name) : device_(device), name_(std::move(name)) {
        must(cudaStreamCreate(&stream_), "cudaStreamCreate");
        must(cudaEventCreate(&start_), "cudaEventCreate");
        must(cudaEventCreate(&stop_), "cudaEventCreate");
    }
    ~gpu_backend() override {
        cudaEventDestroy(stop_);
        cudaEventDestroy(start_);
        cudaStreamDestroy(stream_);
    }

    std::string device() const override { return name_; }

    winnow::status attend(winnow::attend_params<element> const& p, quickstart::progress&, double& time) override {
        device_tensors<winnow::attend_params<element>> const tensors(p);
        if (auto s = run(tensors.moved(p), time); !s) return s;
        tensors.output.copy_to(p.output.data);
        return {};
    }

    /// One call for the output; the lists, which it keeps in its workspace, come from pruning alone.
    winnow::status sparse_prefill(winnow::sparse_prefill_params<element> const& p,
                                  winnow::block_selection_buffer const& chosen, quickstart::progress&,
                                  double& time) override {
        device_tensors<winnow::sparse_prefill_params<element>> const tensors(p);
        auto const moved = tensors.moved(p);
        if (auto s = run(moved, time); !s) return s;
        tensors.output.copy_to(p.output.data);

        device_buffer<std::int32_t> const blocks(chosen.blocks.size()), counts(chosen.counts.size());
        auto lists = chosen;
        lists.blocks.data = blocks.data();
        lists.counts.data = counts.data();
        double pruning = 0;
        if (auto s = run(prune_part(moved, lists), pruning); !s) return s;
        blocks.copy_to(chosen.blocks.data);
        counts.copy_to(chosen.counts.data);
        return {};
    }

private:
    /// Plans and launches; `time` is the median of some runs after a few to warm up.
    template <class Params>
    winnow::status run(Params const& p, double& time) const {
        auto const plan = winnow::plan(p, device_);
        if (!plan) return plan.why;
        device_buffer<std::byte> const scratch(plan.workspace_bytes);
        constexpr int warm_up = 3, repetitions = 21;
        std::vector<double> times;
        for (int i = 0; i < warm_up + repetitions; ++i) {
            must(cudaEventRecord(start_, stream_), "cudaEventRecord");
            if (auto s = winnow::launch(p, plan, winnow::workspace{scratch.data(), scratch.bytes()}, stream_); !s)
                return s;
            must(cudaEventRecord(stop_, stream_), "cudaEventRecord");
            must(cudaEventSynchronize(stop_), "a kernel");
            float milliseconds = 0;
            must(cudaEventElapsedTime(&milliseconds, start_, stop_), "cudaEventElapsedTime");
            if (i >= warm_up) times.push_back(milliseconds / 1000);
        }
        std::nth_element(times.begin(), times.begin() + repetitions / 2, times.end());
        time = times[repetitions / 2];
        return {};
    }

    winnow::device_info device_;
    std::string name_;
    cudaStream_t stream_ = nullptr;
    cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

std::unique_ptr<gpu_backend> make_backend(quickstart::options const&) {
    int ordinal = 0;
    cudaDeviceProp properties{};
    winnow::device_info device;
    if (cudaGetDevice(&ordinal) != cudaSuccess || cudaGetDeviceProperties(&properties, ordinal) != cudaSuccess) {
        quickstart::failed("no CUDA device here; the CPU program is built with -DWINNOW_CUDA=OFF");
        return nullptr;
    }
    if (auto s = winnow::query_device(device, ordinal); !s) {
        quickstart::failed("query_device", s);
        return nullptr;
    }
    return std::make_unique<gpu_backend>(device, properties.name);
}

}  // namespace

int main(int count, char** words) { return quickstart::run(count, words, make_backend); }
