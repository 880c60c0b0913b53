// Where tokens live: shapes, requests and locations in every layout.
#include "winnow/core/kv_view.hpp"

#include <cstdint>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "winnow/core/dtype.hpp"

using namespace winnow;

namespace {

tensor_view<bf16 const, 4> view(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
    return packed_view(static_cast<bf16 const*>(nullptr), {a, b, c, d});
}

constexpr batch_shape bounds{3, 4, 2, 64, 5, 20};

}  // namespace

TEST_CASE("kv_view: shape of padded, ragged and paged calls", "[core]") {
    SECTION("contiguous takes the token extent unless max_length says less") {
        auto s = shape_of(view(3, 5, 8, 64), {}, view(3, 20, 2, 64), {});
        CHECK(s.batch == 3);
        CHECK(s.heads == 8);
        CHECK(s.kv_heads == 2);
        CHECK(s.group() == 4);
        CHECK(s.head_dim == 64);
        CHECK(s.max_queries == 5);
        CHECK(s.max_keys == 20);
        kv_index kv;
        kv.max_length = 11;
        CHECK(shape_of(view(3, 5, 8, 64), {}, view(3, 20, 2, 64), kv).max_keys == 11);
    }
    SECTION("ragged rows and pages take what they are told") {
        std::int32_t const start[] = {0, 2, 7};
        kv_index kv;
        kv.layout = kv_layout::block_table;
        kv.max_length = 77;
        auto const s = shape_of(view(1, 7, 8, 128), {start, 2, 5}, view(9, 16, 8, 128), kv);
        CHECK(s.batch == 2);
        CHECK(s.max_queries == 5);
        CHECK(s.max_keys == 77);
    }
}

TEST_CASE("kv_view: requests in each layout", "[core]") {
    std::int32_t const length[] = {20, 0, 7};
    kv_index kv;
    SECTION("contiguous without lengths is full") {
        auto const r = request_of(bounds, {}, kv, 1, causal{}, 2);
        CHECK(r.outer == 2);
        CHECK(r.first_row == 0);
        CHECK(r.queries == 5);
        CHECK(r.keys == 20);
        CHECK(r.first_position == 15);
    }
    SECTION("lengths, end-aligned: the first position may lie before 0") {
        kv.length = length;
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 0).first_position == 15);
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 1).first_position == -5);
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 2).first_position == 2);
        CHECK(request_of(bounds, {}, kv, 1, causal{9}, 2).first_position == 9);
    }
    SECTION("ragged rows and ragged keys") {
        std::int32_t const rows[] = {4, 6, 6, 11}, start[] = {2, 12, 12, 30};
        kv.layout = kv_layout::ragged;
        kv.start = start;
        auto r = request_of(bounds, {rows, 3, 5}, kv, 1, causal{}, 0);
        CHECK(r.outer == 0);
        CHECK(r.first_row == 4);
        CHECK(r.queries == 2);
        CHECK(r.keys == 10);
        r = request_of(bounds, {rows, 3, 5}, kv, 1, causal{}, 1);
        CHECK(r.queries == 0);
        CHECK(r.keys == 0);
        r = request_of(bounds, {rows, 3, 5}, kv, 1, causal{}, 2);
        CHECK(r.queries == 5);
        CHECK(r.keys == 18);
    }
    SECTION("page list: lengths from the last page") {
        std::int32_t const start[] = {0, 2, 2, 3}, last[] = {3, 9, 8};
        kv.layout = kv_layout::page_list;
        kv.start = start;
        kv.last_page_length = last;
        CHECK(request_of(bounds, {}, kv, 8, causal{}, 0).keys == 11);
        CHECK(request_of(bounds, {}, kv, 8, causal{}, 1).keys == 0);
        CHECK(request_of(bounds, {}, kv, 8, causal{}, 2).keys == 8);
    }
    SECTION("bad values are clamped to the bounds") {
        std::int32_t const bad[] = {-4, 21, 1 << 30}, rows[] = {0, 9, 4, 5};
        kv.length = bad;
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 0).keys == 0);
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 1).keys == 20);
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 2).keys == 20);
        CHECK(request_of(bounds, {rows, 3, 5}, kv, 1, causal{}, 0).queries == 5);
        CHECK(request_of(bounds, {rows, 3, 5}, kv, 1, causal{}, 1).queries == 0);
    }
    SECTION("a length never reaches past the rows or pages that its request owns") {
        std::int32_t const length[] = {20, 20, 20}, start[] = {0, 7, 7, 8};
        kv.length = length, kv.start = start;
        kv.layout = kv_layout::ragged;
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 0).keys == 7);
        CHECK(request_of(bounds, {}, kv, 1, causal{}, 1).keys == 0);
        kv.layout = kv_layout::page_list;
        CHECK(request_of(bounds, {}, kv, 2, causal{}, 0).keys == 14);
        CHECK(request_of(bounds, {}, kv, 2, causal{}, 1).keys == 0);
        CHECK(request_of(bounds, {}, kv, 64, causal{}, 2).keys == 20);
        kv.layout = kv_layout::block_table;
        kv.table_stride = 3;
        CHECK(request_of(bounds, {}, kv, 4, causal{}, 0).keys == 12);
        CHECK(request_of(bounds, {}, kv, 7, causal{}, 0).keys == 20);
        kv.table_stride = 0;  // one request: nothing says where its table ends
        CHECK(request_of(bounds, {}, kv, 4, causal{}, 0).keys == 20);
    }
    SECTION("pages times page size may exceed int32") {
        std::int32_t const start[] = {0, 5, 5, 5}, last[] = {1, 0, 0};
        kv.layout = kv_layout::page_list;
        kv.start = start, kv.last_page_length = last;
        CHECK(request_of(bounds, {}, kv, 1 << 30, causal{}, 0).keys == 20);
    }
}

