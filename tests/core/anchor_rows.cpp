// Anchors and tails of requests, against plain loops over their definitions.
#include "winnow/core/anchor_rows.hpp"

#include <cstdint>

#include "support/catch.hpp"
#include "support/random_input.hpp"

using namespace winnow;

namespace {

request_view request(std::int32_t rows, std::int32_t first_position) { return {0, 0, rows, 1 << 20, first_position}; }

// A prompt that begins at position 0: rows before its tail.
std::int32_t split_of(std::int32_t rows, std::int32_t gamma, std::int32_t tail = 128) {
    return rows_of_range(request(rows, 0), row_range::without_tail, tail, gamma).end;
}

}  // namespace

TEST_CASE("anchor rows: whole prompts split as in Delta Attention") {
    struct line {
        std::int32_t rows, gamma, split, anchors;
    };
    for (line const l : {line{128, 64, 0, 0},
                         {191, 64, 0, 0},
                         {192, 64, 64, 1},
                         {193, 64, 64, 1},
                         {1000, 64, 832, 13},
                         {1000, 16, 864, 54},
                         {4096, 64, 3968, 62},
                         {8191, 64, 8000, 125},
                         {131072, 64, 130944, 2046},
                         {131135, 64, 130944, 2046},
                         {1048576, 64, 1048448, 16382},
                         {100, 64, 0, 0},
                         {0, 64, 0, 0}}) {
        INFO(l.rows << " rows, gamma " << l.gamma);
        CHECK(split_of(l.rows, l.gamma) == l.split);
        CHECK(anchor_rows(0, l.gamma).before(l.split) == l.anchors);
    }
    CHECK(split_of(1000, 256, 256) == 512);  // its tail is gamma rows at least
    CHECK(split_of(1000, 256) == 768);
}

TEST_CASE("anchor rows: rows, groups and counts agree with a loop over positions") {
    testing::random_source random(3);
    for (int n = 0; n < 2000; ++n) {
        std::int32_t const gap = random.between(1, 1 + random.below(130)), rows = random.below(400);
        std::int32_t const first = random.between(-50, 500), tail = random.below(200);
        request_view const r = request(rows, first);
        anchor_rows const anchors(first, gap);
        INFO("gap " << gap << ", " << rows << " rows from position " << first << ", tail " << tail);
        std::int32_t cut = rows - tail;
        while (cut > 0 && (first + cut) % gap != 0) --cut;
        cut = larger(cut, 0);
        CHECK(tail_begin(r, tail, gap) == cut);
        CHECK(rows_of_range(r, row_range::tail_only, tail, gap).begin == cut);
        CHECK(rows - cut < larger(tail, 1) + gap);
        std::int32_t count = 0;
        bool right = true;
        for (std::int32_t row = 0; row < rows; ++row) {
            if (row == 0 || (first + row) % gap == 0) right = right && anchors.row(count++) == row;
            right = right && anchors.anchor_of(row) == count - 1 && anchors.before(row + 1) == count;
        }
        CHECK(right);
        CHECK(anchors.before(rows) == count);
        CHECK(count <= most_anchors(rows, gap));
    }
    CHECK(most_anchors(131072, 64) == 2049);
    CHECK(most_anchors(max_tokens, 1) == max_tokens);
    CHECK(most_anchors(max_tokens, 1 << 20) == 2048);
}

TEST_CASE("anchor rows: chunks of a prompt have the anchors of the whole") {
    for (std::int32_t const gap : {1, 3, 16, 64, 100})
        for (std::int32_t const at : {1, 40, 64, 128, 129}) {
            anchor_rows const whole(0, gap), chunk(at, gap);
            for (std::int32_t row = 0; row < 300; ++row) {
                std::int32_t const anchor = whole.row(whole.anchor_of(at + row));
                CHECK(at + chunk.row(chunk.anchor_of(row)) == larger(anchor, at));
            }
        }
}
