// status: success is the default, a failure carries its four parts, and every code has a name of its own.
#include "winnow/core/status.hpp"

#include <set>
#include <string>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("status: the default is success", "[core]") {
    constexpr status s;
    STATIC_REQUIRE(s.ok());
    STATIC_REQUIRE(static_cast<bool>(s));
    CHECK(std::string(s.field).empty());
    CHECK(std::string(s.rule).empty());
}

TEST_CASE("status: fail keeps code, field, rule and value", "[core]") {
    constexpr status s = fail(errc::bad_extent, "keys.extent[3]", "must equal queries.extent[3]", -7);
    STATIC_REQUIRE(!s.ok());
    CHECK(s.code == errc::bad_extent);
    CHECK(std::string(s.field) == "keys.extent[3]");
    CHECK(std::string(s.rule) == "must equal queries.extent[3]");
    CHECK(s.value == -7);
}

TEST_CASE("status: names of codes differ", "[core]") {
    std::set<std::string> names;
    auto const last = static_cast<int>(errc::cuda_error);
    for (int code = 0; code <= last; ++code) names.insert(name(static_cast<errc>(code)));
    CHECK(names.size() == static_cast<std::size_t>(last) + 1);
    CHECK(names.count("unknown") == 0);
    CHECK(std::string(name(static_cast<errc>(last + 1))) == "unknown");
}
