// The pruning oracle: walks and scores worked by hand, another formula for one probe, and properties of the lists.
#include "winnow/reference/prune.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/quantised_cache.hpp"
#include "support/random_input.hpp"
#include "support/selection_compare.hpp"

using namespace winnow;
using reference::prune_trace;
using reference::selection_storage;
using testing::attend_input;
using testing::input_shape;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct pruned {
    selection_storage selection;
    prune_trace trace;
    std::vector<std::int32_t> list(std::int32_t b, std::int32_t head, std::int32_t m) const {
        std::vector<std::int32_t> ids;
        for (std::int32_t i = 0; i < selection.view.counts(b, head, m); ++i)
            ids.push_back(selection.view.blocks(b, head, m, i));
        return ids;
    }
};

template <class T>
pruned run(prune_params<T> p, int threads = 1) {
    pruned r{selection_storage(p.method, p.shape()), {}};
    std::fill(r.selection.blocks.begin(), r.selection.blocks.end(), -99);
    std::fill(r.selection.counts.begin(), r.selection.counts.end(), -99);
    p.selection = r.selection.view;
    status const s = reference::prune(p, &r.trace, {.threads = threads});
    INFO(s.field << " " << s.rule << " " << s.value);
    REQUIRE(s.ok());
    return r;
}

std::vector<std::int32_t> range(std::int32_t first, std::int32_t end) {
    std::vector<std::int32_t> r(static_cast<std::size_t>(end - first));
    std::iota(r.begin(), r.end(), first);
    return r;
}

// One head whose scores are chosen: query 1 in channel 0, keys `scores` there.
attend_input<fp16> scored(std::vector<float> const& scores, std::int32_t rows = 1) {
    attend_input<fp16> in({.queries = {rows}, .keys = {static_cast<std::int32_t>(scores.size())}});
    for (std::int32_t c = 0; c < 64; ++c) {
        for (std::int32_t i = 0; i < rows; ++i) in.query(0, i, 0, c) = from_float<fp16>(c == 0 ? 1.0f : 0.0f);
        for (std::size_t j = 0; j < scores.size(); ++j)
            in.key(0, static_cast<std::int32_t>(j), 0, c) = from_float<fp16>(c == 0 ? scores[j] : 0.0f);
    }
    return in;
}

// One stage of chunks of 8 without sinks or window, for the row at the end.
prune_method one_stage(scorer how, std::int32_t keep = 1) {
    prune_method m{.stages = {{1, 1, 8, keep}}, .stage_count = 1, .window = {0, 0}};
    m.scorer = how;
    return m;
}

}  // namespace

TEST_CASE("reference prune: scores of two chunks by hand", "[reference]") {
    //                              0  1  2  3  4  5  6  7 |  8  9 10 11 12 13 14 15
    auto in = scored(std::vector<float>{2, 9, 4, 1, 0, 3, 5, 7, -1, 6, -2, 8, 1, 1, -3, 2});
    auto const scores = [&](scorer how) {
        auto const r = run(testing::prune_params_of(in.params(), one_stage(how)));
        return r.trace.at(0, 0, 0, 0).score;
    };
    // Left chunk: probes 2 and 6 (4 < 5, right), 5 and 7 (3 < 7, right), 6 and 7 (5 < 7, right), 7. Best 7.
    // Right chunk: 10 and 14 (-2 > -3, left), 9 and 11 (6 < 8, right), 10 and 11 (-2 < 8), 11. Best 8.
    CHECK(scores(scorer::tree_probe) == std::vector<double>{7, 8});
    // Left: 0 and 4 (2 > 0, left), 0 and 2 (2 < 4, right), 2 and 3 (4 > 1, left): key 2, score 4.
    // Right: 8 and 12 (-1 < 1, right), 12 and 14 (1 > -3, left), 12 and 13 (1 > 1 does not hold, right): 13, score 1.
    CHECK(scores(scorer::tree_probe_first) == std::vector<double>{4, 1});
    CHECK(scores(scorer::centre_probe) == std::vector<double>{0, 1});
    CHECK(scores(scorer::mean_key)[0] == Catch::Approx(31.0 / 8));
    CHECK(scores(scorer::mean_key)[1] == Catch::Approx(12.0 / 8));
    CHECK(scores(scorer::min_max_bound) == std::vector<double>{9, 8});
    CHECK(scores(scorer::antidiagonal) == std::vector<double>{9, 8});  // a stride of 1: every key
}

