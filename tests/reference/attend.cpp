// The attention oracle: worked examples, an independent formula, and the properties that kernels are tested for.
#include "winnow/reference/attend.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/reference/rounded.hpp"

using namespace winnow;
using testing::attend_input;
using testing::input_shape;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T>
reference::attend_result run(attend_params<T> const& p, int threads = 1) {
    reference::attend_result exact;
    status const s = reference::attend(p, &exact, {.threads = threads});
    INFO(s.field << " " << s.rule << " " << s.value);
    REQUIRE(s.ok());
    return exact;
}

// Equal bits, NaN included.
bool same(std::vector<double> const& a, std::vector<double> const& b) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (!(a[i] == b[i] || (a[i] != a[i] && b[i] != b[i]))) return false;
    return true;
}

// Rows of one request out of a result, in [row, head, channel] (or [row, head] for width 1).
std::vector<double> rows_of(std::vector<double> const& all, tensor_view<bf16 const, 4> const& queries, request_view r,
                            std::int64_t width) {
    std::vector<double> rows;
    for (std::int64_t row = 0; row < r.queries; ++row)
        for (std::int64_t i = 0; i < queries.extent[2] * width; ++i)
            rows.push_back(all[static_cast<std::size_t>(
                ((r.outer * queries.extent[1] + r.first_row + row) * queries.extent[2]) * width + i)]);
    return rows;
}

// Dense causal attention written another way: one long double pass per row over a plain copy of the numbers.
std::vector<double> plain_dense(attend_input<bf16>& in, float scale, float cap) {
    auto const& s = in.shape();
    std::vector<double> result;
    for (std::int32_t i = 0; i < s.queries[0]; ++i)
        for (std::int32_t h = 0; h < s.heads; ++h) {
            std::int32_t const g = h / (s.heads / s.kv_heads), last = s.keys[0] - s.queries[0] + i;
            std::vector<long double> top(static_cast<std::size_t>(s.head_dim), 0);
            long double bottom = 0;
            for (std::int32_t j = 0; j <= last; ++j) {
                long double score = 0;
                for (std::int32_t c = 0; c < s.head_dim; ++c)
                    score += static_cast<long double>(to_float(in.query(0, i, h, c))) * to_float(in.key(0, j, g, c));
                score *= scale;
                if (cap > 0) score = cap * std::tanh(score / cap);
                long double const weight = std::exp(score);
                bottom += weight;
                for (std::int32_t c = 0; c < s.head_dim; ++c)
                    top[static_cast<std::size_t>(c)] += weight * to_float(in.value(0, j, g, c));
            }
            for (long double const t : top) result.push_back(static_cast<double>(t / bottom));
        }
    return result;
}

double largest_difference(std::vector<double> const& a, std::vector<double> const& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::fmax(most, std::fabs(a[i] - b[i]));
    return most;
}

}  // namespace

TEST_CASE("reference attend: two keys by hand", "[reference]") {
    attend_input<fp16> in({.queries = {1}, .keys = {2}});
    for (std::int32_t c = 0; c < 64; ++c) {
        in.query(0, 0, 0, c) = from_float<fp16>(c == 0 ? 2.0f : 0.0f);
        for (std::int32_t j = 0; j < 2; ++j) {
            in.key(0, j, 0, c) = from_float<fp16>(c == 0 && j == 1 ? 0.5f : 0.0f);
            in.value(0, j, 0, c) = from_float<fp16>(j == 0 ? 1.0f : 3.0f);
        }
    }
    auto p = in.params();
    p.scale = 1;  // scores 0 and 1, so weights 1 / (1 + e) and e / (1 + e)
    double const e = std::exp(1.0);
    auto r = run(p);
    CHECK(r.output[0] == Catch::Approx((1 + 3 * e) / (1 + e)).epsilon(1e-14));
    CHECK(r.lse[0] == Catch::Approx(std::log(1 + e)).epsilon(1e-14));
    CHECK(in.output()[5] == to_float(from_float<fp16>(static_cast<float>((1 + 3 * e) / (1 + e)))));

    p.lse.base = lse_base::two;
    CHECK(run(p).lse[0] == Catch::Approx(std::log2(1 + e)).epsilon(1e-14));
    p.soft_cap = 0.5f;  // scores 0 and tanh(2) / 2
    double const w = std::exp(0.5 * std::tanh(2.0));
    CHECK(run(p).output[63] == Catch::Approx((1 + 3 * w) / (1 + w)).epsilon(1e-14));
}

