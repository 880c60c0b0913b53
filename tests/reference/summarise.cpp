// The oracle of summaries: by hand, and in steps as at once.
#include "winnow/reference/summarise.hpp"

#include <cstring>

#include "support/catch.hpp"
#include "support/random_input.hpp"

using namespace winnow;

namespace {

struct held {
    std::vector<uint64_t> memory;  // 8-byte elements, one more for alignment to 16
    bf16* data;
    explicit held(std::size_t elements) : memory(elements / 4 + 4, 0x5a5a5a5a5a5a5a5aull) {
        data = reinterpret_cast<bf16*>(memory.data() + reinterpret_cast<std::uintptr_t>(memory.data()) / 8 % 2);
    }
};

}  // namespace

TEST_CASE("reference summarise: mean, largest and smallest by hand", "[reference]") {
    testing::attend_input<bf16> in({.queries = {1}, .keys = {30}, .values = testing::draw::integers});
    prune_method m{.stages = {{1, 1, 8, 1}}, .stage_count = 1, .window = {16, 0}};
    for (std::int32_t j = 16; j < 24; ++j) in.key(0, j, 0, 5) = from_float<bf16>(static_cast<float>(j - 18));
    for (auto const how : {scorer::mean_key, scorer::min_max_bound}) {
        m.scorer = how;
        held memory(summary_elements(m, 1, 64, 1, 30));
        auto const a = in.params();
        summarise_params<bf16> p{.keys = a.keys, .kv = a.kv, .batch = 1, .method = m};
        p.summary = {memory.data, 1, 30, nullptr};
        REQUIRE(reference::summarise(p).ok());
        if (how == scorer::mean_key) {
            CHECK(to_float(memory.data[5]) == 1.5f);  // -2 .. 5
        } else {
            CHECK(to_float(memory.data[5]) == 5.0f);
            CHECK(to_float(memory.data[64 + 5]) == -2.0f);
        }
    }
}

TEST_CASE("reference summarise: what grows step by step equals what is made at once", "[reference]") {
    testing::attend_input<bf16> in({.queries = {1, 1}, .keys = {300, 170}, .heads = 2, .kv_heads = 2});
    for (auto const how : {scorer::mean_key, scorer::min_max_bound}) {
        prune_method m = hip_tiny;
        m.scorer = how;
        std::size_t const elements = summary_elements(m, 2, 64, 2, 300);
        held whole(elements), grown(elements);
        auto const a = in.params();
        summarise_params<bf16> p{.keys = a.keys, .kv = a.kv, .batch = 2, .method = m};
        p.summary = {whole.data, 2, 300, nullptr};
        REQUIRE(reference::summarise(p).ok());
        std::int32_t length[] = {0, 0}, known[] = {0, 0};
        p.summary.data = grown.data, p.kv.length = length, p.known = known;
        for (bool more = true; more;) {
            more = false;
            for (int b = 0; b < 2; ++b) {
                std::int32_t const end = b == 0 ? 300 : 170;
                known[b] = length[b];
                length[b] = smaller(length[b] + 23, end);
                more = more || length[b] < end;
            }
            REQUIRE(reference::summarise(p).ok());
        }
        CHECK(std::memcmp(whole.data, grown.data, elements * 2) == 0);
    }
}