TEST_CASE("reference prune: sums over antidiagonals by hand", "[reference]") {
    // Rows 16 .. 19 with queries 1, 2, 3, 4; chunks [0, 8) and [8, 16). A square of stride 4 is 4 k0 + 3 k1 + 2 k2 + 1 k3.
    auto in = scored(std::vector<float>{2, 9, 4, 1, 0, 3, 5, 7, -1, 6, -2, 8, 1, 1, -3, 2, 0, 0, 0, 0}, 4);
    for (std::int32_t i = 0; i < 4; ++i) in.query(0, i, 0, 0) = from_float<fp16>(static_cast<float>(i + 1));
    prune_method m{.stages = {{4, 4, 8, 1}}, .stage_count = 1, .window = {0, 4}, .scorer = scorer::antidiagonal};
    auto const scores = [&](attention_mask mask = causal{}, std::int32_t rows = 4) {
        auto p = testing::prune_params_of(in.params(), m);
        p.mask = mask, p.queries.extent[1] = rows;
        return run(p).trace.at(0, 0, 0, 0).score;
    };
    // 8 + 27 + 8 + 1, 0 + 9 + 10 + 7; -4 + 18 - 4 + 8, 4 + 3 - 6 + 2.
    CHECK(scores() == std::vector<double>{44, 18});
    // Rows 16 and 17 alone: the last two keys of a square, 2 k2 + 1 k3.
    CHECK(scores(causal{16}, 2) == std::vector<double>{17, 4});
    // Row 19 alone, as at decode: 1 times the first key of each square.
    CHECK(scores(causal{19}, 1) == std::vector<double>{2, 1});
    // Stride 2: rows 16, 17 give 2 k0 + 1 k1, rows 18, 19 give 4 k0 + 3 k1: 20 + 21, -8 + 24.
    m.stages[0].query_stride = 2;
    CHECK(scores() == std::vector<double>{41, 16});
}

TEST_CASE("reference prune: a square counts for rows that see all of it", "[reference]") {
    // Rows 4 .. 11, no window: of the chunk [8, 16) the first group sees nothing, the second starts at row 8.
    auto in = scored(std::vector<float>{0, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 5}, 8);
    prune_method m{.stages = {{16, 4, 8, 1}}, .stage_count = 1, .window = {0, 0}, .scorer = scorer::antidiagonal};
    auto const r = run(testing::prune_params_of(in.params(), m));
    CHECK(r.trace.at(0, 0, 0, 0).score == std::vector<double>{0, -infinity});
}

TEST_CASE("reference prune: a last chunk that is cut short", "[reference]") {
    // 11 keys: the second chunk is [8, 11).
    auto in = scored(std::vector<float>{0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 3});
    auto const score = [&](scorer how) {
        return run(testing::prune_params_of(in.params(), one_stage(how))).trace.at(0, 0, 0, 0).score.at(1);
    };
    CHECK(score(scorer::tree_probe) == 5);        // centre 9: probes 8 and 10 (5 > 3, left), then [8, 9)
    CHECK(score(scorer::tree_probe_first) == 5);  // 8 and 9 (5 > 2, left): key 8
    CHECK(score(scorer::centre_probe) == 2);
    CHECK(score(scorer::mean_key) == Catch::Approx(10.0 / 3).epsilon(1e-3));  // rounded to fp16
    CHECK(score(scorer::min_max_bound) == 5);
}

TEST_CASE("reference prune: no key of a chunk scores above its bound", "[reference]") {
    for (std::int32_t const chunk : {8, 32}) {
        attend_input<bf16> in({.queries = {20}, .keys = {500}, .heads = 4, .kv_heads = 2});
        prune_method m{.stages = {{20, 1, chunk, 3}}, .stage_count = 1, .window = {32, 64}};
        m.sharing = sharing::per_head;
        auto p = testing::prune_params_of(in.params(), m);
        p.method.scorer = scorer::min_max_bound;
        auto const bound = run(p);
        for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key}) {
            p.method.scorer = how;
            auto const other = run(p);
            for (std::int32_t h = 0; h < 4; ++h) {
                auto const &high = bound.trace.at(0, 0, h, 0).score, &low = other.trace.at(0, 0, h, 0).score;
                REQUIRE(high.size() == low.size());
                std::size_t above = 0;
                for (std::size_t i = 0; i < low.size(); ++i)
                    above += low[i] > high[i] + (how == scorer::mean_key ? 0.5 : 0.0);  // means are rounded
                CHECK(above == 0);
            }
        }
    }
}

