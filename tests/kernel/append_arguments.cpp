// What the append kernel does, block by block and item by item on the host: the same index arithmetic, against the
// oracle.
#include "winnow/kernel/append_arguments.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support/append_input.hpp"
#include "support/catch.hpp"

using namespace winnow;
using testing::append_input;
using testing::append_shape;
using testing::cache_order;

namespace {

template <class T>
struct vectors {
    T first[8], second[8];
};

template <class T>
void turn(T& x, T& y, float half_turns) {
    float const c = static_cast<float>(std::cos(3.14159265358979323846 * half_turns)),
                s = static_cast<float>(std::sin(3.14159265358979323846 * half_turns));
    float const a = to_float(x), b = to_float(y);
    x = from_float<T>(std::fma(a, c, -(b * s)));
    y = from_float<T>(std::fma(a, s, b * c));
}

// append_tensors with one thread.
template <class T>
void walk(append_params<T> const& p) {
    auto const a = append_arguments_of(p);
    for (std::int64_t block = 0; block < a.blocks(); ++block) {
        append_part<T> const& part = a.parts[block % a.part_count];
        std::int64_t const first_row = block / a.part_count * a.rows_per_block;
        auto const rows = static_cast<std::int32_t>(smaller<std::int64_t>(a.rows - first_row, a.rows_per_block));
        std::int32_t const h = part.columns.rotary, pairs = a.pairs.divisor;
        REQUIRE(rows >= 1);
        std::vector<std::int64_t> place;
        std::vector<std::uint64_t> turns;
        std::vector<float> rotation;  // half turns [row, k, column]
        for (std::int32_t r = 0; r < rows; ++r) {
            std::int64_t const row = first_row + r;
            auto const at = place_of(part.slot == nullptr ? row : part.slot[row], part.pages, part.page_size);
            place.push_back(at.page < 0 ? -1 : at.page * part.target_page + at.token * part.target_token);
        }
        if (h > 0) {
            for (std::int32_t i = 0; i < pairs; ++i) {
                std::int32_t const k = a.rotary_columns.quotient(i);
                turns.push_back(turns_of(frequency_of(a.rotation, a.log2_theta, pairs,
                                                      rotary_pair(a.rotation.pairing, part.columns, i - k * h, k))));
            }
            REQUIRE(rows * pairs <= append_pairs);
            for (std::int32_t i = 0; i < rows * pairs; ++i) {
                std::int32_t const r = a.pairs.quotient(i);
                rotation.push_back(
                    half_turns(turns[static_cast<std::size_t>(i - r * pairs)], a.position[first_row + r]));
            }
        }
        for (std::int32_t i = 0; i < rows * part.row_items.divisor; ++i) {
            append_item const item = part.item(i);
            REQUIRE(item.row < rows);
            T const* const from = part.source + (first_row + item.row) * part.source_row + item.head * part.source_head;
            std::int32_t const first = part.columns.first(item.column) * 8,
                               second = part.columns.second(item.column) * 8;
            bool const both = part.columns.has_second(item.column);
            vectors<T> v;
            std::copy_n(from + first, 8, v.first);
            if (both) std::copy_n(from + second, 8, v.second);
            if (item.column < h)
                for (std::int32_t k = 0; k < 8; ++k) {
                    float const angle = rotation[static_cast<std::size_t>(item.row * pairs + k * h + item.column)];
                    if (a.rotation.pairing == rope_pairing::halves) {
                        turn(v.first[k], v.second[k], angle);
                    } else {
                        T* const in = k < 4 ? v.first : v.second;
                        turn(in[k % 4 * 2], in[k % 4 * 2 + 1], angle);
                    }
                }
            if (place[static_cast<std::size_t>(item.row)] == -1) continue;
            T* const to = part.target + place[static_cast<std::size_t>(item.row)] + item.head * part.target_head;
            std::copy_n(v.first, 8, to + first);
            if (both) std::copy_n(v.second, 8, to + second);
        }
    }
}

template <class T>
void check(append_shape const& shape) {
    append_input<T> in(shape);
    auto memory = in.memory();
    auto const p = in.params(memory.base());
    REQUIRE(winnow::check(p).ok());
    walk(p);
    std::string const wrong = in.mismatch(memory.base());
    INFO(shape.rows << " rows, " << shape.heads << "/" << shape.kv_heads << " heads, " << shape.head_dim << "/"
                    << in.shape().value_dim << " channels, pages of " << shape.page_size << ", order "
                    << static_cast<int>(shape.order));
    CHECK(wrong == "");
}

}  // namespace

TEMPLATE_TEST_CASE("append arguments: copies", "[kernel]", bf16, fp16) {
    std::uint64_t seed = 1;
    for (cache_order const order :
         {cache_order::token_major, cache_order::head_major, cache_order::combined, cache_order::interleaved})
        for (std::int64_t const page_size : {1, 3, 16, 64})
            for (std::int64_t const head_dim : {8, 24, 64, 72, 128, 256, 1024})
                check<TestType>({.rows = 1 + static_cast<std::int64_t>(seed * 7 % 23),
                                 .kv_heads = 1 + static_cast<std::int64_t>(seed % 3),
                                 .head_dim = head_dim,
                                 .value_dim = seed % 4 == 0   ? 0
                                              : seed % 4 == 1 ? 40
                                                              : -1,
                                 .page_size = page_size,
                                 .order = order,
                                 .fused = seed % 2 == 0,
                                 .astray = seed % 3 == 0,
                                 .seed = seed++});
    check<TestType>({.rows = 0, .seed = 3});
    for (std::int64_t const rows : {1024, 2051, 5003})  // 2, 4 and 8 rows a block, the last one not full
        check<TestType>({.rows = rows, .kv_heads = 2, .head_dim = 24, .astray = true});
}

TEMPLATE_TEST_CASE("append arguments: rotations", "[kernel]", bf16, fp16) {
    std::uint64_t seed = 1;
    for (rope_pairing const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int64_t const head_dim : {16, 64, 96, 128, 256, 1024})
            for (std::int32_t const part : {0, 1, 2})  // all, half, 16 channels
                check<TestType>({.rows = 9,
                                 .kv_heads = 2,
                                 .head_dim = head_dim,
                                 .heads = seed % 3 == 0 ? 0 : 6,
                                 .order = seed % 2 ? cache_order::token_major : cache_order::head_major,
                                 .fused = seed % 2 == 0,
                                 .astray = true,
                                 .rotation = {.theta = 1e4f,
                                              .rotary_dim = part == 0 ? 0
                                                            : part == 1 && head_dim >= 32 && head_dim % 32 == 0
                                                                ? static_cast<std::int32_t>(head_dim / 2)
                                                                : 16,
                                              .pairing = pairing},
                                 .table = seed % 5 == 0,
                                 .positions = {0, 1, 131071, 3000000, 2147483647, -5},
                                 .seed = seed++});
    for (std::int64_t const rows : {1024, 2051, 5003})
        for (std::int64_t const head_dim : {64, 256})
            check<TestType>({.rows = rows,
                             .head_dim = head_dim,
                             .heads = 2,
                             .rotation = {.theta = 5e5f, .rotary_dim = 48},
                             .positions = {3, 1, 131071}});
}
