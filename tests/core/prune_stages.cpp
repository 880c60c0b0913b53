// Stage arithmetic: what is eligible, which chunks there are, how query blocks nest, which stages are due.
#include "winnow/core/prune_stages.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("prune_stages: eligible keys are those that the last row's window hides", "[core]") {
    int wrong = 0;
    for (std::int32_t keys = 0; keys <= 14; ++keys)
        for (std::int32_t last = -3; last <= 16; ++last)
            for (std::int32_t const recent : {0, 1, 3, 9, 40, whole_context}) {
                std::int32_t hidden = 0;
                for (std::int32_t j = 0; j < keys; ++j) hidden += j <= last && std::int64_t{j} + recent <= last;
                wrong += eligible_end(last, keys, {0, recent}, 0) != hidden;
            }
    CHECK(wrong == 0);
}

TEST_CASE("prune_stages: lookahead admits all that leaves the window meanwhile, and no unseen key", "[core]") {
    int wrong = 0;
    for (std::int32_t keys = 1; keys <= 30; ++keys)
        for (std::int32_t const recent : {1, 2, 5, 12})
            for (std::int32_t lookahead = 0; lookahead <= recent; ++lookahead) {
                std::int32_t const end = eligible_end(keys - 1, keys, {0, recent}, lookahead);
                wrong += end > keys;
                for (std::int32_t step = 0; step <= lookahead; ++step) {  // a later token's hidden keys
                    std::int32_t const hidden = eligible_end(keys - 1 + step, keys + step, {0, recent}, 0);
                    wrong += hidden > end;
                }
            }
    CHECK(wrong == 0);
}

TEST_CASE("prune_stages: lookahead admits nothing that stays in the window", "[core]") {
    int wrong = 0;
    for (std::int32_t keys = 1; keys <= 30; ++keys)
        for (std::int32_t const recent : {1, 2, 5, 12, 40, whole_context})
            for (std::int32_t lookahead = 0; lookahead <= smaller(recent, 20); ++lookahead) {
                std::int32_t const hidden = eligible_end(keys - 1 + lookahead, keys + lookahead, {0, recent}, 0);
                wrong += eligible_end(keys - 1, keys, {0, recent}, lookahead) != smaller(hidden, keys);
            }
    CHECK(wrong == 0);
}

TEST_CASE("prune_stages: lookahead admits nothing behind the last row", "[core]") {
    int wrong = 0;
    for (std::int32_t keys = 1; keys <= 20; ++keys)
        for (std::int32_t last = 0; last <= keys + 3; ++last)
            for (std::int32_t const recent : {1, 4, 9, 40, whole_context})
                for (std::int32_t const lookahead : {0, 1, 5, 16, 100})
                    wrong += eligible_end(last, keys, {0, recent}, lookahead) > smaller(last + 1, keys);
    CHECK(wrong == 0);
}

TEST_CASE("prune_stages: eligible_end does not overflow", "[core]") {
    std::int32_t const most = std::numeric_limits<std::int32_t>::max(), keys = most - (1 << 20);
    CHECK(eligible_end(keys - 1, keys, {0, 1024}, most) == keys);
    CHECK(eligible_end(keys - 1, keys, {0, most}, most) == keys);
    CHECK(eligible_end(-1, keys, {0, most}, most) == 0);
}

TEST_CASE("prune_stages: first-stage chunks start at the end of the sinks", "[core]") {
    CHECK(first_candidates(0, 16, 32) == 0);
    CHECK(first_candidates(16, 16, 32) == 0);
    CHECK(first_candidates(17, 16, 32) == 1);
    CHECK(first_candidates(48, 16, 32) == 1);
    CHECK(first_candidates(49, 16, 32) == 2);
}

TEST_CASE("prune_stages: spans of query blocks partition the rows at positions >= 0", "[core]") {
    int wrong = 0;
    for (std::int32_t const block : {1, 4, 16})
        for (std::int32_t first = -20; first <= 40; ++first)
            for (std::int32_t rows = 0; rows <= 40; ++rows) {
                request_view const r{0, 0, rows, 100, first};
                std::int32_t next = std::max(first, 0);
                for (std::int32_t m = 0; m < query_blocks_of(rows, block); ++m) {
                    query_span const span = span_of(r, block, m);
                    if (span.last < span.first) continue;
                    wrong += span.first != next;
                    wrong +=
                        query_block_of(span.first, first, block) != m || query_block_of(span.last, first, block) != m;
                    next = span.last + 1;
                }
                wrong += next != std::max(first + rows, std::max(first, 0));
            }
    CHECK(wrong == 0);
}

TEST_CASE("prune_stages: a fine block lies in the coarse block that coarser_block names", "[core]") {
    int wrong = 0;
    for (std::int32_t const fine : {1, 8, 16})
        for (std::int32_t const ratio : {1, 2, 4})
            for (std::int32_t first = -5; first <= 70; ++first) {
                request_view const r{0, 0, 90, 200, first};
                for (std::int32_t m = 0; m < query_blocks_of(90, fine); ++m) {
                    query_span const inner = span_of(r, fine, m);
                    if (inner.last < inner.first) continue;
                    query_span const outer = span_of(r, fine * ratio, coarser_block(r, fine, fine * ratio, m));
                    wrong += inner.first < outer.first || inner.last > outer.last;
                }
            }
    CHECK(wrong == 0);
}

TEST_CASE("prune_stages: which stages are due", "[core]") {
    std::int32_t const intervals[] = {16, 8, 4};
    CHECK(first_stage_due(0, intervals, 3) == 0);
    CHECK(first_stage_due(-5, intervals, 3) == 0);
    for (std::int32_t step = 1; step <= 64; ++step) {
        std::int32_t const expected = step % 16 == 0 ? 0 : step % 8 == 0 ? 1 : step % 4 == 0 ? 2 : 3;
        CHECK(first_stage_due(step, intervals, 3) == expected);
    }
    std::int32_t const every_step[] = {1};
    CHECK(first_stage_due(7, every_step, 1) == 0);
}

TEST_CASE("prune_stages: presets", "[core]") {
    CHECK(hip_3k.budget() == 2048);
    CHECK(hip_3k_early_layer.budget() == 4096);
    CHECK(hip_5k.budget() == 4096);
    CHECK(hip_v1.budget() == 512);
    CHECK(hip_tiny.budget() == 64);
    // Tokens that enter each later stage (InfiniteHiP, appendix F).
    CHECK(hip_3k.stages[0].keep * hip_3k.stages[0].chunk == 32768);
    CHECK(hip_3k.stages[1].keep * hip_3k.stages[1].chunk == 8192);
    CHECK(hip_5k.stages[0].keep * hip_5k.stages[0].chunk == 32768);
    CHECK(hip_5k.stages[1].keep * hip_5k.stages[1].chunk == 16384);
}
