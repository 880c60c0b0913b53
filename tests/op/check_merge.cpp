// Bad input of merge: every rule of check.
#include <cstdint>
#include <string>
#include <vector>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/op/merge.hpp"
#include "winnow/reference/merge.hpp"

using namespace winnow;

namespace {

using params = merge_params<float>;
using row = testing::bad_input<params>;

template <class T>
T* shifted(T* p) {
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + 1);
}

struct memory {
    std::vector<float> outputs = std::vector<float>(2 * 3 * 4 * 8), lses = std::vector<float>(2 * 3 * 4);
    std::vector<float> output = std::vector<float>(3 * 4 * 8, -5.0f), lse = std::vector<float>(3 * 4, -5.0f);
    params view() {
        params p;
        p.outputs = packed_view<float const>(outputs.data(), {2, 3, 4, 8});
        p.lses = packed_view<float const>(lses.data(), {2, 3, 4});
        p.output = packed_view(output.data(), {3, 4, 8});
        p.lse = packed_view(lse.data(), {3, 4});
        return p;
    }
};

}  // namespace

TEST_CASE("check merge: every rule", "[op]") {
    memory m;
    testing::require_statuses(
        m.view(),
        std::vector<row>{
            {[](params& p) { p.outputs.extent[0] = 0; }, errc::bad_extent, "outputs.extent[0]", 0},
            {[](params& p) { p.outputs.extent[1] = -1; }, errc::bad_extent, "outputs.extent", -1},
            {[](params& p) { p.outputs.extent[2] = (std::int64_t{1} << 30) + 1; }, errc::bad_extent, "outputs.extent",
             (std::int64_t{1} << 30) + 1},
            {[](params& p) { p.lses.extent[1] = 2; }, errc::bad_extent, "lses.extent", 2},
            {[](params& p) { p.output.extent[1] = 5; }, errc::bad_extent, "output.extent", 5},
            {[](params& p) { p.outputs.extent[3] = p.output.extent[2] = 0; }, errc::unsupported, "outputs.extent[3]",
             0},
            {[](params& p) { p.outputs.extent[3] = p.output.extent[2] = 1025; }, errc::unsupported, "outputs.extent[3]",
             1025},
            {[](params& p) { p.outputs.stride[3] = 2; }, errc::bad_stride, "outputs.stride[3]", 2},
            {[](params& p) { p.output.stride[2] = 4; }, errc::bad_stride, "output.stride[2]", 4},
            {[](params& p) { p.outputs.data = nullptr; }, errc::null_pointer, "outputs.data", 0},
            {[](params& p) { p.lses.data = nullptr; }, errc::null_pointer, "lses.data", 0},
            {[](params& p) { p.output.data = nullptr; }, errc::null_pointer, "output.data", 0},
            {[](params& p) { p.lse.extent[0] = 7; }, errc::bad_extent, "lse.extent", 7},
            {[](params& p) { p.outputs.extent[2] = p.lses.extent[2] = p.output.extent[1] = 65536; }, errc::unsupported,
             "outputs.extent[2]", 65536},
            {[](params& p) { p.base = static_cast<lse_base>(2); }, errc::out_of_range, "base", 2},
            {[](params& p) { p.output.stride[0] = 0; }, errc::bad_stride, "output.stride", 0},
            {[](params& p) { p.lse.stride[1] = 0; }, errc::bad_stride, "lse.stride", 0},
            {[](params& p) { p.outputs.data = shifted(p.outputs.data); }, errc::misaligned, "outputs.data", 1},
            {[](params& p) { p.lses.data = shifted(p.lses.data); }, errc::misaligned, "lses.data", 1},
            {[](params& p) { p.output.data = shifted(p.output.data); }, errc::misaligned, "output.data", 1},
            {[](params& p) { p.lse.data = shifted(p.lse.data); }, errc::misaligned, "lse.data", 1},
        },
        [](params const& p) { return check(p); });
}

TEST_CASE("check merge: no rows need no pointers; lse is optional", "[op]") {
    memory m;
    params p = m.view();
    p.lse = {};
    CHECK(check(p).ok());
    p.outputs.extent[1] = p.lses.extent[1] = p.output.extent[0] = 0;
    p.outputs.data = nullptr, p.lses.data = nullptr, p.output.data = nullptr;
    CHECK(check(p).ok());
    // Extents whose product is beyond int64.
    p.outputs.extent[1] = p.lses.extent[1] = p.output.extent[0] = std::int64_t{1} << 30;
    p.outputs.extent[0] = p.lses.extent[0] = std::int64_t{1} << 30;
    CHECK(std::string(check(p).field) == "outputs.data");
}

TEST_CASE("check merge: a failed call writes nothing; plans carry the verdict and need no workspace", "[op]") {
    memory m;
    params p = m.view();
    CHECK(plan(p, device_info{}));
    CHECK(plan(p, device_info{}).workspace_bytes == 0);
    p.lse.extent[0] = 7;
    CHECK_FALSE(plan(p, device_info{}));
    CHECK_FALSE(reference::merge(p).ok());
    CHECK(m.output == std::vector<float>(3 * 4 * 8, -5.0f));
    CHECK(m.lse == std::vector<float>(3 * 4, -5.0f));
}
