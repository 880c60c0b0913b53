// Times one launch: the device's time between two events around a replay of a CUDA graph, with the L2 cache full of
// other data. The flush also keeps the device busy while the host queues the replay, so that launch latency is hidden.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <functional>

#include "support/machine.cuh"

namespace winnow::bench {

/// One launch as an executable graph.
class captured {
public:
    captured(std::function<status(cudaStream_t)> const& launch, cudaStream_t stream) {
        cudaGraph_t graph{};
        require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
        status const s = launch(stream);
        cudaError_t const ended = cudaStreamEndCapture(stream, &graph);
        if (s && ended == cudaSuccess) {
            cudaError_t const made = cudaGraphInstantiate(&graph_, graph, 0);
            cudaGraphDestroy(graph);
            require(made, "cudaGraphInstantiate");
            return;
        }
        if (graph != nullptr) cudaGraphDestroy(graph);
        require(s);
        require(ended, "cudaStreamEndCapture");
    }
    captured(captured const&) = delete;
    ~captured() { cudaGraphExecDestroy(graph_); }
    void replay(cudaStream_t stream) const { require(cudaGraphLaunch(graph_, stream), "cudaGraphLaunch"); }

private:
    cudaGraphExec_t graph_{};
};

/// Overwrites three times the L2 cache.
class l2_flush {
public:
    l2_flush() : buffer_(static_cast<std::size_t>(3 * this_machine().info.l2_bytes)) {}
    void operator()(cudaStream_t stream) const {
        require(cudaMemsetAsync(buffer_.data(), 0x3c, buffer_.bytes(), stream), "cudaMemsetAsync");
    }

private:
    device_array<char> buffer_;
};

/// Seconds of one replay. `before`, which may be empty, is queued between the flush and the first event.
inline double seconds_of(captured const& launch, std::function<void(cudaStream_t)> const& before = {}) {
    static l2_flush const flush;
    static event_timer timer;
    cudaStream_t const stream = this_machine().stream;
    flush(stream);
    if (before) before(stream);
    timer.start(stream);
    launch.replay(stream);
    timer.stop(stream);
    return timer.seconds();
}

}  // namespace winnow::bench
