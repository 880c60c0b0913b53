// Scratch memory and dispatch: aligned regions that do not overlap, and run-time values that find their instance.
#include "winnow/core/workspace.hpp"

#include <cstdint>
#include <string>

#include "support/catch.hpp"
#include "winnow/core/device_info.hpp"
#include "winnow/core/dispatch.hpp"
#include "winnow/core/partial.hpp"

using namespace winnow;

TEST_CASE("workspace: regions are aligned and follow each other", "[core]") {
    workspace_layout layout;
    CHECK(layout.bytes == 0);
    std::size_t const a = layout.take(3, 4), b = layout.take(0, 8), c = layout.take(65, 4), d = layout.take(1, 1);
    CHECK(a == 0);
    CHECK(b == 256);
    CHECK(c == 256);  // an empty region takes nothing
    CHECK(d == 768);
    CHECK(layout.bytes == 1024);
}

TEST_CASE("workspace: sizes beyond 2^32", "[core]") {
    workspace_layout layout;
    layout.take(std::size_t{1} << 32, 4);
    CHECK(layout.take(1, 4) == std::size_t{1} << 34);
}

TEST_CASE("workspace: region points at its offset", "[core]") {
    alignas(256) char memory[512];
    workspace const scratch{memory, sizeof memory};
    CHECK(reinterpret_cast<char*>(region<float>(scratch, 256)) == memory + 256);
}

TEST_CASE("dispatch: finds the instance of a value", "[core]") {
    int found = 0;
    auto const run = [&](int value) {
        return dispatch(value_list<64, 128, 256>{}, value, "head_dim", [&](auto d) {
            found = decltype(d)::value;
            return status{};
        });
    };
    CHECK(run(64).ok());
    CHECK(found == 64);
    CHECK(run(256).ok());
    CHECK(found == 256);
}

TEST_CASE("dispatch: a value outside the list is reported, and nothing runs", "[core]") {
    bool ran = false;
    status const s = dispatch(value_list<64, 128>{}, 96, "head_dim", [&](auto) {
        ran = true;
        return status{};
    });
    CHECK_FALSE(ran);
    CHECK(s.code == errc::unsupported);
    CHECK(std::string(s.field) == "head_dim");
    CHECK(s.value == 96);
}

TEST_CASE("dispatch: passes the callee's status on", "[core]") {
    status const s = dispatch(value_list<1>{}, 1, "x", [](auto) { return fail(errc::bad_stride, "y", "z", 5); });
    CHECK(s.code == errc::bad_stride);
    CHECK(s.value == 5);
}

TEST_CASE("partial: an lse view knows its base", "[core]") {
    float data[6];
    auto const values = packed_view(data, {1, 2, 3});
    CHECK(lse_view{natural_lse{values}}.base == lse_base::natural);
    CHECK(lse_view{base2_lse{values}}.base == lse_base::two);
    CHECK(lse_view{}.empty());
    CHECK_FALSE(lse_view{natural_lse{values}}.empty());
}
