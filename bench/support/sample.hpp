// Small host helpers of the benchmarks: medians, random numbers, and names of sizes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace winnow::bench {

inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    std::size_t const n = values.size();
    return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/// SplitMix64: the same numbers on every platform.
class random_numbers {
public:
    explicit random_numbers(std::uint64_t seed) : state_(seed) {}
    std::uint64_t bits() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    std::int32_t below(std::int32_t n) { return static_cast<std::int32_t>(bits() % static_cast<std::uint64_t>(n)); }

private:
    std::uint64_t state_;
};

/// 0 .. n - 1 in random order.
inline std::vector<std::int32_t> shuffled(std::int32_t n, std::uint64_t seed) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
    for (std::int32_t i = 0; i < n; ++i) ids[static_cast<std::size_t>(i)] = i;
    random_numbers random(seed);
    for (std::int32_t i = n; i > 1; --i)
        std::swap(ids[static_cast<std::size_t>(i - 1)], ids[static_cast<std::size_t>(random.below(i))]);
    return ids;
}

/// "8k", "1M", or the number itself.
inline std::string size_name(std::int64_t n) {
    if (n >= (1 << 20) && n % (1 << 20) == 0) return std::to_string(n >> 20) + "M";
    if (n >= 1024 && n % 1024 == 0) return std::to_string(n >> 10) + "k";
    return std::to_string(n);
}

}  // namespace winnow::bench