TEST_CASE("reference attend: dense against another formula", "[reference]") {
    for (float const cap : {0.0f, 3.0f}) {
        attend_input<bf16> in({.queries = {9}, .keys = {37}, .heads = 6, .kv_heads = 2, .head_dim = 128});
        auto p = in.params();
        p.soft_cap = cap;
        CHECK(largest_difference(run(p).output, plain_dense(in, p.scale, cap)) < 1e-13);
    }
}

TEST_CASE("reference attend: listing every block is dense attention, bit for bit", "[reference]") {
    for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
        for (std::int32_t const block : {8, 32, 128}) {
            attend_input<bf16> in({.queries = {21, 21}, .keys = {150, 97}, .heads = 4, .kv_heads = 2});
            in.add_selection(block, 16, share, 20, 1.1);
            auto p = in.params(), dense = p;
            dense.selection = {};
            auto const expected = run(dense);
            for (attention_window const window : {attention_window{0, 0}, {16, 0}, {0, 13}, {5, 40}, {300, 1}}) {
                p.window = window;
                auto const r = run(p);
                CHECK(same(r.output, expected.output));
                CHECK(same(r.lse, expected.lse));
            }
        }
}

TEST_CASE("reference attend: visible keys by the definition", "[reference]") {
    attend_input<bf16> in({.queries = {12}, .keys = {60}});
    auto p = in.params();
    request_view const r = reference::request_of_params(p, 0);
    std::vector<std::int32_t> keys;
    SECTION("window") {
        p.window = {0, 3};
        reference::visible_keys(p, r, 0, 0, 0, keys);  // the row at position 48
        CHECK(keys == std::vector<std::int32_t>{46, 47, 48});
    }
    SECTION("sinks and window") {
        p.window = {2, 3};
        reference::visible_keys(p, r, 0, 0, 11, keys);
        CHECK(keys == std::vector<std::int32_t>{0, 1, 57, 58, 59});
    }
    SECTION("sinks, list and window, each key once") {
        std::int32_t const blocks[] = {0, 2, 7}, counts[] = {3};
        p.selection.blocks = packed_view(blocks, {1, 1, 1, 3});
        p.selection.counts = packed_view(counts, {1, 1, 1});
        p.selection.block_size = 8, p.selection.query_block = 64;
        p.window = {2, 3};
        reference::visible_keys(p, r, 0, 0, 9, keys);  // position 57: key 58 of block 7 is still hidden
        CHECK(keys == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 55, 56, 57});
    }
    SECTION("no window, no sinks, no list: nothing") {
        p.window = {0, 0};
        reference::visible_keys(p, r, 0, 0, 5, keys);
        CHECK(keys.empty());
    }
    SECTION("a full mask looks from the last key") {
        p.mask = full{};
        p.window = {1, 2};
        reference::visible_keys(p, r, 0, 0, 0, keys);
        CHECK(keys == std::vector<std::int32_t>{0, 58, 59});
    }
    SECTION("an offset places the rows") {
        p.mask = causal{3};
        reference::visible_keys(p, reference::request_of_params(p, 0), 0, 0, 1, keys);
        CHECK(keys == std::vector<std::int32_t>{0, 1, 2, 3, 4});
        p.mask = causal{70};  // beyond the context: the window may end before the row
        p.window = {1, 12};
        reference::visible_keys(p, reference::request_of_params(p, 0), 0, 0, 0, keys);
        CHECK(keys == std::vector<std::int32_t>{0, 59});
    }
}

TEST_CASE("reference attend: every layout and stride gives the same bits", "[reference]") {
    input_shape const base{.queries = {7, 7, 7}, .keys = {45, 16, 33}, .heads = 4, .kv_heads = 2};
    attend_input<bf16> plain(base);
    auto const setup = [](attend_params<bf16> p) {
        p.window = {3, 20};
        return p;
    };
    auto const expected = run(setup(plain.params()));
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (bool const head_major : {false, true})
            for (bool const ragged_queries : {false, true})
                for (std::int32_t const page_size : {1, 16, 24}) {
                    input_shape shape = base;
                    shape.layout = layout, shape.head_major = head_major, shape.ragged_queries = ragged_queries;
                    shape.page_size = page_size, shape.spare_keys = page_size, shape.lengths = page_size == 16;
                    attend_input<bf16> in(shape);
                    auto const p = setup(in.params());
                    auto const r = run(p);
                    for (std::int32_t b = 0; b < 3; ++b) {
                        request_view const here = reference::request_of_params(p, b), there{b, 0, 7, 0, 0};
                        CHECK(here.keys == base.keys[static_cast<std::size_t>(b)]);
                        CHECK(same(rows_of(r.output, p.queries, here, 64),
                                   rows_of(expected.output, plain.params().queries, there, 64)));
                        CHECK(same(rows_of(r.lse, p.queries, here, 1),
                                   rows_of(expected.lse, plain.params().queries, there, 1)));
                    }
                }
}

