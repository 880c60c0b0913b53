// summarise: what it refuses, and how many chunks a launch may complete.
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/op/summarise.hpp"

using namespace winnow;

namespace {

struct valid_call {
    testing::attend_input<bf16> in{{.queries = {1, 1}, .keys = {300, 200}, .heads = 2, .kv_heads = 2}};
    std::vector<bf16> memory;
    summarise_params<bf16> p;
    valid_call() {
        auto const a = in.params();
        p.keys = a.keys, p.kv = a.kv, p.batch = 2, p.method = hip_tiny, p.method.scorer = scorer::mean_key;
        memory.resize(summary_elements(p.method, 2, 64, 2, 300) + 8);
        auto const beyond = reinterpret_cast<std::uintptr_t>(memory.data()) % 16;
        p.summary = {memory.data() + (beyond == 0 ? 0 : (16 - beyond) / 2), 2, 300, nullptr};
    }
};

template <class Set>
std::string refused(Set const& set) {
    valid_call call;
    set(call.p);
    status const s = plan(call.p, device_info{}).why;
    return s.ok() ? "" : s.field;
}

}  // namespace

TEST_CASE("check summarise: names what is wrong", "[op]") {
    CHECK(refused([](auto&) {}).empty());
    CHECK(refused([](auto& p) { p.batch = -1; }) == "batch");
    CHECK(refused([](auto& p) { p.method.scorer = scorer::tree_probe; }) == "summary.data");
    CHECK(refused([](auto& p) { p.summary.data = nullptr; }) == "summary.data");
    CHECK(refused([](auto& p) { ++p.summary.data; }) == "summary.data");
    CHECK(refused([](auto& p) { p.summary.rows = 1; }) == "summary.rows");
    CHECK(refused([](auto& p) { p.summary.max_keys = 299; }) == "summary.max_keys");
    CHECK(refused([](auto& p) { p.max_new = -1; }) == "max_new");
    CHECK(refused([](auto& p) { p.method.stage_count = 0; }) == "method.stage_count");
    valid_call call;
    device_info old;
    old.compute_capability = 75;
    CHECK(plan(call.p, old).why.code == errc::unsupported);
}

TEST_CASE("check prune: summaries are refused where the scorer reads none or they are too small", "[op]") {
    valid_call call;
    auto const a = call.in.params();
    auto p = testing::prune_params_of(a, call.p.method);
    std::vector<std::int32_t> blocks(1000), counts(1000);
    p.selection = packed_selection(blocks.data(), counts.data(), p.method, p.shape());
    p.summary = call.p.summary;
    CHECK(check(p).ok());
    p.summary.max_keys = 10;
    CHECK(std::string(check(p).field) == "summary.max_keys");
    p.summary.max_keys = 300, p.method.scorer = scorer::centre_probe;
    CHECK(std::string(check(p).field) == "summary.data");
}

TEST_CASE("summarise: a launch reaches every chunk that new keys can complete", "[op]") {
    valid_call call;
    for (std::int32_t const bound : {1, 7, 8, 31, 32, 33, 100}) {
        call.p.max_new = bound;
        for (std::int32_t stage = 0; stage < 2; ++stage)
            for (std::int32_t known = 0; known + bound <= 300; ++known) {
                std::int32_t const chunk = call.p.method.stages[stage].chunk;
                CHECK(whole_chunks(known + bound, 16, chunk) - whole_chunks(known, 16, chunk) <=
                      call.p.new_chunks(stage));
            }
    }
}
