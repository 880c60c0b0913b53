// Decode: a request's bits alone, in random batches and at every page size; ragged batches; several queries a request.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"

using namespace winnow;
using testing::attend_input;
using testing::device_memory;

namespace {

using rows = std::pair<std::vector<double>, std::vector<double>>;  // output and lse of one request

// Runs requests `who` of a paged input as one batch, in that order; -1 is a padded row. Results by place in the batch.
std::vector<rows> run_batch(attend_input<bf16>& in, std::vector<std::int32_t> const& who, attention_window window) {
    auto const& shape = in.shape();
    auto const batch = static_cast<std::int64_t>(who.size()), tokens = std::int64_t{shape.queries[0]};
    std::int64_t const heads = shape.heads, width = shape.head_dim;
    auto host = in.params();
    std::vector<std::int32_t> lengths, table;
    std::vector<bf16> queries;
    for (std::int32_t const b : who) {
        lengths.push_back(b < 0 ? 0 : in.key_lengths()[b]);
        for (std::int64_t e = 0; e < host.kv.table_stride; ++e)
            table.push_back(b < 0 ? 0 : in.pages()[larger(b, 0) * host.kv.table_stride + e]);
        for (std::int32_t i = 0; i < tokens; ++i)
            for (std::int32_t h = 0; h < heads; ++h)
                for (std::int32_t c = 0; c < width; ++c) queries.push_back(in.query(larger(b, 0), i, h, c));
    }
    testing::device_copy<bf16> memory(in);
    device_memory length_memory(lengths.size() * 4), table_memory(table.size() * 4), query_memory(queries.size() * 2),
        output_memory(queries.size() * 2, 256), lse_memory(static_cast<std::size_t>(batch * tokens * heads) * 4, 256);
    length_memory.upload(lengths.data(), lengths.size() * 4);
    table_memory.upload(table.data(), table.size() * 4);
    query_memory.upload(queries.data(), queries.size() * 2);
    auto p = memory.params();
    p.queries = packed_view(query_memory.as<bf16 const>(), {batch, tokens, heads, width});
    p.output = packed_view(output_memory.as<bf16>(), {batch, tokens, heads, width});
    p.lse = natural_lse{packed_view(lse_memory.as<float>(), {batch, tokens, heads})};
    p.kv.length = length_memory.as<std::int32_t const>(), p.kv.pages = table_memory.as<std::int32_t const>();
    p.window = window;
    auto const plan = testing::run_on_device(p);
    CHECK(plan.schedule.rows == attend_rows::decode);
    CHECK(output_memory.guard_intact());
    CHECK(lse_memory.guard_intact());
    auto const output = output_memory.download<bf16>();
    auto const lse = lse_memory.download<float>();
    std::vector<rows> result;
    for (std::int64_t b = 0; b < batch; ++b) {
        rows r;
        for (std::int64_t i = b * tokens * heads * width; i < (b + 1) * tokens * heads * width; ++i)
            r.first.push_back(to_float(output[static_cast<std::size_t>(i)]));
        for (std::int64_t i = b * tokens * heads; i < (b + 1) * tokens * heads; ++i)
            r.second.push_back(lse[static_cast<std::size_t>(i)]);
        result.push_back(std::move(r));
    }
    return result;
}

// Lengths on every side of a split's end, one long request among short ones, and none.
std::vector<std::int32_t> const lengths{2900, 17, 0, 128, 129, 1, 700};

void check_batches(std::int32_t page, std::int32_t tokens, std::int32_t head_dim, attention_window window, int batches,
                   std::vector<rows>& first) {
    attend_input<bf16> in({.queries = std::vector<std::int32_t>(lengths.size(), tokens),
                           .keys = lengths,
                           .heads = 6,
                           .kv_heads = 2,
                           .head_dim = head_dim,
                           .layout = kv_layout::block_table,
                           .page_size = page,
                           .sink_logits = page == 8});
    if (page == 8) in.key_lengths()[0] -= 1;  // as 2899 keys of 2900
    auto const count = static_cast<std::int32_t>(lengths.size());
    std::vector<rows> alone;
    for (std::int32_t b = 0; b < count; ++b) alone.push_back(run_batch(in, {b}, window)[0]);
    if (page != 8) {
        if (first.empty()) first = alone;
        CHECK((alone == first));
    }
    testing::random_source random(static_cast<std::uint64_t>(page));
    int differing = 0;
    for (int i = 0; i < batches; ++i) {
        std::vector<std::int32_t> who;
        for (std::int32_t n = random.between(1, 9); n > 0; --n) who.push_back(random.between(-1, count - 1));
        auto const found = run_batch(in, who, window);
        for (std::size_t k = 0; k < who.size(); ++k) {
            if (who[k] >= 0) {
                differing += found[k] != alone[static_cast<std::size_t>(who[k])];
            } else {
                for (double const x : found[k].first) differing += x != 0;
                for (double const x : found[k].second) differing += x != -std::numeric_limits<double>::infinity();
            }
        }
    }
    CHECK(differing == 0);
}

}  // namespace

TEST_CASE("attend decode: a request's bits do not depend on its batch or on pages", "[gpu]") {
    for (std::int32_t const tokens : {1, 5}) {
        std::vector<rows> dense, sliding;
        for (std::int32_t const page : {1, 8, 16, 32, 64, 128}) {
            INFO("page " << page << ", " << tokens << " tokens");
            check_batches(page, tokens, 128, {}, 20, dense);
            check_batches(page, tokens, 64, {20, 500}, 5, sliding);
        }
    }
}

TEST_CASE("attend decode: batches, small", "[gpu][small]") {
    std::vector<rows> first;
    check_batches(16, 2, 64, {4, 300}, 2, first);
}

TEST_CASE("attend decode: one to eight queries a request, causal among them, against the oracle", "[gpu]") {
    for (std::int32_t const tokens : {1, 2, 3, 4, 8})
        for (std::int32_t const group : {1, 2})
            for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table}) {
                INFO(tokens << " tokens, group " << group << ", layout " << static_cast<int>(layout));
                attend_input<bf16> in({.queries = {tokens, tokens, tokens, tokens},
                                       .keys = {1500, tokens, 3, 260},
                                       .heads = 2 * group,
                                       .kv_heads = 2,
                                       .head_dim = 128,
                                       .layout = layout,
                                       .sink_logits = group == 2});
                in.add_selection(16, 16, sharing::per_kv_group, 30, 0.4);
                auto const plan =
                    testing::check_attend(in, [](attend_params<bf16>& p) { p.window = {.sinks = 16, .recent = 300}; });
                CHECK(plan.schedule.rows == attend_rows::decode);
            }
}

TEST_CASE("attend decode: splits of more than one round of the merge, against the oracle", "[gpu][small]") {
    for (std::int32_t const head_dim : {64, 128, 256}) {
        INFO("head_dim " << head_dim);
        attend_input<bf16> in(
            {.queries = {1, 1}, .keys = {7000, 4100}, .heads = 4, .kv_heads = 1, .head_dim = head_dim});
        // Large scores, so that rounds differ in their maxima.
        auto const plan = testing::check_attend(in, [](attend_params<bf16>& p) { p.scale = 1.0f; });
        CHECK(plan.schedule.rows == attend_rows::decode);
        CHECK(plan.schedule.splits > 28);
    }
}
