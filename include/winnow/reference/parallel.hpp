// Runs independent pieces of reference work on a few threads: f(0), f(1), ..., f(count - 1), in any order.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

/// Every operator in double precision by plain loops, on the same params with host pointers; quality measures.
namespace winnow::reference {

/// How a reference computation runs. Results do not depend on it.
struct run_options {
    int threads = 1;  ///< threads that share the work, the caller's among them
    std::function<void(std::int64_t done, std::int64_t total)> progress =
        {};  ///< called one at a time, from any thread
};

/// Every index once; `f` must only write what belongs to its index.
template <class F>
void parallel_for(std::int64_t count, run_options const& options, F&& f) {
    std::atomic<std::int64_t> next{0};
    std::int64_t done = 0;
    std::mutex reporting;
    auto const work = [&] {
        for (std::int64_t i = next++; i < count; i = next++) {
            f(i);
            if (options.progress) {
                std::lock_guard<std::mutex> const lock(reporting);
                options.progress(++done, count);
            }
        }
    };
    std::vector<std::thread> helpers;
    for (int i = 1; i < options.threads && i < count; ++i) helpers.emplace_back(work);
    work();
    for (auto& helper : helpers) helper.join();
}

}  // namespace winnow::reference
