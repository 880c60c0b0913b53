// Bad input of append: every rule of check.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/op/append.hpp"
#include "winnow/reference/append.hpp"

using namespace winnow;

namespace {

using params = append_params<bf16>;
using row = testing::bad_input<params>;

template <class T>
T* shifted(T* p, std::uintptr_t bytes) {
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + bytes);
}

// Two rows, two heads of 32 channels, values of 16; pages of 4 tokens; four query heads.
struct memory {
    struct alignas(16) line {
        bf16 channel[8];
    };
    std::vector<line> keys{2 * 2 * 4}, values{2 * 2 * 2}, queries{2 * 4 * 4};
    std::vector<line> key_cache = std::vector<line>(3 * 4 * 2 * 4, line{{{5}, {5}, {5}, {5}, {5}, {5}, {5}, {5}}});
    std::vector<line> value_cache = std::vector<line>(3 * 4 * 2 * 2, key_cache[0]);
    std::vector<std::int64_t> slot{3, 7};
    std::vector<std::int32_t> position{0, 1};
    std::vector<float> frequency = std::vector<float>(16, 0.5f);
    params view() {
        params p;
        p.keys = packed_view<bf16 const>(keys[0].channel, {2, 2, 32});
        p.values = packed_view<bf16 const>(values[0].channel, {2, 2, 16});
        p.key_cache = packed_view(key_cache[0].channel, {3, 4, 2, 32});
        p.value_cache = packed_view(value_cache[0].channel, {3, 4, 2, 16});
        p.slot = slot.data(), p.position = position.data();
        p.rotation = {.theta = 1e4f, .inverse_frequency = frequency.data()};
        p.queries = packed_view(queries[0].channel, {2, 4, 32});
        return p;
    }
    bool untouched() const {
        for (auto const* cache : {&key_cache, &value_cache})
            for (line const& l : *cache)
                for (bf16 const x : l.channel)
                    if (x.bits != 5) return false;
        return true;
    }
};

}  // namespace

