// attend over keys that are cached without rotary embedding: streaming positions against the oracle, at any position.
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"

using namespace winnow;
using testing::attend_input;
using testing::attend_sample;
using testing::input_shape;

namespace {

using input = attend_input<bf16>;
using params = attend_params<bf16>;

rope const neox{.theta = 1e4f};

// Rows per request for each class of tile.
std::int32_t const row_counts[] = {1, 30, 150};

// Samples as attention's, with a rotation instead of what it excludes.
void check_rotated(std::int32_t head_dim, std::int32_t count, bool small) {
    std::vector<int> met(3, 0);
    for (std::int32_t i = 0; i < count; ++i) {
        attend_sample s = testing::draw_sample(head_dim, small ? 17 : 11, i, small);
        if (s.mask.kind == mask_kind::full) s.mask = causal{s.mask.offset};
        rope rotation{.theta = i % 3 == 0 ? 5e5f : 1e4f};
        if (i % 4 == 1) rotation.rotary_dim = head_dim / 2;
        if (i % 4 == 2) rotation.rotary_dim = 48;
        if (i % 5 == 2) rotation.pairing = rope_pairing::adjacent;
        INFO("sample " << i << ", " << describe(s) << ", rotary_dim " << rotation.rotary_dim << ", pairing "
                       << static_cast<int>(rotation.pairing));
        auto in = s.input<bf16>();
        auto const plan = testing::check_attend(in, [&](params& p) {
            s.set(p);
            p.rotation = rotation;
        });
        CHECK(plan.schedule.path == attend_path::sm80);
        ++met[static_cast<std::size_t>(plan.schedule.rows)];
    }
    CHECK(met[0] > 0);
    CHECK(met[1] > 0);
    CHECK((met[2] > 0 || head_dim == 256));
}

}  // namespace

TEST_CASE("attend rotated: samples", "[gpu]") {
    for (std::int32_t const head_dim : {64, 128, 256}) check_rotated(head_dim, 48, false);
}

TEST_CASE("attend rotated: small samples", "[gpu][small]") {
    for (std::int32_t const head_dim : {64, 128, 256}) check_rotated(head_dim, 8, true);
}

TEST_CASE("attend rotated: frequencies from a table", "[gpu][small]") {
    input in({.queries = {40}, .keys = {90}, .heads = 2, .head_dim = 64});
    std::size_t const at = in.memory().take<float>(32);
    for (int i = 0; i < 32; ++i) in.memory().at<float>(at)[i] = 1.0f / static_cast<float>(1 + i * i);
    testing::device_copy<bf16> memory(in);
    auto const from = [&](params p, char* base) {
        p.rotation = {.inverse_frequency = reinterpret_cast<float const*>(base + at)};
        p.window = {.sinks = 8, .recent = 20};
        return p;
    };
    testing::attend_expectation e;
    auto const host = from(in.params(), in.memory().base());
    REQUIRE(reference::attend(host, &e.exact, testing::all_threads()).ok());
    REQUIRE(reference::attend_rounded(host, e.rounded, testing::all_threads()).ok());
    testing::run_on_device(from(memory.params(), memory.base()));
    auto bytes = memory.download();
    testing::check_close<bf16>(in.output(bytes.data()), in.lse(bytes.data()), e);
}

TEST_CASE("attend rotated: every boundary of window, list, tile and step", "[gpu]") {
    for (std::int32_t const rows : row_counts)
        for (std::int32_t const recent : {0, 1, 31, 64})
            for (std::int32_t const sinks : {0, 5, 16}) {
                input in({.queries = {rows}, .keys = {333}, .heads = 4, .kv_heads = 2});
                in.add_selection(32, 48, sharing::per_kv_group, 11, 0.6);
                INFO(rows << " rows, recent " << recent << ", sinks " << sinks);
                testing::check_attend(in, [&](params& p) {
                    p.window = {.sinks = sinks, .recent = recent};
                    p.rotation = neox;
                });
            }
}

TEST_CASE("attend rotated: with every key visible it is dense attention of rotated keys", "[gpu][small]") {
    for (std::int32_t const rows : {1, 30, 70}) {
        input in({.queries = {rows}, .keys = {130}, .heads = 2, .head_dim = 64});
        in.add_selection(8, 16, sharing::per_batch, 17, 1.0);
        auto const dense = testing::expect_attend(in, [](params& p) {
            p.selection = {};
            p.rotation = neox;
        });
        for (std::int32_t const sinks : {0, 8, 12}) {
            INFO(rows << " rows, " << sinks << " sinks");
            auto const found = testing::run_attend(in, [&](params& p) {
                p.window = {.sinks = sinks, .recent = 21};
                p.rotation = neox;
            });
            testing::check_close<bf16>(found.output, found.lse, dense);
        }
    }
}

