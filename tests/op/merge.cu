// merge against the oracle: parts, channels and strides of every kind, the identity, -inf, and merging in steps.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_device.hpp"
#include "support/random_input.hpp"
#include "support/tolerance.hpp"
#include "winnow/reference/merge.hpp"

using namespace winnow;
using testing::device_memory;
using testing::random_source;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// Parts in host memory, packed, as doubles of T's values; results as the device wrote them.
template <class T>
struct merge_case {
    std::int64_t parts, rows, heads, channels;
    lse_base base = lse_base::natural;
    bool part_last = false;  // memory order [row, head, part, channel], as split-KV keeps it, instead of [part, ...]
    std::vector<T> outputs;
    std::vector<float> lses;

    merge_case(std::int64_t p, std::int64_t r, std::int64_t h, std::int64_t c, std::uint64_t seed, double empty = 0.2)
        : parts(p), rows(r), heads(h), channels(c) {
        random_source random(seed);
        lses.resize(static_cast<std::size_t>(p * r * h));
        outputs.resize(lses.size() * static_cast<std::size_t>(c));
        for (auto& x : outputs) x = from_float<T>(static_cast<float>(random.normal()));
        for (auto& x : lses) x = random.uniform() < empty ? -infinity : static_cast<float>(5 * random.normal());
        // An empty part's output is never read.
        auto const view = params(outputs.data(), lses.data());
        for (std::int64_t i = 0; i < p; ++i)
            for (std::int64_t row = 0; row < r; ++row)
                for (std::int64_t head = 0; head < h; ++head)
                    if (view.lses(i, row, head) == -infinity)
                        for (std::int64_t k = 0; k < c; ++k)
                            outputs[static_cast<std::size_t>(view.outputs.offset(i, row, head, k))] =
                                from_float<T>(std::numeric_limits<float>::quiet_NaN());
    }
    merge_params<T> params(T const* output, float const* lse) const {
        merge_params<T> p;
        p.base = base;
        p.outputs = packed_view(output, {parts, rows, heads, channels});
        p.lses = packed_view(lse, {parts, rows, heads});
        if (part_last) {
            std::int64_t const row = heads * parts;
            p.outputs.stride[0] = channels, p.outputs.stride[1] = row * channels,
            p.outputs.stride[2] = parts * channels;
            p.lses.stride[0] = 1, p.lses.stride[1] = row, p.lses.stride[2] = parts;
        }
        return p;
    }
};

// The kernel's computation in plain fp32: base-2 weights, each off by up to the 2^-22 that ex2.approx may be off, a
// sum, one division, one rounding to T.
template <class T>
reference::merge_result merge_rounded(merge_params<T> const& p) {
    reference::merge_result r;
    random_source noise(99);
    float const to_base2 = p.base == lse_base::natural ? 1.44269504f : 1.0f;
    for (std::int64_t row = 0; row < p.outputs.extent[1]; ++row)
        for (std::int64_t head = 0; head < p.outputs.extent[2]; ++head) {
            float most = -infinity, total = 0;
            for (std::int64_t i = 0; i < p.outputs.extent[0]; ++i)
                most = std::fmax(most, p.lses(i, row, head) * to_base2);
            std::vector<float> sum(static_cast<std::size_t>(p.outputs.extent[3]), 0.0f);
            for (std::int64_t i = 0; i < p.outputs.extent[0]; ++i) {
                float const lse = p.lses(i, row, head) * to_base2;
                if (lse == -infinity) continue;
                auto const error = static_cast<float>((2 * noise.uniform() - 1) * 0x1p-22);
                float const weight = std::exp2(lse - most) * (1 + error);
                total += weight;
                for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weight * to_float(p.outputs(i, row, head, c));
            }
            float const inverse = total > 0 ? 1 / total : 0;
            r.lse.push_back(total > 0 ? static_cast<double>((most + std::log2(total)) / to_base2)
                                      : -std::numeric_limits<double>::infinity());
            for (float const s : sum) r.output.push_back(to_float(from_float<T>(s * inverse)));
        }
    return r;
}

template <class T>
struct merged {
    std::vector<T> raw;
    std::vector<double> output, lse;
};

