// Comparison with the oracle under a derived tolerance: error(kernel) <= 2 x error(rounded twin) + one ulp of T.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "winnow/core/dtype.hpp"

namespace winnow::testing {

/// Verdict of a comparison; `message` says what was found and what was allowed, for INFO.
struct comparison {
    bool ok = true;
    std::string message;
    explicit operator bool() const { return ok; }
};

/// Distance of neighbouring T values just below 1, relative to 1.
template <class T>
constexpr double unit_roundoff = 0;
template <>
inline constexpr double unit_roundoff<bf16> = 1.0 / 256;
template <>
inline constexpr double unit_roundoff<fp16> = 1.0 / 2048;
template <>
inline constexpr double unit_roundoff<float> = 1.0 / (1 << 24);

/// Largest and root-mean-square distance from the oracle, over the finite values.
struct distance {
    double most = 0, rms = 0;
    std::size_t at = 0;  ///< where `most` was found
};

inline distance distance_of(std::vector<double> const& values, std::vector<double> const& oracle) {
    distance d;
    std::size_t finite = 0;
    for (std::size_t i = 0; i < oracle.size(); ++i) {
        if (!std::isfinite(oracle[i]) || !std::isfinite(values[i])) continue;
        double const off = std::fabs(values[i] - oracle[i]);
        d.rms += off * off;
        ++finite;
        if (off > d.most) d.most = off, d.at = i;
    }
    if (finite) d.rms = std::sqrt(d.rms / static_cast<double>(finite));
    return d;
}

/// First place where NaN or an infinity stands in one and not in the other; the size where there is none.
inline std::size_t misplaced(std::vector<double> const& values, std::vector<double> const& oracle) {
    auto const kind = [](double x) { return std::isnan(x) ? 2 : std::isinf(x) ? (x > 0 ? 1 : -1) : 0; };
    for (std::size_t i = 0; i < oracle.size(); ++i)
        if (kind(values[i]) != kind(oracle[i])) return i;
    return oracle.size();
}

/// `values` from a kernel, `oracle` in double, `rounded` by the twin that rounds as the kernel does. T is the type
/// whose rounding `values` carry; it sets the floor: one ulp of the largest oracle value (for the RMS a sixteenth of
/// the RMS's). Rows that nobody writes should hold NaN in all three: poison the kernel's output with NaN before the
/// launch.
template <class T>
comparison compare(std::vector<double> const& values, std::vector<double> const& oracle,
                   std::vector<double> const& rounded) {
    if (values.size() != oracle.size() || rounded.size() != oracle.size())
        return {false, "sizes differ: " + std::to_string(values.size()) + ", oracle " + std::to_string(oracle.size()) +
                           ", rounded " + std::to_string(rounded.size())};
    if (auto const i = misplaced(values, oracle); i < oracle.size())
        return {false, "NaN or inf at " + std::to_string(i) + ": found " + std::to_string(values[i]) + ", oracle " +
                           std::to_string(oracle[i])};
    if (auto const i = misplaced(rounded, oracle); i < oracle.size())
        return {false, "NaN or inf of the rounded twin at " + std::to_string(i)};
    double scale = 0, square = 0;
    std::size_t finite = 0;
    for (double const x : oracle) {
        if (!std::isfinite(x)) continue;
        scale = std::fmax(scale, std::fabs(x));
        square += x * x;
        ++finite;
    }
    double const rms_scale = finite ? std::sqrt(square / static_cast<double>(finite)) : 0;
    distance const kernel = distance_of(values, oracle), twin = distance_of(rounded, oracle);
    double const ulp = 2 * unit_roundoff<T>;
    double const most_allowed = 2 * twin.most + ulp * scale, rms_allowed = 2 * twin.rms + ulp * rms_scale / 16;
    return {kernel.most <= most_allowed && kernel.rms <= rms_allowed,
            "max " + std::to_string(kernel.most) + " (allowed " + std::to_string(most_allowed) + ") at " +
                std::to_string(kernel.at) + ", rms " + std::to_string(kernel.rms) + " (allowed " +
                std::to_string(rms_allowed) + "), scale " + std::to_string(scale)};
}

/// A log-sum-exp tensor: as compare(), but the floor is absolute, since an lse may be near 0: 2e-5 of (1 + |lse|).
inline comparison compare_lse(std::vector<double> const& values, std::vector<double> const& oracle,
                              std::vector<double> const& rounded) {
    if (values.size() != oracle.size() || rounded.size() != oracle.size()) return {false, "lse sizes differ"};
    if (auto const i = misplaced(values, oracle); i < oracle.size())
        return {false, "lse: NaN or inf at " + std::to_string(i) + ": found " + std::to_string(values[i]) +
                           ", oracle " + std::to_string(oracle[i])};
    double const twin = distance_of(rounded, oracle).most;
    for (std::size_t i = 0; i < oracle.size(); ++i) {
        if (!std::isfinite(oracle[i])) continue;
        double const off = std::fabs(values[i] - oracle[i]), allowed = 2 * twin + 2e-5 * (1 + std::fabs(oracle[i]));
        if (off > allowed)
            return {false, "lse at " + std::to_string(i) + ": off by " + std::to_string(off) + ", allowed " +
                               std::to_string(allowed)};
    }
    return {true, "lse within " + std::to_string(2 * twin)};
}

/// Log-sum-exps of many calls, judged together: those of a single token are too few for a twin's largest error to mean
/// something.
struct lse_pool {
    std::vector<double> found, exact, rounded;

    void add(std::vector<double> const& kernel, std::vector<double> const& oracle, std::vector<double> const& twin) {
        found.insert(found.end(), kernel.begin(), kernel.end());
        exact.insert(exact.end(), oracle.begin(), oracle.end());
        rounded.insert(rounded.end(), twin.begin(), twin.end());
    }
};

/// As compare_lse(), and root mean squares must agree but for chance, which a largest error that may be twice the twin's
/// does not ask for. The ratio of two, of n errors each, deviates by sqrt((k - 1) / 2n), where k is the errors' kurtosis: 3
/// if they are normal, 5 where few keys decide, so by 1.4 / sqrt(n). Four deviations are allowed. The floor is a tenth of
/// compare_lse's: on the average, sums in fp32, exp2 and log2 are off by less.
inline comparison compare_lse(lse_pool const& pool) {
    comparison const largest = compare_lse(pool.found, pool.exact, pool.rounded);
    if (!largest) return largest;
    double square = 0, finite = 0;
    for (double const x : pool.exact)
        if (std::isfinite(x)) square += x * x, ++finite;
    if (finite == 0) return largest;
    double const kernel = distance_of(pool.found, pool.exact).rms, twin = distance_of(pool.rounded, pool.exact).rms;
    double const allowed = (1 + 6 / std::sqrt(finite)) * twin + 2e-6 * (1 + std::sqrt(square / finite));
    return {kernel <= allowed, "lse: rms of " + std::to_string(pool.exact.size()) + " errors " +
                                   std::to_string(1e6 * kernel) + "e-6, allowed " + std::to_string(1e6 * allowed) +
                                   "e-6, twin's " + std::to_string(1e6 * twin) + "e-6"};
}

}  // namespace winnow::testing