TEST_CASE("attend rotated: chunks of a prompt give the bits of one call", "[gpu]") {
    input in({.queries = {150}, .keys = {150}, .heads = 4, .kv_heads = 2, .head_dim = 128});
    in.add_selection(16, 32, sharing::per_kv_group, 10, 0.5);
    auto const set = [](params& p) {
        p.window = {.sinks = 16, .recent = 40};
        p.rotation = neox;
        p.range = row_range::all;
    };
    auto const whole = testing::run_attend(in, set);
    auto const expected = testing::expect_attend(in, set);
    // Rows [first, first + count) alone: the same keys, lists of the blocks they touch.
    for (auto const& [first, count] : {std::pair{0, 64}, std::pair{64, 86}, std::pair{96, 13}}) {
        auto const part = testing::run_attend(in, [&](params& p) {
            set(p);
            p.mask = causal{first};
            for (auto* view : {&p.output}) view->data += first * view->stride[1], view->extent[1] = count;
            p.queries.data += first * p.queries.stride[1], p.queries.extent[1] = count;
            p.lse.values.data += first * p.lse.values.stride[1], p.lse.values.extent[1] = count;
            std::int32_t const block = first / 32;
            p.selection.blocks.data += block * p.selection.blocks.stride[2];
            p.selection.counts.data += block * p.selection.counts.stride[2];
            p.selection.blocks.extent[2] -= block, p.selection.counts.extent[2] -= block;
        });
        auto sliced = expected;
        auto const width = std::size_t{4} * 128, from = static_cast<std::size_t>(first) * width,
                   to = static_cast<std::size_t>(first + count) * width;
        for (auto* e : {&sliced.exact.output, &sliced.rounded.output})
            *e = {e->begin() + static_cast<long>(from), e->begin() + static_cast<long>(to)};
        std::vector<double> const found(part.output.begin() + static_cast<long>(from),
                                        part.output.begin() + static_cast<long>(to));
        auto const verdict = testing::compare<bf16>(found, sliced.exact.output, sliced.rounded.output);
        INFO(first << " + " << count << ": " << verdict.message);
        CHECK(verdict.ok);
    }
    CHECK(whole.plan.schedule.path == attend_path::sm80);
}

TEST_CASE("attend rotated: positions up to three million", "[gpu]") {
    // One page holds every key but a few: the context is long, its contents small.
    std::int32_t const keys = 3'000'000, page = 16;
    for (std::int32_t const rows : {1, 20, 140}) {
        input in({.queries = {rows},
                  .keys = {256},
                  .heads = 2,
                  .head_dim = 128,
                  .layout = kv_layout::block_table,
                  .page_size = page});
        std::size_t const table = in.memory().take<std::int32_t>(keys / page);
        std::size_t const length = in.memory().take<std::int32_t>(1);
        std::int32_t* const pages = in.memory().at<std::int32_t>(table);
        for (std::int32_t i = 0; i < keys / page; ++i) pages[i] = in.pages()[i % 16];
        *in.memory().at<std::int32_t>(length) = keys;
        std::size_t const list = in.memory().take<std::int32_t>(8 * 4), counts = in.memory().take<std::int32_t>(4);
        std::int32_t const ids[] = {3, 17, 4000, 70001, 123456, 180000, 187400, 187499};
        for (int m = 0; m < 4; ++m) {
            in.memory().at<std::int32_t>(counts)[m] = 8 - m;
            for (int i = 0; i < 8; ++i) in.memory().at<std::int32_t>(list)[m * 8 + i] = ids[i];
        }
        auto const set = [&](params p, char* base) {
            p.kv.pages = reinterpret_cast<std::int32_t const*>(base + table);
            p.kv.table_stride = keys / page;
            p.kv.length = reinterpret_cast<std::int32_t const*>(base + length);
            p.kv.max_length = keys;
            p.selection.blocks = packed_view(reinterpret_cast<std::int32_t const*>(base + list), {1, 1, 4, 8});
            p.selection.counts = packed_view(reinterpret_cast<std::int32_t const*>(base + counts), {1, 1, 4});
            p.selection.block_size = 16, p.selection.query_block = 64;
            p.window = {.sinks = 32, .recent = 100};
            p.rotation = neox;
            return p;
        };
        testing::device_copy<bf16> memory(in);
        testing::attend_expectation e;
        auto const host = set(in.params(), in.memory().base());
        REQUIRE(reference::attend(host, &e.exact, testing::all_threads()).ok());
        REQUIRE(reference::attend_rounded(host, e.rounded, testing::all_threads()).ok());
        testing::run_on_device(set(memory.params(), memory.base()));
        auto bytes = memory.download();
        INFO(rows << " rows");
        testing::check_close<bf16>(in.output(bytes.data()), in.lse(bytes.data()), e);
    }
}