template <class T>
merged<T> run(merge_case<T> const& m, bool want_lse = true) {
    device_memory outputs(m.outputs.size() * sizeof(T)), lses(m.lses.size() * sizeof(float));
    outputs.upload(m.outputs.data(), outputs.size());
    lses.upload(m.lses.data(), lses.size());
    auto const lists = static_cast<std::size_t>(m.rows * m.heads),
               elements = lists * static_cast<std::size_t>(m.channels);
    device_memory output(elements * sizeof(T), 4096), lse(lists * sizeof(float), 4096);
    auto p = m.params(outputs.as<T>(), lses.as<float>());
    p.output = packed_view(output.as<T>(), {m.rows, m.heads, m.channels});
    if (want_lse) p.lse = packed_view(lse.as<float>(), {m.rows, m.heads});
    testing::run_on_device(p);
    CHECK(output.guard_intact());
    CHECK(lse.guard_intact());
    merged<T> r;
    r.raw = output.download<T>();
    for (T const x : r.raw) r.output.push_back(to_float(x));
    for (float const x : lse.download<float>()) r.lse.push_back(x);
    return r;
}

template <class T>
void check(merge_case<T> const& m) {
    auto const found = run(m);
    auto p = m.params(m.outputs.data(), m.lses.data());
    std::vector<T> output(found.raw.size());
    p.output = packed_view(output.data(), {m.rows, m.heads, m.channels});
    reference::merge_result exact;
    REQUIRE(reference::merge(p, &exact).ok());
    auto const rounded = merge_rounded(p);
    auto const outputs = testing::compare<T>(found.output, exact.output, rounded.output);
    auto const lses = testing::compare_lse(found.lse, exact.lse, rounded.lse);
    INFO(m.parts << " parts, " << m.rows << " rows, " << m.heads << " heads, " << m.channels << " channels, base "
                 << static_cast<int>(m.base) << ", part last " << m.part_last << "\noutput: " << outputs.message << "\n"
                 << lses.message);
    CHECK(outputs.ok);
    CHECK(lses.ok);
}

template <class T>
merge_case<T> in_order(merge_case<T> m, bool part_last) {
    // Same parts, other memory order.
    merge_case<T> to = m;
    to.part_last = part_last;
    auto const from = m.params(m.outputs.data(), m.lses.data()), view = to.params(to.outputs.data(), to.lses.data());
    for (std::int64_t i = 0; i < m.parts; ++i)
        for (std::int64_t row = 0; row < m.rows; ++row)
            for (std::int64_t head = 0; head < m.heads; ++head) {
                to.lses[static_cast<std::size_t>(view.lses.offset(i, row, head))] = from.lses(i, row, head);
                for (std::int64_t c = 0; c < m.channels; ++c)
                    to.outputs[static_cast<std::size_t>(view.outputs.offset(i, row, head, c))] =
                        from.outputs(i, row, head, c);
            }
    return to;
}

}  // namespace

TEMPLATE_TEST_CASE("merge: against the oracle", "[gpu]", float, bf16, fp16) {
    std::uint64_t seed = 1;
    for (std::int64_t const parts : {1, 2, 3, 7, 8, 9, 33, 300})
        for (std::int64_t const channels : {1, 31, 64, 100, 128, 129, 256, 300, 1000, 1024})
            for (lse_base const base : {lse_base::natural, lse_base::two}) {
                merge_case<TestType> m(parts, 1 + static_cast<std::int64_t>(seed % 5), 3, channels, seed);
                m.base = base;
                check(seed % 2 ? m : in_order(m, true));
                ++seed;
            }
}

TEMPLATE_TEST_CASE("merge: small", "[gpu][small]", float, bf16) {
    for (std::int64_t const channels : {5, 128, 200, 1024}) check(merge_case<TestType>(9, 2, 2, channels, 3));
}

TEST_CASE("merge: many rows, and none", "[gpu]") {
    check(merge_case<bf16>(3, 70000, 1, 32, 5));
    check(merge_case<bf16>(2, 5, 300, 64, 6));
    run(merge_case<bf16>(2, 0, 3, 64, 7));
    run(merge_case<bf16>(2, 3, 0, 64, 7));
}

