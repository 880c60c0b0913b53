// An fp8 cache: decode in every layout against the oracle, which reads the same quantised elements; append.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "support/gpu_quantised_cache.hpp"
#include "winnow/reference/append.hpp"

using namespace winnow;
using testing::attend_input;
using testing::cache_copy;
using testing::device_copy;
using testing::device_memory;
using testing::quantised_cache;

namespace {

// Calls over an input's keys and values in fp8, on the host and on the device.
template <class T>
struct quantised {
    attend_input<T>& in;
    device_copy<T> memory;
    cache_copy<T> cache;

    quantised(attend_input<T>& input, std::int32_t scales)
        : in(input), memory(input), cache(quantised_cache<T>(input.params(), scales, 0.6f, 1.7f, 1.5f)) {}
    // The call over the cache in host memory, and on the device.
    attend_params<T, fp8_e4m3> host(attend_params<T> const& p) const {
        return over_cache(p, p.keys.over(cache.host.keys.data()), p.values.over(cache.host.values.data()),
                          cache.host.scales());
    }
    attend_params<T, fp8_e4m3> device(attend_params<T> const& p) const {
        return over_cache(p, p.keys.over(cache.keys.template as<fp8_e4m3 const>()),
                          p.values.over(cache.values.template as<fp8_e4m3 const>()), cache.device_scales());
    }
    template <class Set>
    void check(Set const& set) {
        auto here = in.params(), there = memory.params();
        set(here), set(there);
        testing::attend_expectation e;
        REQUIRE(reference::attend(host(here), &e.exact, testing::all_threads()).ok());
        REQUIRE(reference::attend_rounded(host(here), e.rounded, testing::all_threads()).ok());
        testing::run_on_device(device(there));
        auto bytes = memory.download();
        CHECK(memory.stray_write(bytes) == -1);
        testing::check_close<T>(in.output(bytes.data()), in.lse(bytes.data()), e);
        memory.refresh();
    }
};

template <class T>
void check_layouts(std::int32_t head_dim, std::vector<std::int32_t> const& keys, std::int32_t queries) {
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (std::int32_t const scales : {0, 1, 2}) {
            INFO("head_dim " << head_dim << ", layout " << static_cast<int>(layout) << ", scales " << scales << ", "
                             << queries << " queries");
            attend_input<T> in({.queries = std::vector<std::int32_t>(keys.size(), queries),
                                .keys = keys,
                                .heads = 6,
                                .kv_heads = 2,
                                .head_dim = head_dim,
                                .layout = layout,
                                .page_size = scales == 1 ? 1 : 16,
                                .head_major = scales == 2,
                                .sink_logits = scales == 1});
            in.add_selection(8, 16, sharing::per_kv_group, 40, 0.3);
            quantised<T> q(in, scales);
            q.check([&](attend_params<T>& p) { p.selection = {}; });
            q.check([&](attend_params<T>& p) { p.window = {16, 40}, p.soft_cap = scales == 2 ? 5.0f : 0.0f; });
        }
}

}  // namespace

TEMPLATE_TEST_CASE("attend fp8: layouts, scales, lists, several queries", "[gpu]", bf16, fp16) {
    for (std::int32_t const head_dim : {64, 128, 256}) check_layouts<TestType>(head_dim, {700, 0, 1, 333}, 1);
    check_layouts<TestType>(128, {700, 3, 129}, 5);
}

TEST_CASE("attend fp8: small", "[gpu][small]") {
    for (std::int32_t const head_dim : {64, 128, 256}) check_layouts<bf16>(head_dim, {300, 0, 65}, 1);
}