TEST_CASE("reference attend: ragged requests with selections equal separate calls", "[reference]") {
    input_shape const together{.queries = {5, 0, 1, 33},
                               .keys = {45, 7, 0, 90},
                               .heads = 2,
                               .kv_heads = 1,
                               .layout = kv_layout::ragged,
                               .ragged_queries = true};
    attend_input<bf16> in(together);
    in.add_selection(8, 16, sharing::per_batch, 6, 0.4);
    auto p = in.params();
    p.window = {4, 9};
    auto const all = run(p);
    for (std::int32_t b = 0; b < 4; ++b) {
        // The same memory, seen as a call of one request.
        auto one = p;
        one.rows = {p.rows.start + b, 1, p.rows.max_length};
        one.kv.start = p.kv.start + b;
        one.kv.length = p.kv.length + b;
        one.selection.blocks.data += p.selection.blocks.offset(b);
        one.selection.counts.data += p.selection.counts.offset(b);
        one.selection.blocks.extent[0] = one.selection.counts.extent[0] = 1;
        request_view const r = reference::request_of_params(p, b);
        CHECK(same(rows_of(run(one).output, p.queries, r, 64), rows_of(all.output, p.queries, r, 64)));
    }
    // Rows of no request keep what they held.
    CHECK(std::isnan(all.output[0]));
    CHECK(std::isnan(in.output()[0]));
    CHECK(std::isnan(in.output().back()));
}

TEST_CASE("reference attend: chunks at any boundary give the whole, bit for bit", "[reference]") {
    attend_input<bf16> in({.queries = {80}, .keys = {80}, .heads = 2, .kv_heads = 1});
    in.add_selection(8, 16, sharing::per_batch, 5, 0.5);
    auto p = in.params();
    p.window = {4, 9};
    auto const whole = run(p);
    for (std::int32_t const cut : {1, 16, 37, 64, 79}) {
        std::vector<double> joined;
        for (std::int32_t const part : {0, 1}) {
            std::int32_t const first = part == 0 ? 0 : cut, rows = part == 0 ? cut : 80 - cut;
            auto chunk = p;
            chunk.queries.data += p.queries.offset(0, first), chunk.queries.extent[1] = rows;
            chunk.output.data += p.output.offset(0, first), chunk.output.extent[1] = rows;
            chunk.lse = {};
            chunk.mask = causal{first};
            chunk.selection.blocks.data += p.selection.blocks.offset(0, 0, first / 16);
            chunk.selection.counts.data += p.selection.counts.offset(0, 0, first / 16);
            // The lists from the chunk's first block on; query_blocks_of may allow for one more than there is.
            chunk.selection.blocks.extent[2] = chunk.selection.counts.extent[2] = query_blocks_of(rows, 16);
            auto const r = run(chunk);
            joined.insert(joined.end(), r.output.begin(), r.output.end());
        }
        CHECK(same(joined, whole.output));
    }
}

TEST_CASE("reference attend: rows that see nothing give 0 and -inf", "[reference]") {
    SECTION("no keys at all") {
        attend_input<bf16> in({.queries = {3}, .keys = {0}});
        auto const r = run(in.params());
        for (double const o : r.output) REQUIRE(o == 0);
        for (double const l : r.lse) CHECK(l == -infinity);
        for (double const o : in.output()) REQUIRE(o == 0);
    }
    SECTION("more rows than keys: the early ones stand before position 0") {
        attend_input<bf16> in({.queries = {5}, .keys = {2}});
        auto const r = run(in.params());
        for (std::size_t row = 0; row < 5; ++row) {
            CHECK((r.lse[row] == -infinity) == (row < 3));
            CHECK((r.output[row * 64] == 0) == (row < 3));
        }
        CHECK(r.output[3 * 64 + 7] == to_float(in.value(0, 0, 0, 7)));  // one key: its value
    }
    SECTION("nothing selected") {
        attend_input<bf16> in({.queries = {3}, .keys = {20}});
        in.add_selection(8, 16, sharing::per_batch, 2, 0.0);
        auto p = in.params();
        p.window = {0, 0};
        for (double const l : run(p).lse) CHECK(l == -infinity);
    }
    SECTION("all scores -inf") {
        attend_input<bf16> in({.queries = {1}, .keys = {3}});
        for (std::int32_t j = 0; j < 3; ++j)
            in.key(0, j, 0, 0) = from_float<bf16>(-std::numeric_limits<float>::infinity());
        in.query(0, 0, 0, 0) = from_float<bf16>(1.0f);
        auto const r = run(in.params());
        CHECK(r.lse[0] == -infinity);
        CHECK(r.output[0] == 0);
    }
    SECTION("an empty batch, and no rows") {
        attend_input<bf16> in({.queries = {0}, .keys = {9}});
        CHECK(run(in.params()).output.empty());
    }
}