TEST_CASE("reference prune: ties go to the smaller index, equal probes to the right", "[reference]") {
    auto in = scored(std::vector<float>(64, 1.0f));
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key,
                           scorer::min_max_bound, scorer::antidiagonal})
        CHECK(run(testing::prune_params_of(in.params(), one_stage(how, 3))).list(0, 0, 0) == range(0, 3));
    // Probes 2 and 6 tie, and so do the first keys 0 and 4: what lies to the right decides.
    auto tied = scored(std::vector<float>{1, 0, 1, 7, 1, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0});
    CHECK(run(testing::prune_params_of(tied.params(), one_stage(scorer::tree_probe))).trace.at(0, 0, 0, 0).score[0] ==
          9);
    CHECK(run(testing::prune_params_of(tied.params(), one_stage(scorer::tree_probe_first)))
              .trace.at(0, 0, 0, 0)
              .score[0] == 9);
    CHECK(reference::keep_best({0, 8, 16, 24}, {1, 2, 2, 2}, 2) == std::vector<std::int32_t>{8, 16});
    CHECK(reference::keep_best({0, 8, 16, 24}, {-0.0, 0.0, -0.0, 0.0}, 2) == std::vector<std::int32_t>{0, 8});
    double const nan = std::nan("");
    CHECK(reference::keep_best({0, 8, 16, 24}, {nan, -infinity, nan, 3}, 3) == std::vector<std::int32_t>{0, 8, 24});
    CHECK(reference::keep_best({0, 8, 16}, {1, infinity, -infinity}, 2) == std::vector<std::int32_t>{0, 8});
}

TEST_CASE("reference prune: everything is kept when it fits", "[reference]") {
    for (auto const how : {scorer::tree_probe, scorer::mean_key})
        for (std::int32_t const keys : {0, 1, 80, 81, 96, 97, 143, 200}) {
            prune_method m = hip_tiny;
            m.scorer = how;
            m.stages[0].keep = m.stages[1].keep = 100;
            attend_input<bf16> in({.queries = {37}, .keys = {keys}, .heads = 2});
            auto p = testing::prune_params_of(in.params(), m);
            auto const r = run(p);
            request_view const view = request_of(p.shape(), p.rows, p.kv, 1, p.mask, 0);
            for (std::int32_t block = 0; block < query_blocks_of(37, 16); ++block) {
                query_span const span = span_of(view, 16, block);
                std::int32_t const end = span.last < span.first ? 0 : eligible_end(span.last, keys, m.window, 0);
                CHECK(r.list(0, 0, block) == (end > 16 ? range(2, ceil_div(end, 8)) : std::vector<std::int32_t>{}));
            }
        }
}

TEST_CASE("reference prune: one probe a chunk against another formula", "[reference]") {
    constexpr std::int32_t rows = 40, keys = 700, heads = 6, kv_heads = 2;
    attend_input<bf16> in({.queries = {rows}, .keys = {keys}, .heads = heads, .kv_heads = kv_heads});
    for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head}) {
        prune_method m{.stages = {{16, 1, 8, 20}}, .stage_count = 1, .window = {32, 50}};
        m.scorer = scorer::centre_probe, m.sharing = share;
        auto const r = run(testing::prune_params_of(in.params(), m));
        std::int32_t const lists = list_heads_of(share, heads, kv_heads);
        for (std::int32_t m0 = 0; m0 < 3; ++m0)
            for (std::int32_t list = 0; list < lists; ++list) {
                // Rows stand at 660 .. 699, so blocks of 16 begin at 656, 672, 688.
                std::int32_t const first = larger(656 + 16 * m0, 660), last = smaller(656 + 16 * m0 + 15, 699);
                std::vector<std::pair<double, std::int32_t>> best;
                for (std::int32_t left = 32; left < last - 50 + 1; left += 8) {
                    std::int32_t const j = (left + smaller(left + 8, last - 50 + 1)) / 2;
                    double score = -infinity;
                    for (std::int32_t h = list * heads / lists; h < (list + 1) * heads / lists; ++h)
                        for (std::int32_t i = first; i <= last; ++i) {
                            double dot = 0;
                            for (std::int32_t c = 0; c < 64; ++c)
                                dot += static_cast<double>(to_float(in.query(0, i - 660, h, c))) *
                                       static_cast<double>(to_float(in.key(0, j, h / 3, c)));
                            if (j <= i) score = std::max(score, dot);
                        }
                    best.emplace_back(-score, left / 8);
                }
                std::sort(best.begin(), best.end());
                std::vector<std::int32_t> expected;
                for (int i = 0; i < 20; ++i) expected.push_back(best[static_cast<std::size_t>(i)].second);
                std::sort(expected.begin(), expected.end());
                CHECK(r.list(0, list, m0) == expected);
            }
    }
}