TEST_CASE("check append: every rule", "[op]") {
    memory m;
    constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
    constexpr std::int64_t many = max_append_rows + 1, far = max_tokens + 1;
    testing::require_statuses(
        m.view(),
        std::vector<row>{
            {[](params& p) { p.keys.extent[0] = -1; }, errc::bad_extent, "keys.extent", -1},
            {[](params& p) { p.keys.extent[0] = many; }, errc::bad_extent, "keys.extent", many},
            {[](params& p) { p.keys.extent[1] = 0; }, errc::bad_extent, "keys.extent", 0},
            {[](params& p) { p.keys.extent[1] = 65536; }, errc::bad_extent, "keys.extent", 65536},
            {[](params& p) { p.keys.extent[2] = 0; }, errc::unsupported, "keys.extent[2]", 0},
            {[](params& p) { p.keys.extent[2] = 28; }, errc::unsupported, "keys.extent[2]", 28},
            {[](params& p) { p.keys.extent[2] = 1032; }, errc::unsupported, "keys.extent[2]", 1032},
            {[](params& p) { p.keys.data = nullptr; }, errc::null_pointer, "keys.data", 0},
            {[](params& p) { p.keys.data = shifted(p.keys.data, 2); }, errc::misaligned, "keys.data", 2},
            {[](params& p) { p.keys.stride[2] = 2; }, errc::bad_stride, "keys.stride[2]", 2},
            {[](params& p) { p.keys.stride[0] = 68; }, errc::misaligned, "keys.stride", 68},
            {[](params& p) { p.key_cache.extent[0] = -1; }, errc::bad_extent, "key_cache.extent", -1},
            {[](params& p) { p.key_cache.extent[0] = far; }, errc::bad_extent, "key_cache.extent", far},
            {[](params& p) { p.key_cache.extent[1] = 0; }, errc::bad_extent, "key_cache.extent", 0},
            {[](params& p) { p.key_cache.extent[2] = 3; }, errc::bad_extent, "key_cache.extent", 3},
            {[](params& p) { p.key_cache.extent[3] = 16; }, errc::bad_extent, "key_cache.extent[3]", 16},
            {[](params& p) { p.key_cache.data = nullptr; }, errc::null_pointer, "key_cache.data", 0},
            {[](params& p) { p.key_cache.data = shifted(p.key_cache.data, 8); }, errc::misaligned, "key_cache.data", 8},
            {[](params& p) { p.key_cache.stride[3] = 2; }, errc::bad_stride, "key_cache.stride[3]", 2},
            {[](params& p) { p.key_cache.stride[1] = 100; }, errc::misaligned, "key_cache.stride", 100},
            {[](params& p) { p.key_cache.stride[2] = 0; }, errc::bad_stride, "key_cache.stride", 0},
            {[](params& p) { p.values.data = nullptr; }, errc::null_pointer, "values.data", 0},
            {[](params& p) { p.values = {}; }, errc::bad_extent, "values.extent", 0},
            {[](params& p) { p.values.extent[0] = 1; }, errc::bad_extent, "values.extent", 1},
            {[](params& p) { p.values.extent[1] = 1; }, errc::bad_extent, "values.extent", 1},
            {[](params& p) { p.values.extent[2] = 12; }, errc::unsupported, "values.extent[2]", 12},
            {[](params& p) { p.values.stride[2] = 3; }, errc::bad_stride, "values.stride[2]", 3},
            {[](params& p) { p.values.stride[1] = 20; }, errc::misaligned, "values.stride", 20},
            {[](params& p) { p.value_cache = {}; }, errc::bad_extent, "value_cache.extent", 0},
            {[](params& p) { p.value_cache.data = nullptr; }, errc::null_pointer, "value_cache.data", 0},
            {[](params& p) { p.value_cache.extent[0] = 2; }, errc::bad_extent, "value_cache.extent", 2},
            {[](params& p) { p.value_cache.extent[1] = 5; }, errc::bad_extent, "value_cache.extent", 5},
            {[](params& p) { p.value_cache.extent[2] = 1; }, errc::bad_extent, "value_cache.extent", 1},
            {[](params& p) { p.value_cache.extent[3] = 32; }, errc::bad_extent, "value_cache.extent[3]", 32},
            {[](params& p) { p.value_cache.stride[3] = 2; }, errc::bad_stride, "value_cache.stride[3]", 2},
            {[](params& p) { p.value_cache.stride[0] = 0; }, errc::bad_stride, "value_cache.stride", 0},
            {[](params& p) { p.slot = nullptr; }, errc::null_pointer, "slot", 0},
            {[](params& p) { p.slot = shifted(p.slot, 4); }, errc::misaligned, "slot", 4},
            {[](params& p) { p.position = nullptr; }, errc::null_pointer, "position", 0},
            {[](params& p) { p.position = shifted(p.position, 2); }, errc::misaligned, "position", 2},
            {[](params& p) { p.rotation.pairing = static_cast<rope_pairing>(2); }, errc::out_of_range,
             "rotation.pairing", 2},
            {[](params& p) { p.rotation.theta = -1; }, errc::out_of_range, "rotation.theta", -1},
            {[](params& p) { p.rotation.theta = 0.5f; }, errc::out_of_range, "rotation.theta", 1},
            {[](params& p) { p.rotation.theta = not_a_number; }, errc::out_of_range, "rotation.theta", 0},
            {[](params& p) { p.rotation.theta = std::numeric_limits<float>::infinity(); }, errc::out_of_range,
             "rotation.theta", std::int64_t{1} << 31},
            {[](params& p) { p.rotation.rotary_dim = -16; }, errc::out_of_range, "rotation.rotary_dim", -16},
            {[](params& p) { p.rotation.rotary_dim = 24; }, errc::out_of_range, "rotation.rotary_dim", 24},
            {[](params& p) { p.rotation.rotary_dim = 48; }, errc::out_of_range, "rotation.rotary_dim", 48},
            {[](params& p) { p.keys.extent[2] = p.key_cache.extent[3] = p.queries.extent[2] = 24; }, errc::out_of_range,
             "rotation.rotary_dim", 24},
            {[](params& p) { p.rotation.inverse_frequency = shifted(p.rotation.inverse_frequency, 1); },
             errc::misaligned, "rotation.inverse_frequency", 1},
            {[](params& p) { p.rotation = {}; }, errc::unsupported, "queries.data", 0},
            {[](params& p) { p.queries.data = nullptr; }, errc::null_pointer, "queries.data", 0},
            {[](params& p) { p.queries.extent[0] = 1; }, errc::bad_extent, "queries.extent", 1},
            {[](params& p) { p.queries.extent[1] = 0; }, errc::bad_extent, "queries.extent", 0},
            {[](params& p) { p.queries.extent[2] = 16; }, errc::bad_extent, "queries.extent[2]", 16},
            {[](params& p) { p.queries.stride[2] = 4; }, errc::bad_stride, "queries.stride[2]", 4},
            {[](params& p) { p.queries.stride[1] = 0; }, errc::bad_stride, "queries.stride", 0},
            {[](params& p) { p.queries.stride[0] = 132; }, errc::misaligned, "queries.stride", 132},
        },
        [](params const& p) { return check(p); });
}

TEST_CASE("check append: what may be left out", "[op]") {
    memory m;
    params p = m.view();
    p.values = {}, p.value_cache = {};
    CHECK(check(p).ok());
    p.queries = {};
    CHECK(check(p).ok());
    p.rotation = {}, p.position = nullptr;
    CHECK(check(p).ok());
    p.rotation.rotary_dim = 16;  // means nothing without a rotation
    CHECK(check(p).ok());
    // A table needs no theta; theta needs no table.
    p = m.view();
    p.rotation.theta = 0;
    CHECK(check(p).ok());
    p.rotation = {.theta = 1e4f, .rotary_dim = 16, .pairing = rope_pairing::adjacent};
    CHECK(check(p).ok());
    // No rows need no pointers, a cache of no pages no memory.
    p.keys.extent[0] = p.values.extent[0] = p.queries.extent[0] = 0;
    p.keys.data = nullptr, p.values.data = nullptr, p.queries.data = nullptr;
    p.slot = nullptr, p.position = nullptr;
    CHECK(check(p).ok());
    p = m.view();
    p.key_cache.extent[0] = p.value_cache.extent[0] = 0;
    p.key_cache.data = nullptr, p.value_cache.data = nullptr;
    CHECK(check(p).ok());
    CHECK(reference::append(p).ok());
}

TEST_CASE("check append: a failed call writes nothing; plans carry the verdict and need no workspace", "[op]") {
    memory m;
    params p = m.view();
    CHECK(plan(p, device_info{}));
    CHECK(plan(p, device_info{}).workspace_bytes == 0);
    p.queries.extent[0] = 1;
    CHECK_FALSE(plan(p, device_info{}));
    CHECK_FALSE(reference::append(p).ok());
    CHECK(m.untouched());
    p = m.view();
    CHECK(reference::append(p).ok());
    CHECK_FALSE(m.untouched());
}
