// The frame of every benchmark program: register, prepare and check once, flush, time a captured launch, report.
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/machine.cuh"
#include "support/replay.cuh"

namespace winnow::bench {

/// What a launch is credited with; 0 leaves the counter out.
struct work {
    double flops = 0;        ///< of query-key pairs that the result needs: 4 x head_dim each
    double block_flops = 0;  ///< the same for whole listed blocks, where that differs
    double bytes = 0;        ///< that must cross the memory bus once
    double keys_read = 0;    ///< mean keys per query row
    double dense_ms = 0;     ///< dense attention over the same tensors, in the same process
};

/// A benchmark that is ready to be timed: inputs made, output checked. The functions own what they use.
struct prepared {
    std::function<status(cudaStream_t)> launch;
    work counted;
    std::function<void(cudaStream_t)> begin = {};   ///< before the first iteration of every repetition
    std::function<void(cudaStream_t)> before = {};  ///< queued before each iteration, outside the time
    std::int32_t layers = 1;                        ///< equal parts of a launch; times, and `counted`, are of one
};

/// Benchmarks that failed; the program's exit code.
inline int& failures() {
    static int count = 0;
    return count;
}

/// The one prepared benchmark: Google Benchmark calls a function several times, and preparing takes seconds.
struct current_case {
    std::string name;
    std::unique_ptr<prepared> ready;
    std::unique_ptr<captured> graph;
    std::string failed;
};
inline current_case& current() {
    static current_case c;
    return c;
}

inline void run(benchmark::State& state, std::string const& name, std::function<prepared()> const& prepare) {
    machine const& m = this_machine();
    current_case& c = current();
    try {
        if (c.name != name) {
            c.graph.reset(), c.ready.reset();  // frees the last one's memory first
            c.name = name, c.failed.clear();
            c.ready = std::make_unique<prepared>(prepare());
            c.graph = std::make_unique<captured>(c.ready->launch, m.stream);
            for (int i = 0; i < 2; ++i) c.graph->replay(m.stream);  // warm-up
            require(cudaStreamSynchronize(m.stream), name.c_str());
        }
        if (!c.failed.empty()) throw std::runtime_error(c.failed);
        if (c.ready->begin) c.ready->begin(m.stream);
        for ([[maybe_unused]] auto _ : state)
            state.SetIterationTime(seconds_of(*c.graph, c.ready->before) / c.ready->layers);
    } catch (std::exception const& e) {
        if (c.failed.empty()) ++failures();
        c.failed = e.what();
        c.graph.reset(), c.ready.reset();
        state.SkipWithError(e.what());
        return;
    }
    work const& w = c.ready->counted;
    auto const rate = [&](char const* counter, double amount) {
        if (amount > 0)
            state.counters[counter] =
                benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);  // over the manual time
    };
    rate("tflops", 1e-12 * w.flops);
    rate("tflops_blocks", 1e-12 * w.block_flops);
    rate("tb_per_s", 1e-12 * w.bytes);
    rate("percent_of_copy", 100 * w.bytes / m.copy_bytes_per_second);
    if (w.keys_read > 0) state.counters["keys_read"] = w.keys_read;
    if (w.dense_ms > 0) state.counters["dense_ms"] = w.dense_ms;
}

/// Registers a benchmark. `name` starts with quick/ (a subset that takes less than a minute) or full/. `cycle` > 0: the
/// time is a mean over whole cycles of so many launches; 1 asks for about 200 launches, however short their parts are.
inline void add(std::string const& name, benchmark::TimeUnit unit, std::function<prepared()> prepare, int cycle = 0) {
    auto* const b = benchmark::RegisterBenchmark(
        name.c_str(), [name, prepare = std::move(prepare)](benchmark::State& state) { run(state, name, prepare); });
    b->UseManualTime()->Unit(unit);
    if (cycle > 0) b->Iterations(cycle * ((191 + cycle) / cycle));  // about 200 launches
}

/// Main of a benchmark program: 77 without a device (skipped, as in CTest), 1 when a benchmark failed.
inline int run_program(int argc, char** argv, void (*add_all)()) {
    // Defaults in front, so that the command line overrides them.
    std::vector<std::string> arguments{argv[0], "--benchmark_repetitions=5", "--benchmark_min_time=0.05",
                                       "--benchmark_display_aggregates_only=true"};
    bool listing = false;
    for (int i = 1; i < argc; ++i) {
        arguments.emplace_back(argv[i]);
        listing = listing || std::strncmp(argv[i], "--benchmark_list_tests", 22) == 0;
    }
    std::vector<char*> pointers;
    for (auto& a : arguments) pointers.push_back(a.data());
    int count = static_cast<int>(pointers.size());
    pointers.push_back(nullptr);
    benchmark::Initialize(&count, pointers.data());
    if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 2;
    int devices = 0;
    if (!listing && (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)) {
        std::fprintf(stderr, "skipped: there is no CUDA device\n");
        return 77;
    }
    add_all();
    if (!listing) {
        try {
            machine const& m = this_machine();
            benchmark::AddCustomContext("device", m.name);
            benchmark::AddCustomContext("compute_capability", std::to_string(m.info.compute_capability));
            benchmark::AddCustomContext("copy_tb_per_s", std::to_string(1e-12 * m.copy_bytes_per_second));
            benchmark::AddCustomContext("cuda_runtime", std::to_string(CUDART_VERSION));
        } catch (std::exception const& e) {
            std::fprintf(stderr, "the device does not work: %s\n", e.what());
            return 1;
        }
    }
    benchmark::RunSpecifiedBenchmarks();
    current() = {};  // before the CUDA runtime goes
    benchmark::Shutdown();
    return failures() > 0 ? 1 : 0;
}

}  // namespace winnow::bench