TEST_CASE("reference prune: a planted needle is found by every scorer, path and sharing", "[reference]") {
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key,
                           scorer::min_max_bound, scorer::antidiagonal})
        for (auto const path : {probe_path::per_head, probe_path::per_kv_group})
            for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
                for (std::int32_t const needle : {2, 41, 60}) {  // block of 8 keys
                    prune_method m = hip_tiny;
                    m.stages[0].keep = 2, m.stages[1].keep = 2;
                    m.scorer = how, m.path = path, m.sharing = share;
                    attend_input<bf16> in({.queries = {16}, .keys = {656}, .heads = 4, .kv_heads = 2});
                    for (std::int32_t h = 0; h < 4; ++h)
                        for (std::int32_t c = 0; c < 64; ++c) {
                            // Channel 63 alone connects queries and needle; its neighbours, a coarse chunk, feel it.
                            for (std::int32_t i = 0; i < 16; ++i)
                                if (c == 63) in.query(0, i, h, c) = from_float<bf16>(8.0f);
                            for (std::int32_t j = 0; c == 63 && h < 2 && j < 656; ++j) {
                                bool const near = (j - 16) / 32 == (needle * 8 - 16) / 32 && j >= 16;
                                in.key(0, j, h, c) = from_float<bf16>(j / 8 == needle ? 40.0f : near ? 20.0f : 0.0f);
                            }
                        }
                    auto const r = run(testing::prune_params_of(in.params(), m));
                    for (std::int32_t list = 0; list < r.trace.list_heads; ++list) {
                        auto const ids = r.list(0, list, 0);
                        CHECK(std::count(ids.begin(), ids.end(), needle) == 1);
                    }
                }
}

TEST_CASE("reference prune: queries are averaged in groups of absolute positions", "[reference]") {
    // Rows at positions 57, 58, 59 | 60, 61 with stride 4 (groups 56..59, 60..63): means 6 and -1 in channel 0.
    attend_input<bf16> in({.queries = {5}, .keys = {62}});
    float const rows[] = {3, 9, 6, -4, 2};
    for (std::int32_t c = 0; c < 64; ++c) {
        for (std::int32_t i = 0; i < 5; ++i) in.query(0, i, 0, c) = from_float<bf16>(c == 0 ? rows[i] : 0.0f);
        for (std::int32_t j = 0; j < 62; ++j)
            in.key(0, j, 0, c) = from_float<bf16>(c == 0 && j % 8 == 4 ? (j < 32 ? 1.0f : -1.0f) : 0.0f);
    }
    prune_method m{.stages = {{64, 4, 8, 2}}, .stage_count = 1, .window = {0, 0}};
    m.scorer = scorer::centre_probe;
    auto p = testing::prune_params_of(in.params(), m);
    p.mask = full{57};
    auto const r = run(p);
    auto const& list = r.trace.at(0, 0, 0, 0);
    REQUIRE(list.score.size() == 8);
    // Keys at the centres: +1 in the first four chunks, -1 in the next three; the last chunk [56, 62) is probed at 59.
    CHECK(list.score == std::vector<double>{6, 6, 6, 6, 1, 1, 1, 0});
    CHECK(list.kept == std::vector<std::int32_t>{0, 8});

    SECTION("the mean is rounded as tensor cores take it, unless asked not to") {
        in.query(0, 0, 0, 0) = from_float<bf16>(3.015625f);  // mean 6.0052
        selection_storage storage(m, p.shape());
        p.selection = storage.view;
        prune_trace rounded, exact;
        REQUIRE(reference::prune(p, &rounded).ok());
        REQUIRE(reference::prune(p, &exact, {}, {.queries = false}).ok());
        CHECK(rounded.at(0, 0, 0, 0).score[0] == 6);
        CHECK(exact.at(0, 0, 0, 0).score[0] == Catch::Approx(6.0052083).epsilon(1e-7));
    }
}

