// Device memory of a test, running one launch in it, and graphs: each cleans up after itself and reports what failed.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_launchers.hpp"
#include "support/random_input.hpp"
#include "winnow/reference/parallel.hpp"

namespace winnow::testing {

/// A CUDA call of the test itself; Catch2 reports the exception.
inline void require_cuda(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

/// Device 0, as plans see it.
inline device_info const& current_device() {
    static device_info const device = [] {
        device_info d;
        status const s = gpu_query_device(d, 0);
        if (!s) throw std::runtime_error(std::string(s.field) + " " + s.rule + " " + std::to_string(s.value));
        return d;
    }();
    return device;
}

/// The same, with the portable kernels alone.
inline device_info portable_device() {
    device_info d = current_device();
    d.instructions = 80;
    return d;
}

/// The same, as if one block had to do everything: blocks that draw tiles go from one to the next, which a device with
/// more multiprocessors than a test has tiles never shows.
inline device_info single_block_device() {
    device_info d = current_device();
    d.multiprocessors = 1;
    return d;
}

/// False under racecheck, which gpu_record.py announces. Where one lane arrives at an mbarrier for its warp, once the warp
/// has met at __syncwarp, racecheck reports what the other lanes read before, in programs without this library too; places
/// in shared memory that a block's next tiles take over are handed back so. docs/contributing.md says what was tried.
inline bool runs_tiles_in_turn() {
    char const* const tool = std::getenv("WINNOW_SANITIZER");
    return tool == nullptr || std::strcmp(tool, "racecheck") != 0;
}

/// The oracle may use the whole machine.
inline reference::run_options all_threads() {
    return {.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
}

/// Bytes on the device, all 0xff at first (NaN, -1), with as many guard bytes behind them as asked for.
class device_memory {
public:
    explicit device_memory(std::size_t bytes, std::size_t guard = 0) : bytes_(bytes), guard_(guard) {
        if (bytes + guard == 0) return;
        require_cuda(cudaMalloc(reinterpret_cast<void**>(&data_), bytes + guard));
        require_cuda(cudaMemset(data_, 0xff, bytes + guard));
    }
    explicit device_memory(std::vector<char> const& from) : device_memory(from.size()) {
        upload(from.data(), from.size());
    }
    device_memory(device_memory const&) = delete;
    device_memory& operator=(device_memory const&) = delete;
    ~device_memory() { cudaFree(data_); }

    char* data() const { return data_; }
    template <class U>
    U* as(std::size_t offset = 0) const {
        return reinterpret_cast<U*>(data_ + offset);
    }
    std::size_t size() const { return bytes_; }
    void upload(void const* from, std::size_t bytes, std::size_t offset = 0) {
        if (bytes > 0) require_cuda(cudaMemcpy(data_ + offset, from, bytes, cudaMemcpyHostToDevice));
    }
    template <class U>
    std::vector<U> download() const {
        std::vector<U> to(bytes_ / sizeof(U));
        if (!to.empty()) require_cuda(cudaMemcpy(to.data(), data_, to.size() * sizeof(U), cudaMemcpyDeviceToHost));
        return to;
    }
    /// False when something was written behind the bytes.
    bool guard_intact() const {
        std::vector<unsigned char> guard(guard_);
        if (guard_ > 0) require_cuda(cudaMemcpy(guard.data(), data_ + bytes_, guard_, cudaMemcpyDeviceToHost));
        return std::all_of(guard.begin(), guard.end(), [](unsigned char c) { return c == 0xff; });
    }

private:
    char* data_ = nullptr;
    std::size_t bytes_, guard_;
};

/// Plans `p`, lends exactly the workspace that the plan asks for, launches, and waits. Returns the plan.
template <class Params>
auto run_on_device(Params const& p, device_info const& device = current_device()) {
    auto const plan = winnow::plan(p, device);
    INFO("plan: " << plan.why.field << " " << plan.why.rule << " " << plan.why.value);
    REQUIRE(plan.why.ok());
    device_memory scratch(plan.workspace_bytes, plan.workspace_bytes > 0 ? 4096 : 0);
    status const s = gpu_launch(p, plan, {scratch.data(), plan.workspace_bytes}, nullptr);
    INFO("launch: " << s.field << " " << s.rule << " " << s.value);
    REQUIRE(s.ok());
    require_cuda(cudaDeviceSynchronize());
    CHECK(scratch.guard_intact());
    return plan;
}

/// The memory of an attend_input on the device: outputs and lse poisoned, whatever the host's copy holds by then.
template <class T>
class device_copy {
public:
    explicit device_copy(attend_input<T>& in) : in_(in), before_(poisoned(in)), memory_(before_) {}
    attend_params<T> params() const { return in_.params(memory_.data()); }
    char* base() const { return memory_.data(); }
    /// Takes over what the host wrote to the inputs since; outputs are poisoned again.
    void refresh() {
        before_ = poisoned(in_);
        memory_.upload(before_.data(), before_.size());
    }
    std::vector<char> download() const { return memory_.download<char>(); }
    /// Offset of the first byte that a launch changed outside the tensors that it may write; -1: none.
    std::int64_t stray_write(std::vector<char> const& after, bool lse_wanted = true) const {
        auto const p = in_.params(nullptr);
        auto const inside = [](std::size_t at, void const* begin, std::size_t bytes) {
            auto const first = reinterpret_cast<std::uintptr_t>(begin);
            return at >= first && at < first + bytes;
        };
        for (std::size_t i = 0; i < after.size(); ++i)
            if (after[i] != before_[i] &&
                !inside(i, p.output.data, static_cast<std::size_t>(p.output.size()) * sizeof(T)) &&
                !(lse_wanted && inside(i, p.lse.values.data, static_cast<std::size_t>(p.lse.values.size()) * 4)))
                return static_cast<std::int64_t>(i);
        return -1;
    }

private:
    static std::vector<char> poisoned(attend_input<T>& in) {
        std::vector<char> bytes(in.memory().base(), in.memory().base() + in.memory().size());
        auto const p = in.params(bytes.data());
        std::memset(static_cast<void*>(p.output.data), 0xff, static_cast<std::size_t>(p.output.size()) * sizeof(T));
        std::memset(p.lse.values.data, 0xff, static_cast<std::size_t>(p.lse.values.size()) * sizeof(float));
        return bytes;
    }
    attend_input<T>& in_;
    std::vector<char> before_;
    device_memory memory_;
};

/// What `enqueue(stream)` does, captured once. Global capture fails on any allocation or synchronisation meanwhile.
class captured_graph {
public:
    template <class F>
    explicit captured_graph(F const& enqueue) {
        require_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
        require_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
        enqueue(stream_);
        require_cuda(cudaStreamEndCapture(stream_, &graph_));
        require_cuda(cudaGraphInstantiate(&executable_, graph_, 0));
    }
    captured_graph(captured_graph const&) = delete;
    captured_graph& operator=(captured_graph const&) = delete;
    ~captured_graph() {
        if (executable_) cudaGraphExecDestroy(executable_);
        if (graph_) cudaGraphDestroy(graph_);
        if (stream_) cudaStreamDestroy(stream_);
    }
    void replay() const {
        require_cuda(cudaDeviceSynchronize());  // uploads went through the legacy stream
        require_cuda(cudaGraphLaunch(executable_, stream_));
        require_cuda(cudaStreamSynchronize(stream_));
    }
    /// Kernels, and nodes of any other kind but memset: copies, allocations, host functions.
    std::pair<int, int> kernels_and_others() const {
        std::size_t count = 0;
        require_cuda(cudaGraphGetNodes(graph_, nullptr, &count));
        std::vector<cudaGraphNode_t> nodes(count);
        require_cuda(cudaGraphGetNodes(graph_, nodes.data(), &count));
        std::pair<int, int> found{0, 0};
        for (auto const node : nodes) {
            cudaGraphNodeType type{};
            require_cuda(cudaGraphNodeGetType(node, &type));
            if (type == cudaGraphNodeTypeKernel)
                ++found.first;
            else if (type != cudaGraphNodeTypeMemset)
                ++found.second;
        }
        return found;
    }

private:
    cudaStream_t stream_ = nullptr;
    cudaGraph_t graph_ = nullptr;
    cudaGraphExec_t executable_ = nullptr;
};

}  // namespace winnow::testing