TEST_CASE("reference attend: NaN in keys that a row does not see cannot reach it", "[reference]") {
    attend_input<bf16> in({.queries = {4}, .keys = {40}, .layout = kv_layout::block_table, .page_size = 8});
    in.add_selection(8, 16, sharing::per_batch, 5, 0.0);
    auto p = in.params();
    std::int32_t* const ids = in.selection_buffer().blocks.data;
    ids[0] = 1, in.selection_buffer().counts.data[0] = 1;
    p.window = {2, 3};
    auto const clean = run(p);
    for (std::int32_t const j : {2, 7, 16, 30, 33}) {
        in.key(0, j, 0, 3) = from_float<bf16>(std::numeric_limits<float>::quiet_NaN());
        in.value(0, j, 0, 3) = from_float<bf16>(std::numeric_limits<float>::infinity());
    }
    CHECK(same(run(p).output, clean.output));
    SECTION("in a key that it sees, it must") {
        in.key(0, 9, 0, 3) = from_float<bf16>(std::numeric_limits<float>::quiet_NaN());
        for (double const o : run(p).output) REQUIRE(std::isnan(o));
    }
    SECTION("a NaN in one value channel stays in that channel") {
        in.value(0, 9, 0, 5) = from_float<bf16>(std::numeric_limits<float>::quiet_NaN());
        auto const r = run(p);
        for (std::size_t i = 0; i < r.output.size(); ++i) REQUIRE(std::isnan(r.output[i]) == (i % 64 == 5));
    }
}

TEST_CASE("reference attend: bad block ids are ignored", "[reference]") {
    attend_input<bf16> in({.queries = {3}, .keys = {90}});
    in.add_selection(16, 16, sharing::per_batch, 4, 0.0);
    auto p = in.params();
    p.window = {0, 4};
    auto const s = in.selection_buffer();
    auto const set = [&](std::vector<std::int32_t> const& ids) {
        for (std::size_t i = 0; i < ids.size(); ++i) s.blocks.data[i] = ids[i];
        s.counts.data[0] = static_cast<std::int32_t>(ids.size());
    };
    set({2});
    auto const expected = run(p);
    set({-1, 2, 6, 1 << 30});  // 90 keys are 6 blocks: 0 .. 5
    CHECK(same(run(p).output, expected.output));
    s.counts.data[0] = -3;
    auto const none = run(p);
    set({});
    CHECK(same(run(p).output, none.output));
    set({2, 3, 4, 5});
    auto const full_list = run(p);
    s.counts.data[0] = 9;  // more than the capacity
    CHECK(same(run(p).output, full_list.output));
}

TEST_CASE("reference attend: list_row finds lists, and -1 means none", "[reference]") {
    attend_input<bf16> in({.queries = {3, 3}, .keys = {90, 90}});
    in.add_selection(16, 16, sharing::per_batch, 4, 0.5);
    auto p = in.params();
    p.window = {0, 4};
    auto bare = p;
    bare.selection = {};
    std::int32_t rows[] = {1, -1};
    p.selection.list_row = rows;
    auto copied = p;  // the second request's list copied to the first one's place
    copied.selection.list_row = nullptr;
    auto const list = in.selection_buffer();
    auto const r = run(p);
    auto const without = run(bare);
    request_view const first = reference::request_of_params(p, 0), second = reference::request_of_params(p, 1);
    CHECK(same(rows_of(r.output, p.queries, second, 64), rows_of(without.output, p.queries, second, 64)));
    for (std::int64_t i = 0; i < list.blocks.stride[0]; ++i)
        list.blocks.data[i] = list.blocks.data[list.blocks.stride[0] + i];
    for (std::int64_t i = 0; i < list.counts.stride[0]; ++i)
        list.counts.data[i] = list.counts.data[list.counts.stride[0] + i];
    CHECK(same(rows_of(r.output, p.queries, first, 64), rows_of(run(copied).output, p.queries, first, 64)));
}

