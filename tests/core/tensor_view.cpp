// Tensor views: packed strides, any other strides, offsets beyond 2^31.
#include "winnow/core/tensor_view.hpp"

#include <cstdint>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("tensor_view: packed views are row-major", "[core]") {
    std::vector<int> data(2 * 3 * 4);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<int>(i);
    auto const v = packed_view(data.data(), {2, 3, 4});
    CHECK(v.size() == 24);
    CHECK(v.stride[0] == 12);
    CHECK(v.stride[1] == 4);
    CHECK(v.stride[2] == 1);
    int next = 0, wrong = 0;
    for (int a = 0; a < 2; ++a)
        for (int b = 0; b < 3; ++b)
            for (int c = 0; c < 4; ++c) wrong += v(a, b, c) != next++;
    CHECK(wrong == 0);
}

TEST_CASE("tensor_view: fewer indices give the offset of a slice", "[core]") {
    auto const v = packed_view(static_cast<int*>(nullptr), {2, 3, 4});
    CHECK(v.offset() == 0);
    CHECK(v.offset(1) == 12);
    CHECK(v.offset(1, 2) == 20);
    CHECK(v.offset(1, 2, 3) == 23);
}

TEST_CASE("tensor_view: negative and zero strides", "[core]") {
    int data[3] = {1, 2, 3};
    tensor_view<int, 2> v;
    v.data = data + 2;
    v.extent[0] = 3, v.extent[1] = 5;
    v.stride[0] = -1, v.stride[1] = 0;
    CHECK(v(0, 0) == 3);
    CHECK(v(2, 4) == 1);
}

TEST_CASE("tensor_view: offsets beyond 2^31", "[core]") {
    auto const v = packed_view(static_cast<char*>(nullptr), {4, 3'000'000, 8, 128});
    std::int32_t const token = 2'999'999, head = 7, channel = 127;
    CHECK(v.offset(3, token, head, channel) == std::int64_t{4} * 3'000'000 * 8 * 128 - 1);
    CHECK(v.size() == std::int64_t{4} * 3'000'000 * 8 * 128);
}

TEST_CASE("tensor_view: empty", "[core]") {
    constexpr tensor_view<float, 3> none;
    STATIC_REQUIRE(none.data == nullptr);
    STATIC_REQUIRE(none.size() == 0);
    CHECK(packed_view(static_cast<int*>(nullptr), {2, 0, 4}).size() == 0);
}

TEST_CASE("tensor_view: mutable converts to const and not back", "[core]") {
    STATIC_REQUIRE(std::is_convertible_v<tensor_view<int, 2>, tensor_view<int const, 2>>);
    STATIC_REQUIRE(!std::is_convertible_v<tensor_view<int const, 2>, tensor_view<int, 2>>);
    int data[6] = {0, 1, 2, 3, 4, 5};
    tensor_view<int const, 2> const v = packed_view(data, {2, 3});
    CHECK(v(1, 1) == 4);
    CHECK(v.extent[1] == 3);
}

TEST_CASE("tensor_view: other elements at the same places", "[core]") {
    int data[6] = {0, 1, 2, 3, 4, 5};
    char const narrow[6] = {5, 4, 3, 2, 1, 0};
    tensor_view<int, 2> v;
    v.data = data;
    v.extent[0] = 2, v.extent[1] = 3;
    v.stride[0] = 1, v.stride[1] = 2;
    tensor_view<char const, 2> const n = v.over(narrow);
    CHECK(n.extent[0] == 2);
    CHECK(n.extent[1] == 3);
    CHECK(v(1, 2) == 5);
    CHECK(n(1, 2) == 0);
}