TEMPLATE_TEST_CASE("merge: the identity adds nothing, nothing at all gives the identity", "[gpu][small]", float, bf16) {
    // One part, and the same part among empty ones: the very same bits.
    merge_case<TestType> one(1, 4, 2, 96, 11, 0.0);
    auto const alone = run(one);
    for (std::size_t i = 0; i < alone.raw.size(); ++i)
        REQUIRE(to_float(alone.raw[i]) == to_float(one.outputs[i]));  // weight 1
    for (std::int64_t const at : {0, 4, 20}) {
        merge_case<TestType> padded(21, 4, 2, 96, 12, 1.0);
        std::copy(one.outputs.begin(), one.outputs.end(), padded.outputs.begin() + at * 4 * 2 * 96);
        std::copy(one.lses.begin(), one.lses.end(), padded.lses.begin() + at * 4 * 2);
        auto const found = run(padded);
        CHECK((found.output == alone.output));
        CHECK((found.lse == alone.lse));
    }
    auto const nothing = run(merge_case<TestType>(5, 4, 2, 96, 13, 1.1));
    CHECK(std::all_of(nothing.output.begin(), nothing.output.end(), [](double x) { return x == 0; }));
    CHECK(std::all_of(nothing.lse.begin(), nothing.lse.end(), [](double x) { return x == -infinity; }));
}

TEST_CASE("merge: memory order and repetition do not change a bit; lse is optional", "[gpu]") {
    merge_case<bf16> const m(37, 5, 3, 128, 17);
    auto const found = run(m), other = run(in_order(m, true)), without = run(m, false);
    CHECK((found.output == other.output));
    CHECK((found.lse == other.lse));
    CHECK((found.output == without.output));
    CHECK(std::all_of(without.lse.begin(), without.lse.end(), [](double x) { return std::isnan(x); }));
    // A row's bits do not depend on its neighbours.
    merge_case<bf16> last(37, 1, 3, 128, 1);
    auto const from = m.params(m.outputs.data(), m.lses.data());
    for (std::int64_t i = 0; i < 37; ++i) {
        std::copy_n(&from.outputs(i, 4, 0, 0), 3 * 128, last.outputs.begin() + i * 3 * 128);
        std::copy_n(&from.lses(i, 4, 0), 3, last.lses.begin() + i * 3);
    }
    auto const alone = run(last);
    CHECK(std::equal(alone.output.begin(), alone.output.end(), found.output.begin() + 4 * 3 * 128));
    CHECK(std::equal(alone.lse.begin(), alone.lse.end(), found.lse.begin() + 4 * 3));
}

TEST_CASE("merge: in steps it gives what it gives at once", "[gpu]") {
    // ((a, b), c), (a, (b, c)) and (a, b, c). |lse| stays below 25, so a weight's exponent is off by at most
    // 2 * 36 * 2^-24 and a weight by 2^-17.8 relative; two steps, outputs up to about 4.
    std::int64_t const rows = 20, heads = 4, channels = 64, width = rows * heads * channels;
    merge_case<float> const all(3, rows, heads, channels, 23);
    auto const at_once = run(all);
    for (int const first : {0, 1}) {
        auto const part = [&](merge_case<float>& to, std::int64_t i, float const* output, float const* lse) {
            std::copy_n(output, width, to.outputs.begin() + i * width);
            std::copy_n(lse, rows * heads, to.lses.begin() + i * rows * heads);
        };
        merge_case<float> pair(2, rows, heads, channels, 1), rest(2, rows, heads, channels, 1);
        for (int i : {0, 1})
            part(pair, i, all.outputs.data() + (first + i) * width, all.lses.data() + (first + i) * rows * heads);
        auto const inner = run(pair);
        std::vector<float> const lse(inner.lse.begin(), inner.lse.end());
        int const outer = first == 0 ? 2 : 0;
        part(rest, first == 0 ? 0 : 1, inner.raw.data(), lse.data());
        part(rest, first == 0 ? 1 : 0, all.outputs.data() + outer * width, all.lses.data() + outer * rows * heads);
        auto const found = run(rest);
        CHECK(testing::misplaced(found.lse, at_once.lse) == found.lse.size());
        CHECK(testing::distance_of(found.output, at_once.output).most < 4 * 0x1p-16);
        CHECK(testing::distance_of(found.lse, at_once.lse).most < 1e-5);
    }
}

TEST_CASE("merge: NaN in an lse that counts reaches its row, and no other", "[gpu][small]") {
    merge_case<float> m(4, 3, 2, 40, 31, 0.0);
    m.lses[static_cast<std::size_t>((2 * 3 + 1) * 2 + 0)] = std::numeric_limits<float>::quiet_NaN();
    auto const found = run(m);
    for (std::size_t i = 0; i < found.lse.size(); ++i) {
        bool const spoilt = i == 2;
        CHECK(std::isnan(found.lse[i]) == spoilt);
        for (std::size_t c = 0; c < 40; ++c) REQUIRE(std::isnan(found.output[i * 40 + c]) == spoilt);
    }
}