TEST_CASE("kv_view: locations in each layout", "[core]") {
    kv_index kv;
    SECTION("contiguous") {
        auto const at = locate(kv, fast_divider(1), 3, 2, 17);
        CHECK(at.outer == 2);
        CHECK(at.token == 17);
    }
    SECTION("ragged") {
        std::int32_t const start[] = {2, 12, 12};
        kv.layout = kv_layout::ragged;
        kv.start = start;
        auto const at = locate(kv, fast_divider(1), 1, 1, 5);
        CHECK(at.outer == 0);
        CHECK(at.token == 17);
    }
    SECTION("pages of any size, by table and by list") {
        for (std::int32_t const page_size : {1, 3, 16, 64}) {
            constexpr std::int32_t pages = 40, keys = 33;
            std::vector<std::int32_t> table(3 * 50, -1), list(90, -1), start = {5, 40, 80};
            for (std::int32_t i = 0; i < 34; ++i) table[50 + i] = list[40 + i] = (i * 7 + 3) % pages;
            for (auto const layout : {kv_layout::block_table, kv_layout::page_list}) {
                kv.layout = layout;
                kv.table_stride = 50;
                kv.pages = layout == kv_layout::block_table ? table.data() : list.data();
                kv.start = start.data();
                int wrong = 0;
                for (std::int32_t j = 0; j < keys; ++j) {
                    auto const at = locate(kv, fast_divider(page_size), pages, 1, j);
                    wrong += at.outer != (j / page_size * 7 + 3) % pages || at.token != j % page_size;
                }
                CHECK(wrong == 0);
            }
        }
    }
    SECTION("bad page ids are nowhere") {
        std::int32_t const table[] = {-1, 8, 1 << 30, 7};
        kv.layout = kv_layout::block_table;
        kv.pages = table;
        kv.table_stride = 4;
        CHECK(locate(kv, fast_divider(16), 8, 0, 0).outer == -1);
        CHECK(locate(kv, fast_divider(16), 8, 0, 16).outer == -1);
        CHECK(locate(kv, fast_divider(16), 8, 0, 32).outer == -1);
        CHECK(locate(kv, fast_divider(16), 8, 0, 48).outer == 7);
    }
    SECTION("tables that lie beyond 2^31 entries are addressed in 64 bits") {
        // Only the address is formed: request 70000 of a table with 65536 entries a request.
        kv.layout = kv_layout::block_table;
        kv.table_stride = 65536;
        std::int32_t const here[] = {5};
        auto const origin =
            reinterpret_cast<std::uintptr_t>(here) - std::uintptr_t{70000} * 65536 * sizeof(std::int32_t);
        kv.pages = reinterpret_cast<std::int32_t const*>(origin);
        CHECK(locate(kv, fast_divider(16), 8, 70000, 3).outer == 5);
    }
}