TEST_CASE("reference prune: a probe counts only for rows that may see it", "[reference]") {
    // Rows 8 .. 15 of a causal call without window; the key at 12 is visible to the last rows only.
    auto in = scored(std::vector<float>{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0}, 8);
    prune_method m{.stages = {{8, 1, 8, 1}}, .stage_count = 1, .window = {0, 0}};
    m.scorer = scorer::centre_probe;
    auto p = testing::prune_params_of(in.params(), m);
    CHECK(run(p).trace.at(0, 0, 0, 0).score == std::vector<double>{1, 9});
    m.stages[0].query_stride = 4;  // groups look from 8 and 12
    p.method = m;
    CHECK(run(p).trace.at(0, 0, 0, 0).score == std::vector<double>{1, 9});
    m.stages[0].query_stride = 8;  // one group, looking from 8
    p.method = m;
    CHECK(run(p).trace.at(0, 0, 0, 0).score == std::vector<double>{1, -infinity});
    p.mask = full{};
    CHECK(run(p).trace.at(0, 0, 0, 0).score == std::vector<double>{1, 9});
    m.scorer = scorer::mean_key;  // the chunk's last key decides: 15 is beyond 8
    p.method = m, p.mask = causal{};
    CHECK(run(p).trace.at(0, 0, 0, 0).score[1] == -infinity);
}

TEST_CASE("reference prune: NaN keys are never preferred", "[reference]") {
    auto in = scored(std::vector<float>(64, -5.0f));
    for (std::int32_t j = 8; j < 16; ++j)
        in.key(0, j, 0, 1) = from_float<fp16>(std::numeric_limits<float>::quiet_NaN());
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key,
                           scorer::min_max_bound}) {
        auto const ids = run(testing::prune_params_of(in.params(), one_stage(how, 7))).list(0, 0, 0);
        CHECK(ids == std::vector<std::int32_t>{0, 2, 3, 4, 5, 6, 7});
    }
}

TEST_CASE("reference prune: a shared path serves all heads of a KV group", "[reference]") {
    attend_input<bf16> in({.queries = {8}, .keys = {600}, .heads = 6, .kv_heads = 2});
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first}) {
        prune_method m = hip_tiny;
        m.scorer = how, m.path = probe_path::per_kv_group;
        m.sharing = sharing::per_kv_group;
        auto const groups = run(testing::prune_params_of(in.params(), m));
        m.sharing = sharing::per_head;
        auto const heads = run(testing::prune_params_of(in.params(), m));
        for (std::int32_t h = 0; h < 6; ++h) CHECK(heads.list(0, h, 0) == groups.list(0, h / 3, 0));
    }
    SECTION("with one head a group, the paths are the same") {
        attend_input<bf16> single({.queries = {8}, .keys = {600}, .heads = 2, .kv_heads = 2});
        prune_method m = hip_tiny;
        auto const a = run(testing::prune_params_of(single.params(), m));
        m.path = probe_path::per_kv_group;
        auto const b = run(testing::prune_params_of(single.params(), m));
        CHECK(a.list(0, 0, 0) == b.list(0, 0, 0));
    }
    SECTION("scorers without a path do not depend on it") {
        for (auto const how : {scorer::centre_probe, scorer::mean_key, scorer::min_max_bound, scorer::antidiagonal}) {
            prune_method m = hip_tiny;
            m.scorer = how, m.sharing = sharing::per_head;
            auto const a = run(testing::prune_params_of(in.params(), m));
            m.path = probe_path::per_kv_group;
            auto const b = run(testing::prune_params_of(in.params(), m));
            for (std::int32_t h = 0; h < 6; ++h) CHECK(a.list(0, h, 0) == b.list(0, h, 0));
        }
    }
}

