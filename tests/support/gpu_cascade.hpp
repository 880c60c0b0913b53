// Cascade operators on both sides: host memory and its copy on the device, stepped together and compared.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support/cascade_input.hpp"
#include "support/catch.hpp"
#include "support/gpu_device.hpp"
#include "support/tolerance.hpp"
#include "winnow/reference/cascade.hpp"

namespace winnow::testing {

/// Tokens of each request.
using lengths = std::vector<std::int32_t>;

inline constexpr rope halves = {.theta = 1e4f};
inline constexpr rope adjacent = {.theta = 5e5f, .rotary_dim = 32, .pairing = rope_pairing::adjacent};

/// What is wrong with scores; empty if nothing is. As compare, but probabilities have a floor of their own: an
/// exponent between -16 and 16 is rounded to 2^-20, and 2^x and log2 x are good to 2^-22. `twice`: the twin rounds other
/// numbers than the kernel, whose keys are rotated by other angles, so that the largest error of a few is another one.
inline std::string wrong_scores(std::vector<double> const& values, std::vector<double> const& oracle,
                                std::vector<double> const& rounded, bool twice) {
    if (values.size() != oracle.size() || rounded.size() != oracle.size()) return "sizes differ";
    if (auto const i = misplaced(values, oracle); i < oracle.size())
        return "NaN or inf at " + std::to_string(i) + ": found " + std::to_string(values[i]);
    double scale = 0;
    for (double const x : oracle) scale = std::isfinite(x) ? std::fmax(scale, std::fabs(x)) : scale;
    auto const kernel = distance_of(values, oracle), twin = distance_of(rounded, oracle);
    double const allowed = (twice ? 4 : 2) * twin.most + 0x1p-18 * scale;
    if (kernel.most <= allowed) return "";
    return "off by " + std::to_string(1e6 * kernel.most) + "e-6 at " + std::to_string(kernel.at) + ", allowed " +
           std::to_string(1e6 * allowed) + "e-6";
}

/// Host memory of an input and its copy on the device, kept in step.
template <class T>
class both {
public:
    explicit both(cascade_shape const& shape) : in(shape), device_(in.memory().size(), 4096) {}
    cascade_input<T> in;

    void upload() { device_.upload(in.memory().base(), in.memory().size()); }
    std::vector<char> download() const {
        CHECK(device_.guard_intact());
        return device_.template download<char>();
    }
    void* device() const { return device_.data(); }
    // Takes the device's memory over.
    void accept(std::vector<char> const& bytes) { std::memcpy(in.memory().base(), bytes.data(), bytes.size()); }
    bool same(std::vector<char> const& bytes) {
        return std::memcmp(in.memory().base(), bytes.data(), bytes.size()) == 0;
    }

    // Attention of one step on both sides; the device's results stay.
    void attend(device_info const& how = current_device()) {
        upload();
        run_on_device(in.attend(device_.data()), how);
        std::vector<char> after = download();
        reference::cascade_result exact, rounded;
        std::vector<char> before(in.memory().base(), in.memory().base() + in.memory().size());
        auto const host = in.attend(in.memory().base());
        REQUIRE(reference::cascade_attend_rounded(host, rounded, all_threads()).ok());
        REQUIRE(reference::cascade_attend(host, &exact, all_threads()).ok());
        auto const found = in.attend(after.data());
        auto const output = compare<T>(in.values_of(found.output), exact.output, rounded.output);
        INFO("output: " << output.message);
        CHECK(output.ok);
        // Together: a decode step alone has too few scores, and lses, for a twin's largest error to mean something.
        auto const together = [](std::vector<double> a, std::vector<double> const& b) {
            a.insert(a.end(), b.begin(), b.end());
            return a;
        };
        if (!found.lse.empty()) {
            std::vector<double> const lses = in.values_of(found.lse.values);
            bool const single = found.queries.extent[1] == 1;
            if (!single) lses_ = {};
            lses_.add(lses, exact.lse, rounded.lse);
            auto const lse = compare_lse(lses_);
            INFO(lse.message);
            CHECK(lse.ok);
            ++steps_, steps_off_ += !compare_lse(lses, exact.lse, rounded.lse).ok;
            if (!single) lses_ = {};
        }
        if (found.takes_scores()) {
            std::string const wrong = wrong_scores(
                together(in.values_of(found.scores), in.slot_scores(found.cache)), together(exact.scores, exact.slots),
                together(rounded.scores, rounded.slots), in.shape().stored == cascade_keys::with_rotated);
            CHECK(wrong == "");
        }
        // Nothing else was written: the host wrote the same places.
        auto const touched = [&](std::size_t i) { return in.memory().base()[i] != before[i]; };
        std::size_t stray = 0;
        for (std::size_t i = 0; i < after.size(); i += 4) {  // words: a float may keep some of its bytes
            bool const allowed = touched(i) || touched(i + 1) || touched(i + 2) || touched(i + 3);
            if (!allowed && std::memcmp(&after[i], &before[i], 4) != 0 && !in.loose(i)) ++stray;
        }
        CHECK(stray == 0);
        accept(after);
    }
    // Insertion on both sides, to the bit.
    void insert() {
        upload();
        run_on_device(in.insert(device_.data()));
        REQUIRE(reference::cascade_insert(in.insert(in.memory().base())).ok());
        std::vector<char> after = download();
        if (in.shape().stored == cascade_keys::with_rotated) {
            // Rotated in fp32 here and in double there: at most a rounding apart. The device's go on.
            auto const host = in.rotated_keys(in.cache(in.memory().base()));
            auto const found = in.rotated_keys(in.cache(after.data()));
            double worst = 0;
            for (std::size_t i = 0; i < host.size(); ++i)
                worst = std::fmax(worst, std::fabs(found[i] - host[i]) / std::fmax(std::fabs(host[i]), 1.0));
            CHECK(worst <= 2 * unit_roundoff<T>);
            for (std::size_t i = 0; i < after.size(); ++i)
                if (after[i] != in.memory().base()[i] && in.loose(i)) in.memory().base()[i] = after[i];
        }
        CHECK(same(after));
    }
    void step(lengths const& tokens, device_info const& how = current_device()) {
        in.draw_step(tokens);
        attend(how);
        insert();
    }

    // Of the single tokens since the last longer chunk.
    lse_pool const& lses() const { return lses_; }
    // Steps with an lse, and those of them whose largest error is more than twice their own twin's: some are, by chance.
    int steps() const { return steps_; }
    int steps_off() const { return steps_off_; }

private:
    device_memory device_;
    lse_pool lses_;
    int steps_ = 0, steps_off_ = 0;
};

/// All steps of one shape.
template <class T>
void run(cascade_shape const& shape, std::vector<lengths> const& steps) {
    both<T> sides(shape);
    int n = 0;
    for (auto const& tokens : steps) {
        INFO("step " << n++ << ", sinks " << shape.layout.sinks << ", levels " << shape.layout.levels << ", slots "
                     << shape.layout.slots() << ", heads " << shape.heads << "/" << shape.kv_heads << ", head_dim "
                     << shape.head_dim << ", shared " << static_cast<int>(shape.token_heads) << ", seed "
                     << shape.seed);
        sides.step(tokens);
    }
}

/// Sub-caches of these sizes.
inline cascade_layout uneven(std::int32_t sinks, std::vector<std::int32_t> const& sizes, bool eager = true) {
    cascade_layout layout;
    layout.sinks = sinks, layout.levels = static_cast<std::int32_t>(sizes.size()), layout.eager_fill = eager;
    std::copy(sizes.begin(), sizes.end(), layout.size);
    return layout;
}

}  // namespace winnow::testing
