// Streaming positions: ranks are those of a plain count over the keys that a row sees, for any list, sinks and window.
#include "winnow/core/streaming.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/core/mask.hpp"

using namespace winnow;

namespace {

// Keys of a context whose rank, or the number of keys before the window, is not the plain count.
int wrong_ranks(std::vector<std::int32_t> const& list, std::int32_t block_size, std::int32_t keys,
                attention_window window, std::int32_t look) {
    auto const count = static_cast<std::int32_t>(list.size());
    visible_ranges const seen = ranges_of(look, keys, window);
    list_numbers const numbers = list_numbers_of(list.data(), count, block_size, window.sinks);
    int wrong = 0;
    std::int32_t rank = 0;
    for (std::int32_t j = 0; j < keys; ++j) {
        std::int32_t entry = -1;
        for (std::int32_t i = 0; i < count; ++i)
            if (list[static_cast<std::size_t>(i)] == j / block_size) entry = i;
        if (seen.sees(key_part::sink, j)) {
            wrong += rank != j;
            ++rank;
        } else if (entry >= 0 && seen.sees(key_part::list, j)) {
            wrong += listed_rank(numbers, block_size, window.sinks, entry, j % block_size) != rank;
            ++rank;
        }
    }
    return wrong + (keys_before_window(numbers, list.data(), count, block_size, window.sinks, seen.list_end) != rank);
}

}  // namespace

TEST_CASE("streaming: ranks are plain counts", "[core]") {
    testing::random_source random(3);
    int wrong = 0;
    for (int trial = 0; trial < 400; ++trial) {
        std::int32_t const keys = random.between(0, 90), block_size = 8 << random.below(3);
        std::vector<std::int32_t> list;
        if (random.uniform() < 0.2) list.push_back(-1);  // padding in front
        double const density = random.uniform();
        for (std::int32_t b = 0; b < ceil_div(keys, block_size); ++b)
            if (random.uniform() < density) list.push_back(b);
        if (random.uniform() < 0.2) list.push_back(0x7ffffff), list.push_back(std::numeric_limits<int>::max());
        for (std::int32_t const sinks : {0, 1, 8, 13, 200})
            for (std::int32_t const recent : {0, 1, 9, 40, whole_context})
                for (std::int32_t look = 0; look < keys + 3; ++look)
                    wrong += wrong_ranks(list, block_size, keys, {sinks, recent}, look);
    }
    CHECK(wrong == 0);
}

TEST_CASE("streaming: a row's position does not overflow", "[core]") {
    CHECK(streaming_row_position(whole_context, 0) == 0);
    CHECK(streaming_row_position(1024, 256 + 2048) == 3327);
    CHECK(streaming_row_position(0, 1) == 0);  // the nearest key stands where the row does
    std::int32_t const last = std::numeric_limits<std::int32_t>::max() - 1;
    CHECK(streaming_row_position(last, 1) == last);
}