TEMPLATE_TEST_CASE("attend fp8: every element reaches the result exactly", "[gpu]", bf16, fp16) {
    // One key of weight 1 has all 256 values; NaN comes out where NaN stands.
    using T = TestType;
    for (std::int32_t const head_dim : {64, 128, 256}) {
        INFO("head_dim " << head_dim);
        std::int32_t const heads = 256 / head_dim;
        attend_input<T> in({.queries = {1}, .keys = {1}, .heads = heads, .kv_heads = heads, .head_dim = head_dim});
        quantised<T> q(in, 0);
        auto& values = q.cache.host.values;
        for (std::size_t i = 0; i < 256; ++i) values[i].bits = static_cast<std::uint8_t>(i);
        q.cache.upload();
        testing::run_on_device(q.device(q.memory.params()));
        auto bytes = q.memory.download();
        auto const found = in.output(bytes.data());
        int wrong = 0;
        for (std::size_t i = 0; i < 256; ++i) {
            float const expected = to_float(values[i]);
            bool const same = std::isnan(expected) ? std::isnan(found[i]) : found[i] == static_cast<double>(expected);
            wrong += !same;
        }
        CHECK(wrong == 0);
    }
}

TEMPLATE_TEST_CASE("attend fp8: every element of a key meets its channel of the query", "[gpu]", bf16, fp16) {
    // Request i has one key, zeros but for value i at channel i; channel j of a query is j + 1. The lse is the score.
    using T = TestType;
    for (std::int32_t const head_dim : {64, 128, 256}) {
        INFO("head_dim " << head_dim);
        std::vector<std::int32_t> const ones(256, 1);
        attend_input<T> in({.queries = ones, .keys = ones, .heads = 1, .kv_heads = 1, .head_dim = head_dim});
        auto const channels = static_cast<std::size_t>(head_dim);
        auto const host = in.params();
        quantised<T> q(in, 0);
        auto& keys = q.cache.host.keys;
        REQUIRE(keys.size() == 256 * channels);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            std::size_t const request = i / channels, channel = i % channels;
            keys[i].bits = static_cast<std::uint8_t>(channel == request % channels ? request : 0);
        }
        q.cache.upload();
        std::vector<T> queries(static_cast<std::size_t>(host.queries.size()));
        REQUIRE(queries.size() == keys.size());
        for (std::size_t i = 0; i < queries.size(); ++i)
            queries[i] = from_float<T>(static_cast<float>(i % channels + 1));
        device_memory query_memory(queries.size() * sizeof(T));
        query_memory.upload(queries.data(), queries.size() * sizeof(T));
        auto p = q.device(q.memory.params());
        p.queries.data = query_memory.template as<T>();
        p.scale = 0.125f;
        testing::run_on_device(p);
        auto bytes = q.memory.download();
        auto const found = in.lse(bytes.data());
        int wrong = 0;
        for (std::size_t i = 0; i < 256; ++i) {
            float const value = to_float(fp8_e4m3{static_cast<std::uint8_t>(i)});
            double const expected = 0.125 * value * static_cast<double>(i % channels + 1);
            bool const same = std::isnan(value) ? std::isnan(found[i])
                                                : std::fabs(found[i] - expected) <= 1e-5 * std::fabs(expected) + 1e-6;
            wrong += !same;
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("attend fp8: what it does not serve is refused", "[gpu][small]") {
    attend_input<bf16> in({.queries = {30}, .keys = {64}, .heads = 2, .kv_heads = 2, .head_dim = 64});
    quantised<bf16> q(in, 2);
    auto p = q.host(in.params());
    auto const refused = plan(p, testing::current_device());
    CHECK(refused.why.code == errc::unsupported);
    CHECK(std::string(refused.why.field) == "queries.extent[1]");
    p.scales.heads = 3;
    CHECK(std::string(check(p).field) == "scales.heads");
    p.scales.heads = 2;
    p.keys.data += 8;
    CHECK(check(p).code == errc::misaligned);
    auto wide = in.params();
    wide.scales.key = q.cache.host.key_scale.data();
    CHECK(std::string(check(wide).field) == "scales");
}

TEMPLATE_TEST_CASE("append fp8: rows are divided by their scales and rounded as the oracle rounds", "[gpu][small]",
                   bf16, fp16) {
    using T = TestType;
    constexpr std::int64_t rows = 37, heads = 3, channels = 128, pages = 6, page_size = 8;
    for (std::int32_t const scales : {0, 1, 3})
        for (bool const rotates : {false, true}) {
            INFO("scales " << scales << ", rotated " << rotates);
            testing::random_source random(5);
            std::vector<T> keys, values;
            for (std::int64_t i = 0; i < rows * heads * channels; ++i) {
                keys.push_back(from_float<T>(static_cast<float>(random.normal() * (i % 7 == 0 ? 300 : 1))));
                values.push_back(from_float<T>(static_cast<float>(random.normal() * (i % 5 == 0 ? 0.01 : 2))));
            }
            keys[5] = from_float<T>(std::numeric_limits<float>::quiet_NaN());
            values[9] = from_float<T>(std::numeric_limits<float>::infinity());
            std::vector<std::int64_t> slot;
            std::vector<std::int32_t> position;
            for (std::int64_t i = 0; i < rows; ++i) slot.push_back(i == 4 ? -1 : rows - 1 - i + 9);
            for (std::int64_t i = 0; i < rows; ++i) position.push_back(static_cast<std::int32_t>(1000 + 3 * i));
            std::vector<float> const scale = quantised_cache<T>::drawn(scales, 0.7f, 1.4f);
            std::vector<fp8_e4m3> key_cache(static_cast<std::size_t>(pages * page_size * heads * channels),
                                            fp8_e4m3{0xff}),
                value_cache = key_cache;
            auto const set = [&](T const* k, T const* v, fp8_e4m3* kc, fp8_e4m3* vc, std::int64_t const* s,
                                 std::int32_t const* at, float const* x) {
                append_params<T, fp8_e4m3> p;
                p.keys = packed_view(k, {rows, heads, channels}), p.values = packed_view(v, {rows, heads, channels});
                p.key_cache = packed_view(kc, {pages, page_size, heads, channels});
                p.value_cache = packed_view(vc, {pages, page_size, heads, channels});
                p.slot = s;
                if (scales > 0) p.scales = {x, x, scales};
                if (rotates) p.rotation.theta = 10000, p.rotation.rotary_dim = 64, p.position = at;
                return p;
            };
            device_memory k(keys.size() * 2), v(values.size() * 2), kc(key_cache.size(), 256),
                vc(value_cache.size(), 256), s(slot.size() * 8), at(position.size() * 4), x(scale.size() * 4);
            k.upload(keys.data(), keys.size() * 2), v.upload(values.data(), values.size() * 2);
            s.upload(slot.data(), slot.size() * 8), at.upload(position.data(), position.size() * 4);
            x.upload(scale.data(), scale.size() * 4);
            testing::run_on_device(set(k.as<T>(), v.as<T>(), kc.as<fp8_e4m3>(), vc.as<fp8_e4m3>(), s.as<std::int64_t>(),
                                       at.as<std::int32_t>(), x.as<float>()));
            REQUIRE(reference::append(set(keys.data(), values.data(), key_cache.data(), value_cache.data(), slot.data(),
                                          position.data(), scale.data()))
                        .ok());
            CHECK(kc.guard_intact());
            CHECK(vc.guard_intact());
            // Rotated keys may stand on the other side of a tie, one step of fp8 away; nothing else may differ.
            auto const found_keys = kc.template download<fp8_e4m3>(), found_values = vc.template download<fp8_e4m3>();
            int differing = 0, far = 0, values_differing = 0;
            for (std::size_t i = 0; i < key_cache.size(); ++i) {
                float const a = to_float(found_keys[i]), b = to_float(key_cache[i]);
                if (std::isnan(b) || std::isnan(a)) {
                    far += std::isnan(a) != std::isnan(b);
                } else {
                    differing += a != b;
                    far += std::fabs(a - b) > std::fmax(std::fabs(b) / 7, 0.002f);
                }
                float const c = to_float(found_values[i]), d = to_float(value_cache[i]);
                values_differing += !(c == d || (std::isnan(c) && std::isnan(d)));
            }
            CHECK(far == 0);
            CHECK(values_differing == 0);
            CHECK(differing <= (rotates ? static_cast<int>(key_cache.size()) / 100 : 0));
        }
}
