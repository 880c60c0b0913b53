#include "winnow/core/dispatch.hpp"

#include <string>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("value_list: size and membership") {
    STATIC_REQUIRE(value_list<>::size == 0);
    STATIC_REQUIRE(value_list<64, 128>::size == 2);
    STATIC_REQUIRE(value_list<64, 128>::contains(128));
    STATIC_REQUIRE_FALSE(value_list<64, 128>::contains(0));
    STATIC_REQUIRE_FALSE(value_list<>::contains(0));
}

TEST_CASE("dispatch: the value in the list becomes a constant, once") {
    int calls = 0, seen = 0;
    auto const f = [&](auto n) {
        static_assert(decltype(n)::value == 3 || decltype(n)::value == 7);
        ++calls;
        seen = n;
        return n == 7 ? fail(errc::wrong_plan, "field", "rule", 7) : status{};
    };
    CHECK(dispatch(value_list<3, 7>{}, 3, "n", f).ok());
    CHECK(seen == 3);
    CHECK(dispatch(value_list<3, 7>{}, 7, "n", f).code == errc::wrong_plan);
    CHECK(seen == 7);
    CHECK(calls == 2);
}

TEST_CASE("dispatch: a value outside the list names the field and itself") {
    int calls = 0;
    status const s = dispatch(value_list<3, 7>{}, 5, "n", [&](auto) { return ++calls, status{}; });
    CHECK(calls == 0);
    CHECK(s.code == errc::unsupported);
    CHECK(std::string(s.field) == "n");
    CHECK(s.value == 5);
}
