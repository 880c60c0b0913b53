// Shows how far a stage is, on stderr and only once it has lasted a second: a percentage on a terminal, else lines.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include <winnow/reference/parallel.hpp>

namespace quickstart {

/// Seconds since some fixed moment.
inline double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// One stage; the line disappears with it.
class progress {
public:
    explicit progress(std::string stage)
        : stage_(std::move(stage)), terminal_(isatty(STDERR_FILENO) != 0), next_(seconds() + 1) {}
    progress(progress const&) = delete;
    progress& operator=(progress const&) = delete;
    ~progress() {
        if (shown_ && terminal_) std::fprintf(stderr, "\r%*s\r", static_cast<int>(stage_.size() + 12), "");
    }

    void show(std::int64_t done, std::int64_t total) {
        double const now = seconds();
        if (now < next_ || total <= 0) return;
        next_ = now + (terminal_ ? 0.1 : 5.0);
        shown_ = true;
        std::fprintf(stderr, terminal_ ? "\r  %s ... %d %% " : "  %s ... %d %%\n", stage_.c_str(),
                     static_cast<int>(done * 100 / total));
    }

    /// Options of a reference computation that reports here; not to outlive this object.
    winnow::reference::run_options options(int threads) {
        return {.threads = threads, .progress = [this](std::int64_t done, std::int64_t total) { show(done, total); }};
    }

private:
    std::string stage_;
    bool terminal_;
    bool shown_ = false;
    double next_;
};

}  // namespace quickstart