TEST_CASE("reference prune: chunks cut at query blocks give the lists of one call", "[reference]") {
    attend_input<bf16> in({.queries = {200}, .keys = {200}, .heads = 2});
    prune_method const m{.stages = {{32, 4, 32, 3}, {16, 2, 8, 4}}, .stage_count = 2, .window = {16, 24}};
    auto const p = testing::prune_params_of(in.params(), m);
    auto const whole = run(p);
    for (std::int32_t const cut : {32, 96, 192}) {
        std::int32_t block = 0;
        for (std::int32_t const part : {0, 1}) {
            std::int32_t const first = part == 0 ? 0 : cut, rows = part == 0 ? cut : 200 - cut;
            auto chunk = p;
            chunk.queries.data += p.queries.offset(0, first), chunk.queries.extent[1] = rows;
            chunk.mask = causal{first};
            auto const r = run(chunk);
            for (std::int32_t i = 0; i < ceil_div(rows, 16); ++i, ++block)
                CHECK(r.list(0, 0, i) == whole.list(0, 0, block));
        }
    }
}

TEST_CASE("reference prune: layouts, ragged batches and threads give the same lists", "[reference]") {
    input_shape const base{.queries = {33, 33, 33}, .keys = {300, 47, 210}, .heads = 4, .kv_heads = 2};
    attend_input<bf16> plain(base);
    auto const expected = run(testing::prune_params_of(plain.params(), hip_tiny));
    for (auto const layout : {kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (bool const head_major : {false, true}) {
            input_shape shape = base;
            shape.layout = layout, shape.head_major = head_major, shape.ragged_queries = head_major,
            shape.page_size = 24;
            attend_input<bf16> in(shape);
            auto const p = testing::prune_params_of(in.params(), hip_tiny);
            auto const r = run(p, 2);
            for (std::int32_t b = 0; b < 3; ++b)
                for (std::int32_t m = 0; m < query_blocks_of(33, 16); ++m)
                    CHECK(r.list(b, 0, m) == expected.list(b, 0, m));
            CHECK(testing::compare_selection(
                      [&] {
                          auto q = p;
                          q.selection = r.selection.view;
                          return q;
                      }(),
                      expected.trace, 0)
                      .ok);
        }
}

TEST_CASE("reference prune: lists ascend inside what is eligible, and stages nest", "[reference]") {
    attend_input<bf16> in({.queries = {50, 50}, .keys = {900, 331}, .heads = 4, .kv_heads = 2});
    prune_method const m{
        .stages = {{32, 4, 64, 5}, {32, 2, 32, 6}, {16, 1, 8, 9}}, .stage_count = 3, .window = {32, 100}};
    auto const r = run(testing::prune_params_of(in.params(), m));
    int wrong = 0;
    for (std::int32_t b = 0; b < 2; ++b) {
        request_view const view{b, 0, 50, b == 0 ? 900 : 331, b == 0 ? 850 : 281};
        for (std::int32_t stage = 0; stage < 3; ++stage)
            for (std::int32_t block = 0; block < r.trace.query_blocks[stage]; ++block) {
                auto const& list = r.trace.at(stage, b, 0, block);
                wrong += !std::is_sorted(list.left.begin(), list.left.end());
                wrong +=
                    std::adjacent_find(list.kept.begin(), list.kept.end(), std::greater_equal<>()) != list.kept.end();
                wrong += list.kept.size() != std::min(list.left.size(), std::size_t(m.stages[stage].keep));
                for (std::int32_t const left : list.kept) {
                    wrong += left < 32 || left >= list.eligible_end || (left - 32) % m.stages[stage].chunk != 0;
                    if (stage == 0) continue;
                    auto const around =
                        coarser_block(view, m.stages[stage].query_block, m.stages[stage - 1].query_block, block);
                    auto const& before = r.trace.at(stage - 1, b, 0, around).kept;
                    std::int32_t const parent =
                        (left - 32) / m.stages[stage - 1].chunk * m.stages[stage - 1].chunk + 32;
                    wrong += std::count(before.begin(), before.end(), parent) != 1;
                }
            }
    }
    CHECK(wrong == 0);
}

TEST_CASE("reference prune: lookahead admits what leaves the window soon", "[reference]") {
    attend_input<bf16> in({.queries = {1}, .keys = {200}});
    prune_method m = hip_tiny;
    m.stages[0].keep = m.stages[1].keep = 100;
    auto p = testing::prune_params_of(in.params(), m);
    CHECK(run(p).list(0, 0, 0) == range(2, 17));  // [16, 136)
    p.lookahead = 16;
    CHECK(run(p).list(0, 0, 0) == range(2, 19));  // [16, 152)
    p.lookahead = 1000;                           // never beyond the last row
    CHECK(run(p).list(0, 0, 0) == range(2, 25));
}

TEST_CASE("reference prune: every list of the plan is written, empty ones with count 0", "[reference]") {
    attend_input<bf16> in(
        {.queries = {40, 0, 3}, .keys = {90, 90, 2}, .layout = kv_layout::ragged, .ragged_queries = true});
    auto const r = run(testing::prune_params_of(in.params(), hip_tiny));
    for (std::int32_t const count : r.selection.counts) CHECK(count >= 0);
    CHECK(r.list(1, 0, 0).empty());
    CHECK(r.list(2, 0, 0).empty());
    SECTION("rows before position 0 are ignored") {
        attend_input<bf16> early({.queries = {300}, .keys = {200}});
        auto const all = run(testing::prune_params_of(early.params(), hip_tiny));
        // 200 rows at positions 0 .. 199 are 13 blocks; what else there may be stays empty.
        for (std::int32_t m = 13; m < query_blocks_of(300, 16); ++m) CHECK(all.list(0, 0, m).empty());
        CHECK(all.list(0, 0, 12).size() == 8);
    }
}

TEST_CASE("reference prune: bad pages read as zeros", "[reference]") {
    attend_input<bf16> in({.queries = {1}, .keys = {200}, .layout = kv_layout::page_list, .page_size = 8});
    for (int page = 0; page < 25; ++page) in.pages()[page] = page % 2 ? -5 : 1000;
    auto const r = run(testing::prune_params_of(in.params(), hip_tiny));
    CHECK(r.list(0, 0, 0) == range(2, 10));  // all tie at 0
}

TEST_CASE("reference prune: the hip_3k preset at a realistic length", "[reference]") {
    attend_input<bf16> in({.queries = {64}, .keys = {8192}, .heads = 4, .kv_heads = 2});
    auto const p = testing::prune_params_of(in.params(), hip_3k);
    auto const r = run(p);
    CHECK(r.trace.at(0, 0, 0, 0).eligible_end == 7168);
    CHECK(r.trace.at(0, 0, 0, 0).kept.size() == 27);  // all of (7168 - 256) / 256: stage 1 keeps 128
    CHECK(r.trace.at(1, 0, 0, 0).left.size() == 216);
    CHECK(r.trace.at(1, 0, 0, 0).kept.size() == 216);
    CHECK(r.trace.at(2, 0, 0, 0).left.size() == 864);
    CHECK(r.trace.at(2, 0, 0, 0).score.size() == 864);
    auto const ids = r.list(0, 0, 0);
    CHECK(ids.size() == 256);
    CHECK(ids.front() >= 32);
    CHECK(ids.back() < 896);
}

namespace {

// Product of row 0 of head 0 at position `row`, and a key at position `at`, turned one by one.
double turned_product(attend_input<bf16>& in, rope const& rotation, std::int32_t key, double row, double at) {
    std::vector<float> q, k;
    for (std::int32_t c = 0; c < 64; ++c) {
        q.push_back(to_float(in.query(0, 0, 0, c)));
        k.push_back(to_float(in.key(0, key, 0, c)));
    }
    auto const frequency = reference::frequencies_of(rotation, 64);
    auto const a = reference::turned_to(q.data(), 64, rotation, frequency, row);
    auto const b = reference::turned_to(k.data(), 64, rotation, frequency, at);
    double sum = 0;
    for (std::size_t c = 0; c < 64; ++c) sum += a[c] * b[c];
    return sum;
}

}  // namespace

TEST_CASE("reference prune: scans over keys without rotary embedding, probes by the letter", "[reference]") {
    // 100 keys, a window of 40, chunks of 16 behind 16 sinks: [16, 32), [32, 48), [48, 60).
    attend_input<bf16> in({.queries = {1}, .keys = {100}});
    rope const rotation{.theta = 100};
    prune_method const m{.stages = {{1, 1, 16, 2}}, .stage_count = 1, .window = {16, 40}};
    double const reach = 40 - 16, row = 99;
    for (auto const scan : {scan_style::relative, scan_style::chunk_indexed}) {
        auto p = testing::prune_params_of(in.params(), m);
        p.rotation = rotation, p.scan = scan;
        selection_storage const storage(p.method, p.shape());
        p.selection = storage.view;
        prune_trace trace;
        REQUIRE(reference::prune(p, &trace, {.threads = 1}, {false, false, false}).ok());
        auto const& list = trace.at(0, 0, 0, 0);
        REQUIRE(list.score.size() == 3);
        for (std::int32_t c = 0; c < 3; ++c) {
            // InfiniteHiP's positions: rows at reach + 1, left probes at 0 and right ones at 1; or rows at
            // min(position, chunks + reach) and probes at the chunk's index.
            auto const probe = [&](std::int32_t key, std::int32_t side) {
                return scan == scan_style::relative ? turned_product(in, rotation, key, reach + 1, side)
                                                    : turned_product(in, rotation, key, std::fmin(row, 3 + reach), c);
            };
            std::int32_t left = 16 + 16 * c, right = std::min(left + 16, 60);
            double best = -infinity;
            for (int size = 16; size >= 1 && left < right; size /= 2) {
                std::int32_t const centre = (left + right) / 2;
                double const a = probe((left + centre) / 2, 0), b = probe((centre + right) / 2, 1);
                best = std::max({best, a, b});
                (a > b ? right : left) = centre;
            }
            CHECK(std::fabs(list.score[static_cast<std::size_t>(c)] - best) < 1e-4);
        }
    }
}

TEST_CASE("reference prune: where a scan's rows and reach are", "[reference]") {
    prune_method m = hip_3k;
    CHECK(scan_reach(m) == 768);
    m.window.recent = 100;
    CHECK(scan_reach(m) == 0);
    CHECK(scan_row_position(50, 100, 768) == 50);
    CHECK(scan_row_position(3'000'000, 11714, 768) == 12482);
    CHECK(scan_row_position(2'000'000'000, 2, 2'147'483'647) == 2'000'000'000);
}

TEST_CASE("reference prune: fp8 keys give the lists of what they stand for", "[reference]") {
    // Scales are powers of two, so bf16 holds every product exactly. KV heads differ by a factor of 8: lists that they
    // share are others without the scales.
    for (auto const how : {scorer::tree_probe, scorer::centre_probe})
        for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
            for (std::int32_t const scales : {0, 1, 2}) {
                INFO("scorer " << static_cast<int>(how) << ", sharing " << static_cast<int>(share) << ", scales "
                               << scales);
                attend_input<bf16> in({.queries = {40, 40},
                                       .keys = {500, 333},
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .layout = kv_layout::block_table,
                                       .head_major = true});
                testing::quantised_cache<bf16> const cache(in.params(), scales, 0.25f, 1, 8);
                prune_method method = hip_tiny;
                method.scorer = how, method.sharing = share;
                auto const wide = testing::prune_params_of(in.params(), method);
                prune_params<bf16, fp8_e4m3> p;
                p.queries = wide.queries, p.kv = wide.kv, p.method = method;
                p.keys = wide.keys.over(cache.keys.data());
                auto const lists_of = [](auto& call) {
                    selection_storage const s(call.method, call.shape());
                    call.selection = s.view;
                    REQUIRE(reference::prune(call).ok());
                    return std::pair{s.blocks, s.counts};
                };
                auto const unscaled = lists_of(p);
                p.scales = cache.scales();
                auto const found = lists_of(p);
                for (std::int32_t b = 0; b < 2; ++b)
                    for (std::int32_t j = 0; j < in.shape().keys[static_cast<std::size_t>(b)]; ++j)
                        for (std::int32_t h = 0; h < 2; ++h)
                            for (std::int32_t c = 0; c < 64; ++c) {
                                bf16& key = in.key(b, j, h, c);
                                key =
                                    cache.standing_for(from_float<fp8_e4m3>(to_float(key)), cache.key_scale.data(), h);
                            }
                auto same = wide;
                CHECK(found == lists_of(same));
                bool const matters = scales == 2 && share == sharing::per_batch;
                CHECK((found == unscaled) == !matters);
            }
}
