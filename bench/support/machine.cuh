// What every benchmark runs on: errors as exceptions, device memory, one stream, and the copy rate of this run.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/sample.hpp"
#include "winnow/core/device_query.cuh"
#include "winnow/core/math.hpp"
#include "winnow/core/status.hpp"

namespace winnow::bench {

/// Benchmarks are programs, not the library: they throw, and the harness turns it into a failed benchmark.
inline void require(cudaError_t error, char const* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // an error that is not sticky must not fail the next benchmark
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}
inline void require(status const& s) {
    if (!s)
        throw std::runtime_error(std::string(s.field) + " " + s.rule + " (" + name(s.code) + ", value " +
                                 std::to_string(s.value) + ")");
}

/// Elements in device memory, uninitialised.
template <class U>
class device_array {
public:
    explicit device_array(std::size_t count = 0) : count_(count) {
        if (count > 0) require(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(U)), "cudaMalloc");
    }
    explicit device_array(std::vector<U> const& from) : device_array(from.size()) { upload(from); }
    device_array(device_array&& other) noexcept : data_(other.data_), count_(other.count_) {
        other.data_ = nullptr, other.count_ = 0;
    }
    device_array& operator=(device_array&& other) noexcept {
        std::swap(data_, other.data_), std::swap(count_, other.count_);
        return *this;
    }
    ~device_array() { cudaFree(data_); }

    U* data() const { return data_; }
    std::size_t size() const { return count_; }
    std::size_t bytes() const { return count_ * sizeof(U); }
    void upload(std::vector<U> const& from) {
        require(cudaMemcpy(data_, from.data(), from.size() * sizeof(U), cudaMemcpyHostToDevice), "upload");
    }
    std::vector<U> download() const { return download(0, count_); }
    std::vector<U> download(std::size_t first, std::size_t count) const {
        std::vector<U> to(count);
        if (count > 0)
            require(cudaMemcpy(to.data(), data_ + first, count * sizeof(U), cudaMemcpyDeviceToHost), "download");
        return to;
    }

private:
    U* data_ = nullptr;
    std::size_t count_ = 0;
};

/// Time between two points of a stream.
class event_timer {
public:
    event_timer() {
        require(cudaEventCreate(&start_), "cudaEventCreate");
        require(cudaEventCreate(&stop_), "cudaEventCreate");
    }
    event_timer(event_timer const&) = delete;
    ~event_timer() { cudaEventDestroy(start_), cudaEventDestroy(stop_); }

    void start(cudaStream_t stream) { require(cudaEventRecord(start_, stream), "cudaEventRecord"); }
    void stop(cudaStream_t stream) { require(cudaEventRecord(stop_, stream), "cudaEventRecord"); }
    /// Waits for the stop.
    double seconds() {
        float milliseconds = 0;
        require(cudaEventSynchronize(stop_), "cudaEventSynchronize");
        require(cudaEventElapsedTime(&milliseconds, start_, stop_), "cudaEventElapsedTime");
        return 1e-3 * static_cast<double>(milliseconds);
    }

private:
    cudaEvent_t start_{}, stop_{};
};

/// Device 0 and what was measured of it.
struct machine {
    device_info info;
    std::string name;
    cudaStream_t stream = nullptr;
    double copy_bytes_per_second = 0;  ///< read + written, of a device-to-device copy
};

/// Median rate of copies of a gigabyte (an eighth of the memory on small devices), bytes read + written.
inline double measure_copy(cudaStream_t stream) {
    std::size_t available = 0, total = 0;
    require(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    std::size_t const bytes = smaller<std::size_t>(std::size_t{1} << 30, available / 8);
    device_array<char> const from(bytes), to(bytes);
    require(cudaMemsetAsync(from.data(), 0x5a, bytes, stream), "cudaMemsetAsync");
    event_timer timer;
    std::vector<double> seconds;
    for (int i = 0; i < 12; ++i) {
        timer.start(stream);
        require(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
        timer.stop(stream);
        if (double const s = timer.seconds(); i >= 2) seconds.push_back(s);  // the first two warm up
    }
    return 2.0 * static_cast<double>(bytes) / median(seconds);
}

/// Made at the first call, which must find a device.
inline machine const& this_machine() {
    static machine const found = [] {
        machine m;
        require(query_device(m.info, 0));
        cudaDeviceProp properties{};
        require(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
        m.name = properties.name;
        require(cudaStreamCreateWithFlags(&m.stream, cudaStreamNonBlocking), "cudaStreamCreate");
        m.copy_bytes_per_second = measure_copy(m.stream);
        return m;
    }();
    return found;
}

}  // namespace winnow::bench