TEST_CASE("reference attend: a key on a bad page scores 0 and weighs zeros", "[reference]") {
    attend_input<bf16> in({.queries = {1}, .keys = {12}, .layout = kv_layout::page_list, .page_size = 4});
    in.pages()[1] = 77;
    auto const bad = run(in.params());
    attend_input<bf16> zeroed({.queries = {1}, .keys = {12}});
    for (std::int32_t j = 4; j < 8; ++j)
        for (std::int32_t c = 0; c < 64; ++c)
            zeroed.key(0, j, 0, c) = zeroed.value(0, j, 0, c) = from_float<bf16>(0.0f);
    CHECK(same(bad.output, run(zeroed.params()).output));
}

TEST_CASE("reference attend: row ranges write their rows only", "[reference]") {
    for (std::int32_t const tail : {0, 1, 4, 7, 9}) {
        attend_input<bf16> in({.queries = {7}, .keys = {30}, .heads = 2});
        auto p = in.params();
        auto const whole = run(p);
        p.tail = tail;
        for (auto const range : {row_range::without_tail, row_range::tail_only}) {
            attend_input<bf16> fresh({.queries = {7}, .keys = {30}, .heads = 2});
            auto q = fresh.params();
            q.tail = tail, q.range = range;
            auto const part = run(q);
            for (std::int32_t row = 0; row < 7; ++row) {
                bool const in_tail = row >= 7 - tail;
                auto const at = static_cast<std::size_t>(row) * 128;
                if (in_tail == (range == row_range::tail_only)) {
                    CHECK(part.output[at] == whole.output[at]);
                    CHECK(fresh.output()[at] == to_float(from_float<bf16>(static_cast<float>(whole.output[at]))));
                } else {
                    CHECK(std::isnan(part.output[at]));
                    CHECK(std::isnan(fresh.output()[at]));
                }
            }
        }
    }
}

TEST_CASE("reference attend: threads change nothing, and progress is reported", "[reference]") {
    attend_input<bf16> in({.queries = {70, 70}, .keys = {90, 100}, .heads = 6, .kv_heads = 3});
    auto const p = in.params();
    auto const one = run(p, 1), three = run(p, 3);
    CHECK(same(one.output, three.output));
    CHECK(same(one.lse, three.lse));
    std::int64_t last = 0, total = 0;
    bool rising = true;
    auto const progress = [&](std::int64_t done, std::int64_t all) {
        rising = rising && done == last + 1;
        last = done, total = all;
    };
    REQUIRE(reference::attend(p, nullptr, {.threads = 2, .progress = progress}).ok());
    CHECK(rising);
    CHECK(last == total);
    CHECK(total > 0);
}

TEST_CASE("reference attend: keys without rotary embedding, all in the window, are dense attention of rotated keys",
          "[reference]") {
    attend_input<bf16> in({.queries = {9}, .keys = {30}, .heads = 4, .kv_heads = 2});
    for (auto const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int32_t const rotary_dim : {0, 32}) {
            rope const rotation{.theta = 100, .rotary_dim = rotary_dim, .pairing = pairing};
            auto p = in.params();
            p.rotation = rotation;
            auto const found = run(p);
            // The same scores from vectors turned to absolute positions.
            auto const frequency = reference::frequencies_of(rotation, 64);
            double worst = 0;
            for (std::int32_t i = 0; i < 9; ++i)
                for (std::int32_t h = 0; h < 4; ++h) {
                    std::vector<double> scores;
                    for (std::int32_t j = 0; j <= 21 + i; ++j) {
                        std::vector<float> q, k;
                        for (std::int32_t c = 0; c < 64; ++c) {
                            q.push_back(to_float(in.query(0, i, h, c)));
                            k.push_back(to_float(in.key(0, j, h / 2, c)));
                        }
                        auto const a = reference::turned_to(q.data(), 64, rotation, frequency, 21 + i);
                        auto const b = reference::turned_to(k.data(), 64, rotation, frequency, j);
                        double s = 0;
                        for (std::size_t c = 0; c < 64; ++c) s += a[c] * b[c];
                        scores.push_back(s * static_cast<double>(p.scale));
                    }
                    double const lse = reference::softmax(scores);
                    worst = std::fmax(worst, std::fabs(lse - found.lse[static_cast<std::size_t>(i * 4 + h)]));
                }
            CHECK(worst < 1e-9);
        }
}

TEST_CASE("reference attend: streaming distances close the gaps between visible keys", "[reference]") {
    std::vector<std::int32_t> const visible{0, 1, 40, 41, 42, 95, 96, 97};  // 2 sinks, 3 listed, a window of 3
    attention_window const window{2, 3};
    CHECK(reference::keys_before(visible, 97, window) == 5);
    for (std::size_t n = 0; n < visible.size(); ++n)
        CHECK(reference::streaming_distance(visible, n, 5, 97, window) == 7 - static_cast<std::int32_t>(n));
}

TEST_CASE("reference attend: where every key is listed, streaming positions are positions", "[reference]") {
    attend_input<bf16> in({.queries = {25}, .keys = {60}, .heads = 2});
    in.add_selection(8, 16, sharing::per_batch, 8, 1.0);
    auto p = in.params();
    p.rotation = {.theta = 1e4f};
    p.window = {.sinks = 12, .recent = 10};
    auto const listed = run(p);
    p.window = {}, p.selection = {};
    auto const dense = run(p);
    for (std::size_t i = 0; i < dense.lse.size(); ++i) CHECK(std::fabs(dense.lse[i] - listed.lse[i]) < 1e-9);
}

TEST_CASE("reference attend: rows that see nothing before their window, and early rows, keep plain distances",
          "[reference]") {
    // A list and sinks that only later rows see must not move keys of early ones.
    attend_input<bf16> in({.queries = {60}, .keys = {60}, .heads = 2});
    in.add_selection(8, 64, sharing::per_batch, 8, 1.0);
    auto p = in.params();
    p.rotation = {.theta = 1e4f};
    auto const dense = [&] {
        auto d = p;
        d.selection = {};
        return run(d);
    }();
    p.window = {.sinks = 8, .recent = 20};
    p.selection.counts.data = nullptr;
    std::vector<std::int32_t> const one_block{1};
    p.selection.counts.data = one_block.data();  // block 0 alone, which is sinks
    auto const found = run(p);
    for (std::int32_t row = 0; row < 28; ++row)  // up to row 27 every key is a sink or in the window
        for (std::size_t h = 0; h < 2; ++h) {
            auto const i = static_cast<std::size_t>(row) * 2 + h;
            CHECK(std::fabs(dense.lse[i] - found.lse[i]) < 1e-9);
        }
}

TEST_CASE("reference attend: a sink logit is one key more, with a value of zeros", "[reference]") {
    // The formula by hand: two keys of score 0 and ln 2 in natural units, a sink of ln 5: weights 1/8 and 2/8.
    attend_input<bf16> in({.queries = {1}, .keys = {2}, .head_dim = 64, .sink_logits = true});
    for (std::int32_t c = 0; c < 64; ++c) {
        in.query(0, 0, 0, c) = from_float<bf16>(c == 0 ? 1.0f : 0.0f);
        for (std::int32_t j = 0; j < 2; ++j) {
            in.key(0, j, 0, c) = from_float<bf16>(c == 0 ? static_cast<float>(j) : 0.0f);
            in.value(0, j, 0, c) = from_float<bf16>(static_cast<float>(8 * (j + 1)));
        }
    }
    auto p = in.params();
    float const logit = std::log(5.0f);
    p.sink_logits = &logit, p.scale = std::log(2.0f);
    auto const with = run(p);
    CHECK(with.lse[0] == Approx(std::log(8.0)).margin(1e-6));
    CHECK(with.output[0] == Approx(8 * 1.0 / 8 + 16 * 2.0 / 8).margin(1e-6));
    reference::attend_result rounded;
    REQUIRE(reference::attend_rounded(p, rounded).ok());
    CHECK(rounded.lse[0] == Approx(std::log(8.0)).margin(1e-5));
    CHECK(rounded.output[0] == Approx(5.0).margin(0.04));
    // A logit of -inf changes nothing; a row that sees no key stays 0 and -inf, whatever the logit.
    float const none = -std::numeric_limits<float>::infinity();
    auto const without = [&] {
        auto q = p;
        q.sink_logits = nullptr;
        return run(q);
    }();
    p.sink_logits = &none;
    CHECK(same(run(p).output, without.output));
    CHECK(same(run(p).lse, without.lse));
    p.sink_logits = &logit;
    in.key_lengths()[0] = 0;
    auto const empty = run(p);
    CHECK(empty.lse[0] == -infinity);
    CHECK(empty.output[0] == 0);
}
