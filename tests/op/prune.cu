// prune against the oracle: equal lists on integers for every scorer, path, sharing and preset, margins otherwise.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_prune.hpp"

using namespace winnow;
using testing::attend_input;
using testing::check_prune;
using testing::draw;
using testing::list_of;
using testing::run_prune;

namespace {

constexpr scorer scorers[] = {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe,
                              scorer::mean_key,   scorer::min_max_bound,    scorer::antidiagonal};
constexpr sharing sharings[] = {sharing::per_batch, sharing::per_kv_group, sharing::per_head};
constexpr probe_path paths[] = {probe_path::per_head, probe_path::per_kv_group};

bf16 const not_a_number = from_float<bf16>(std::numeric_limits<float>::quiet_NaN());

// Three stages with different query blocks and strides, and chunks that are not powers of two apart.
constexpr prune_method mixed{
    .stages = {{64, 8, 128, 5}, {32, 2, 32, 9}, {16, 1, 16, 7}}, .stage_count = 3, .window = {32, 48}};

constexpr prune_method presets[] = {hip_tiny, mixed, hip_v1};

prune_method with(prune_method m, scorer how, sharing share, probe_path path = probe_path::per_head) {
    m.scorer = how, m.sharing = share, m.path = path;
    return m;
}

// Lists over keys without rotary embedding. Turned vectors are rounded, so equal sums do not occur, and those of kernel
// and oracle differ in their last bits.
void check_rotated(attend_input<bf16>& in, prune_method const& method, scan_style scan,
                   rope rotation = {.theta = 1e4f}) {
    check_prune(in, method, 1e-3, [&](prune_params<bf16>& p) { p.rotation = rotation, p.scan = scan; });
}

}  // namespace

TEMPLATE_TEST_CASE("prune: every scorer, sharing and path", "[gpu]", bf16, fp16) {
    attend_input<TestType> in(
        {.queries = {75, 75}, .keys = {1500, 803}, .heads = 6, .kv_heads = 2, .values = draw::integers});
    for (auto const how : scorers)
        for (auto const share : sharings)
            for (auto const path : paths)
                for (auto const& method : {hip_tiny, mixed}) {
                    INFO("scorer " << static_cast<int>(how) << ", sharing " << static_cast<int>(share) << ", path "
                                   << static_cast<int>(path) << ", stages " << method.stage_count);
                    check_prune(in, with(method, how, share, path));
                }
}

TEST_CASE("prune: small", "[gpu][small]") {
    for (auto const how : scorers)
        for (std::int32_t const head_dim : {64, 256}) {
            attend_input<bf16> in({.queries = {20, 20},
                                   .keys = {300, 190},
                                   .heads = 3,
                                   .head_dim = head_dim,
                                   .layout = kv_layout::block_table,
                                   .values = draw::integers});
            check_prune(in, with(hip_tiny, how, sharing::per_batch));
        }
}

TEST_CASE("prune: more rows than a scoring block holds at a time", "[gpu][small]") {
    // 64 KB hold 128 rows of 512 bytes: 100 rows of 3 heads that walk together pass by in three slices, the last with
    // fewer; heads that walk alone take turns.
    constexpr prune_method tall{.stages = {{128, 2, 32, 6}, {128, 1, 8, 9}}, .stage_count = 2, .window = {16, 64}};
    for (auto const how : scorers)
        for (auto const path : paths)
            for (std::int32_t const rows : {40, 100}) {
                attend_input<bf16> in({.queries = {rows},
                                       .keys = {500},
                                       .heads = 6,
                                       .kv_heads = 2,
                                       .head_dim = 256,
                                       .values = draw::integers});
                INFO("scorer " << static_cast<int>(how) << ", path " << static_cast<int>(path) << ", rows " << rows);
                check_prune(in, with(tall, how, sharing::per_kv_group, path));
            }
}

TEST_CASE("prune: antidiagonals of every stride, groups cut by the call, chunks cut by the window", "[gpu]") {
    for (std::int32_t const stride : {1, 2, 4, 8, 16})
        for (std::int32_t const rows : {1, 3, 70})
            for (std::int32_t const head_dim : {64, 128, 256}) {
                prune_method m{
                    .stages = {{64, stride, 64, 5}, {32, stride, 16, 9}}, .stage_count = 2, .window = {16, 37}};
                m.scorer = scorer::antidiagonal;
                attend_input<bf16> in({.queries = {rows, rows},
                                       .keys = {901, 333},
                                       .heads = 6,
                                       .kv_heads = 2,
                                       .head_dim = head_dim,
                                       .layout = kv_layout::block_table,
                                       .values = draw::integers});
                INFO("stride " << stride << ", rows " << rows << ", head_dim " << head_dim);
                for (auto const share : sharings) check_prune(in, with(m, scorer::antidiagonal, share));
            }
}

TEST_CASE("prune: antidiagonals of scores that are all negative", "[gpu][small]") {
    // The last chunk is cut short: squares that it does not have must not count as zeros.
    prune_method m{.stages = {{16, 4, 32, 3}}, .stage_count = 1, .window = {32, 37}};
    m.scorer = scorer::antidiagonal;
    attend_input<bf16> in({.queries = {16}, .keys = {401}, .heads = 2, .values = draw::integers});
    for (std::int32_t i = 0; i < 16; ++i)
        for (std::int32_t h = 0; h < 2; ++h)
            for (std::int32_t c = 0; c < 64; ++c) in.query(0, i, h, c) = from_float<bf16>(1.0f);
    for (std::int32_t j = 0; j < 401; ++j)
        for (std::int32_t c = 0; c < 64; ++c)
            in.key(0, j, 0, c) = from_float<bf16>(-std::fabs(to_float(in.key(0, j, 0, c))) - 1);
    check_prune(in, m);
}

TEST_CASE("prune: candidates that fill some warps of selection", "[gpu][small]") {
    // A warp compacts 32 candidates at a time and owns whole groups of 32: 315 and 630 leave some warps without any.
    constexpr prune_method flat{.stages = {{16, 1, 8, 20}}, .stage_count = 1, .window = {16, 64}};
    for (std::int32_t const keys : {2600, 5120}) {
        attend_input<bf16> in({.queries = {3}, .keys = {keys}, .heads = 2, .values = draw::integers});
        check_prune(in, with(flat, scorer::centre_probe, sharing::per_batch));
    }
}

TEST_CASE("prune: more candidates than selection keeps in shared memory", "[gpu]") {
    constexpr prune_method flat{.stages = {{1, 1, 8, 700}}, .stage_count = 1, .window = {16, 64}};
    attend_input<bf16> in({.queries = {1}, .keys = {140000}, .heads = 4, .kv_heads = 2, .values = draw::integers});
    CHECK(max_candidates_of(flat, 140000) > prune_select_cached);
    for (auto const share : {sharing::per_batch, sharing::per_head})
        check_prune(in, with(flat, scorer::centre_probe, share));
}

TEST_CASE("prune: every head_dim and group", "[gpu]") {
    for (std::int32_t const head_dim : {64, 128, 256})
        for (std::int32_t const group : {1, 3, 4, 7, 8})
            for (std::int32_t const rows : {1, 33}) {
                attend_input<bf16> in({.queries = {rows},
                                       .keys = {900},
                                       .heads = 2 * group,
                                       .kv_heads = 2,
                                       .head_dim = head_dim,
                                       .values = draw::integers});
                INFO("head_dim " << head_dim << ", group " << group << ", rows " << rows);
                check_prune(in, with(hip_tiny, scorer::tree_probe, sharing::per_kv_group));
                check_prune(in, with(mixed, scorer::mean_key, sharing::per_head));
            }
}

TEST_CASE("prune: presets at the lengths they are made for", "[gpu]") {
    // Every stage has more candidates than it keeps; prefill of two query blocks, and decode.
    struct {
        char const* name;
        prune_method method;
        std::int32_t keys;
    } const cases[] = {{"hip_3k", hip_3k, 36000},
                       {"hip_3k_early_layer", hip_3k_early_layer, 36000},
                       {"hip_5k", hip_5k, 36000},
                       {"hip_v1", hip_v1, 20000}};
    for (auto const& c : cases)
        for (std::int32_t const rows : {70, 1}) {
            INFO(c.name << ", rows " << rows);
            attend_input<bf16> in({.queries = {rows},
                                   .keys = {c.keys},
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .layout = kv_layout::block_table,
                                   .page_size = 16,
                                   .values = draw::integers});
            check_prune(in, c.method);
        }
}

TEST_CASE("prune: presets at middle lengths, where some stages keep everything", "[gpu]") {
    for (std::int32_t const keys : {1, 1279, 1290, 3000, 8192, 9001})
        for (auto const& method : {hip_3k, hip_5k, hip_v1}) {
            attend_input<fp16> in({.queries = {65}, .keys = {keys}, .heads = 2, .values = draw::integers});
            INFO(keys << " keys, " << method.stage_count << " stages, first chunk " << method.stages[0].chunk);
            check_prune(in, method);
        }
}

TEST_CASE("prune: normal inputs, by score margin", "[gpu]") {
    // fp32 sums of exact products against double: scores near 30 differ by far less than 1e-5 of the largest.
    for (auto const how : scorers)
        for (std::int32_t const chunk : {8, 64}) {
            prune_method m{.stages = {{32, 4, chunk, 20}}, .stage_count = 1, .window = {64, 128}};
            attend_input<bf16> in(
                {.queries = {100}, .keys = {4000}, .heads = 4, .kv_heads = 2, .head_dim = 128, .seed = 5});
            INFO("scorer " << static_cast<int>(how) << ", chunk " << chunk);
            check_prune(in, with(m, how, sharing::per_kv_group), 1e-5);
        }
}

TEST_CASE("prune: lengths around every edge", "[gpu]") {
    for (auto const& method : presets)
        for (std::int32_t const rows : {1, 16, 47})
            for (std::int32_t const keys : {0, 1, 5, 17, 79, 80, 81, 96, 97, 272, 273, 280, 281, 401, 1021}) {
                attend_input<bf16> in({.queries = {rows}, .keys = {keys}, .heads = 2, .values = draw::integers});
                INFO(rows << " rows, " << keys << " keys, sinks " << method.window.sinks);
                check_prune(in, method);
            }
}

TEST_CASE("prune: ragged batches and pages", "[gpu]") {
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (std::int32_t const page : {1, 3, 16, 64})
            for (bool const ragged : {false, true}) {
                attend_input<bf16> in({.queries = ragged ? std::vector<std::int32_t>{40, 0, 1, 67}
                                                         : std::vector<std::int32_t>{40, 40, 40, 40},
                                       .keys = {700, 90, 0, 1331},
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .layout = layout,
                                       .page_size = page,
                                       .ragged_queries = ragged,
                                       .head_major = page == 3,
                                       .lengths = page != 16,
                                       .values = draw::integers});
                INFO("layout " << static_cast<int>(layout) << ", page size " << page << ", ragged rows " << ragged);
                check_prune(in, with(mixed, scorer::tree_probe, sharing::per_kv_group));
            }
}

TEST_CASE("prune: masks", "[gpu]") {
    attend_input<bf16> in({.queries = {50, 50}, .keys = {900, 402}, .heads = 2, .values = draw::integers});
    attention_mask const masks[] = {causal{}, causal{0}, causal{300}, causal{415}, full{}, full{0}, full{123}};
    for (auto const mask : masks)
        for (auto const how : scorers) {
            INFO("kind " << static_cast<int>(mask.kind) << ", offset " << mask.offset);
            check_prune(in, with(mixed, how, sharing::per_batch), 0, [&](auto& p) { p.mask = mask; });
        }
    // More queries than keys: rows before position 0.
    attend_input<bf16> early({.queries = {300}, .keys = {250}, .heads = 2, .values = draw::integers});
    check_prune(early, mixed);
}

TEST_CASE("prune: lists that stay complete for later steps", "[gpu]") {
    for (std::int32_t const lookahead : {1, 16, 64, 500}) {
        attend_input<bf16> in({.queries = {1, 1}, .keys = {700, 75}, .heads = 2, .values = draw::integers});
        INFO("lookahead " << lookahead);
        check_prune(in, hip_tiny, 0, [&](auto& p) { p.lookahead = lookahead; });
    }
}

TEST_CASE("prune: in chunks it gives what it gives at once", "[gpu]") {
    std::int32_t const rows = 320;
    attend_input<bf16> in({.queries = {rows}, .keys = {1200}, .heads = 2, .values = draw::integers});
    auto const at = [&](std::int32_t first, std::int32_t count, std::int32_t keys) {
        return testing::run_prune(in, mixed, [=](prune_params<bf16>& p) {
            p.queries.data += first * p.queries.stride[1];
            p.queries.extent[1] = count;
            p.keys.extent[1] = keys;  // a chunk sees no key behind it
            p.kv = {};
            p.mask = causal{880 - 48 + first};  // 832: a multiple of every query block
        });
    };
    auto const whole = at(0, rows, 1200);
    for (std::int32_t const chunk : {64, 128})
        for (std::int32_t first = 0; first < rows; first += chunk) {
            std::int32_t const count = std::min(chunk, rows - first);
            auto const part = at(first, count, 832 + first + count);
            INFO("chunk of " << chunk << " at " << first);
            for (std::int32_t m = 0; m < count / 16; ++m)
                CHECK(list_of(part, 0, 0, m) == list_of(whole, 0, 0, first / 16 + m));
        }
}

TEST_CASE("prune: ties go to the smaller index", "[gpu][small]") {
    for (auto const how : scorers) {
        attend_input<bf16> in({.queries = {1}, .keys = {1000}, .values = draw::integers});
        for (std::int32_t j = 0; j < 1000; ++j)
            for (std::int32_t c = 0; c < 64; ++c) in.key(0, j, 0, c) = from_float<bf16>(1.0f);
        prune_method m{.stages = {{1, 1, 8, 13}}, .stage_count = 1, .window = {8, 16}};
        m.scorer = how;
        auto const found = check_prune(in, m);
        for (std::int32_t i = 0; i < 13; ++i) CHECK(found.view.blocks(0, 0, 0, i) == 1 + i);
    }
}

TEST_CASE("prune: NaN in a key never makes it preferred", "[gpu]") {
    for (auto const how : scorers)
        for (std::int32_t const every : {3, 1}) {  // some keys, and all keys
            attend_input<bf16> in({.queries = {20}, .keys = {1500}, .heads = 2, .values = draw::integers});
            for (std::int32_t j = 0; j < 1500; j += every) in.key(0, j, 0, j % 64) = not_a_number;
            INFO("scorer " << static_cast<int>(how) << ", every " << every);
            check_prune(in, with(mixed, how, sharing::per_head));
        }
}

TEST_CASE("prune: NaN in what no query may see changes nothing", "[gpu][small]") {
    attend_input<bf16> in({.queries = {9}, .keys = {600}, .heads = 2, .values = draw::integers});
    prune_method const m = with(hip_tiny, scorer::tree_probe, sharing::per_head);
    auto const set = [](prune_params<bf16>& p) { p.mask = causal{400}; };
    auto const clean = check_prune(in, m, 0, set);
    for (std::int32_t j = 409; j < 600; ++j)
        for (std::int32_t c = 0; c < 64; ++c) in.key(0, j, 0, c) = not_a_number;
    auto const found = check_prune(in, m, 0, set);
    CHECK((found.counts == clean.counts));
    for (std::int32_t h = 0; h < 2; ++h) CHECK(list_of(found, 0, h, 0) == list_of(clean, 0, h, 0));
}

TEST_CASE("prune: a planted chunk is found", "[gpu]") {
    for (auto const how : scorers) {
        if (how == scorer::min_max_bound) continue;  // bounds of 256 random keys lie far above any key
        for (std::int32_t const at : {512, 9216, 18944}) {
            // 256 keys along the queries' sum: each of their probes beats every other key.
            attend_input<bf16> in({.queries = {8}, .keys = {20480}, .heads = 1, .head_dim = 128, .seed = 3});
            for (std::int32_t i = 0; i < 8; ++i)
                for (std::int32_t c = 0; c < 128; ++c) in.query(0, i, 0, c) = in.query(0, 0, 0, c);
            for (std::int32_t j = at; j < at + 256; ++j)
                for (std::int32_t c = 0; c < 128; ++c) in.key(0, j, 0, c) = in.query(0, 0, 0, c);
            auto method = hip_3k;
            method.scorer = how;
            method.stages[0].keep = 32, method.stages[1].keep = 64;
            auto const found = testing::run_prune(in, method, [](auto&) {});
            auto const list = list_of(found, 0, 0, 0);
            INFO("scorer " << static_cast<int>(how) << ", at " << at);
            for (std::int32_t block = at / 8; block < (at + 256) / 8; ++block)
                CHECK(std::binary_search(list.begin(), list.end(), block));
        }
    }
}

TEST_CASE("prune: bad page ids read as zeros", "[gpu][small]") {
    for (auto const layout : {kv_layout::block_table, kv_layout::page_list}) {
        attend_input<bf16> in(
            {.queries = {5}, .keys = {500}, .heads = 2, .layout = layout, .page_size = 16, .values = draw::integers});
        in.pages()[3] = -1;
        in.pages()[9] = std::numeric_limits<std::int32_t>::max();
        in.pages()[11] = 1000;
        for (auto const how : scorers) check_prune(in, with(hip_tiny, how, sharing::per_batch));
    }
}

TEST_CASE("prune: alone, in a batch and again it gives the same lists", "[gpu]") {
    attend_input<bf16> in({.queries = {40, 40, 40}, .keys = {900, 31, 640}, .heads = 4, .kv_heads = 2});
    auto const method = with(mixed, scorer::tree_probe, sharing::per_kv_group);
    auto const together = testing::run_prune(in, method, [](auto&) {});
    auto const again = testing::run_prune(in, method, [](auto&) {});
    CHECK((together.counts == again.counts));
    for (std::int32_t b = 0; b < 3; ++b) {
        auto const alone = testing::run_prune(in, method, [b](prune_params<bf16>& p) {
            p.queries.data += b * p.queries.stride[0], p.queries.extent[0] = 1;
            p.keys.data += b * p.keys.stride[0], p.keys.extent[0] = 1;
            p.kv.length += b;
        });
        for (std::int32_t h = 0; h < 2; ++h)
            for (std::int32_t m = 0; m < together.view.blocks.extent[2]; ++m) {
                CHECK(list_of(together, b, h, m) == list_of(alone, 0, h, m));
                CHECK(list_of(together, b, h, m) == list_of(again, b, h, m));
            }
    }
}

TEST_CASE("prune: every instruction set gives the same lists", "[gpu]") {
    // Rows of 16 and more are multiplied by warpgroups where the device has them; integers are exact in both.
    for (std::int32_t const head_dim : {64, 128, 256})
        for (std::int32_t const heads : {4, 6})
            for (auto const share : sharings) {
                attend_input<bf16> in({.queries = {100, 7},
                                       .keys = {1500, 803},
                                       .heads = heads,
                                       .kv_heads = 2,
                                       .head_dim = head_dim,
                                       .layout = kv_layout::block_table,
                                       .ragged_queries = true,
                                       .values = draw::integers});
                prune_method method{.stages = {{64, 2, 64, 9}, {64, 1, 8, 20}}, .stage_count = 2, .window = {64, 128}};
                method.sharing = share;
                INFO("head_dim " << head_dim << ", heads " << heads << ", sharing " << static_cast<int>(share));
                testing::device_copy<bf16> memory(in);
                auto p = testing::prune_params_of(memory.params(), method);
                std::vector<reference::selection_storage> found;
                for (std::int32_t const instructions : {80, testing::current_device().instructions}) {
                    testing::device_selection const selection(p.method, p.shape());
                    p.selection = selection.view();
                    device_info device = testing::current_device();
                    device.instructions = instructions;
                    auto const made = plan(p, device);
                    REQUIRE(made.why.ok());
                    testing::device_memory scratch(made.workspace_bytes, 4096);
                    REQUIRE(testing::gpu_launch(p, made, {scratch.data(), made.workspace_bytes}, nullptr).ok());
                    testing::require_cuda(cudaDeviceSynchronize());
                    CHECK(scratch.guard_intact());
                    found.push_back(selection.download());
                }
                CHECK((found[0].counts == found[1].counts));
                for (std::int32_t b = 0; b < 2; ++b)
                    for (std::int32_t h = 0; h < found[0].view.list_heads(); ++h)
                        for (std::int32_t m = 0; m < found[0].view.blocks.extent[2]; ++m)
                            CHECK(list_of(found[0], b, h, m) == list_of(found[1], b, h, m));
                check_prune(in, method);
            }
}

// Rows of a walker, as launch counts them.
std::int64_t rows_of(attend_input<bf16>& in, prune_method const& method, std::int32_t stage) {
    batch_shape const shape = testing::prune_params_of(in.params(), method).shape();
    return walker_rows(method.stages[stage], units_of(method, shape.heads, shape.kv_heads), shape.max_queries);
}

TEST_CASE("prune: tree searches by warpgroups, rows that see all keys and rows that do not", "[gpu]") {
    // 16 rows of each head, of groups cut by the call; then 64. Chunks of 32, 4 rounds and one key; of 8, 2 and one.
    for (std::int32_t const head_dim : {64, 128, 256})
        for (std::int32_t const heads : {1, 4, 8})
            for (auto const path : paths)
                for (std::int32_t const recent : {8, 200}) {
                    prune_method method{.stages = {{64, 4, 32, 11}, {64, 1, 8, 19}}, .stage_count = 2};
                    method.window = {16, recent};
                    method.path = path, method.sharing = sharing::per_kv_group;
                    attend_input<bf16> in({.queries = {130, 64, 7},
                                           .keys = {1900, 803, 71},
                                           .heads = heads,
                                           .head_dim = head_dim,
                                           .layout = kv_layout::block_table,
                                           .page_size = 3,
                                           .ragged_queries = true,
                                           .values = draw::integers});
                    in.pages()[7] = -1;
                    for (std::int32_t j = 5; j < 1900; j += 97) in.key(0, j, 0, j % 64) = not_a_number;
                    INFO("head_dim " << head_dim << ", heads " << heads << ", path " << static_cast<int>(path)
                                     << ", recent " << recent);
                    CHECK(by_warpgroups(product_unit_of(method, rows_of(in, method, 0), 90)));
                    CHECK(product_unit_of(method, rows_of(in, method, 1), 90) == product_unit::warpgroup);
                    check_prune(in, method);
                }
}

TEST_CASE("prune: more rows of a group than warpgroups hold at a time", "[gpu]") {
    // 128 KB hold 256 rows of 512 bytes, 512 of 256: these pass by in two slices, the second with fewer.
    for (std::int32_t const head_dim : {128, 256})
        for (std::int32_t const recent : {8, 200}) {
            prune_method method{.stages = {{64, 1, 32, 7}, {64, 1, 8, 9}}, .stage_count = 2, .window = {16, recent}};
            method.path = probe_path::per_kv_group;
            attend_input<bf16> in({.queries = {64, 20},
                                   .keys = {1101, 300},
                                   .heads = 2560 / head_dim,
                                   .head_dim = head_dim,
                                   .values = draw::integers});
            INFO("head_dim " << head_dim << ", recent " << recent);
            CHECK(rows_of(in, method, 0) > prune_walk_rows_held(head_dim));
            check_prune(in, method);
        }
    // Five heads that walk alone: their rows are held three at a time, or in slices one by one.
    for (std::int32_t const block : {64, 128}) {
        prune_method method{.stages = {{block, 1, 16, 9}}, .stage_count = 1, .window = {16, 40}};
        attend_input<bf16> in(
            {.queries = {block}, .keys = {900}, .heads = 5, .head_dim = 256, .values = draw::integers});
        check_prune(in, method);
    }
}

TEST_CASE("prune: warpgroups take several tiles in turn where lists are many", "[gpu]") {
    // 512 lists of up to 746 chunks: a block has 16 tiles, which its two warpgroups take four or eight at a time.
    for (std::int32_t const head_dim : {64, 128})
        for (auto const path : paths) {
            prune_method method{.stages = {{16, 1, 8, 40}}, .stage_count = 1, .window = {8, 24}};
            method.path = path;
            attend_input<bf16> in({.queries = std::vector<std::int32_t>(4, 1024),
                                   .keys = {6000, 5217, 5400, 5999},
                                   .heads = 8,
                                   .kv_heads = 2,
                                   .head_dim = head_dim,
                                   .values = draw::integers});
            INFO("head_dim " << head_dim << ", path " << static_cast<int>(path));
            std::int32_t const walkers = units_of(method, 8, 2).walkers;
            CHECK(chunks_per_block(prune_walk_tile::chunks, 746, 512, walkers, 8, prune_most_chunks_alone) == 512);
            check_prune(in, method);
        }
}

TEST_CASE("prune: more query blocks than fit one slab", "[gpu]") {
    prune_method m{.stages = {{2, 1, 16, 700}, {1, 1, 8, 16}}, .stage_count = 2, .window = {16, 64}};
    m.scorer = scorer::centre_probe, m.sharing = sharing::per_head;
    attend_input<bf16> in({.queries = {1300}, .keys = {12000}, .heads = 8, .kv_heads = 4, .values = draw::integers});
    auto p = testing::prune_params_of(in.params(), m);
    CHECK(prune_plan_of(m, p.shape()).slabs >= 2);
    check_prune(in, m);
}

TEST_CASE("prune: scores of every size, keeps of every size", "[gpu]") {
    // Radix selection has passes over digits: equal leading digits, all equal, negative, zero, infinite; 1 to all kept.
    std::int32_t const keys = 2000;
    for (int const kind : {0, 1, 2, 3, 4, 5})
        for (std::int32_t const keep : {1, 2, 31, 32, 33, 100, 240, 246, 247, 248}) {
            attend_input<fp16> in({.queries = {1}, .keys = {keys}, .seed = 8});
            testing::random_source random(static_cast<std::uint64_t>(kind + 1));
            for (std::int32_t c = 0; c < 64; ++c) {
                in.query(0, 0, 0, c) = from_float<fp16>(c == 0 ? 1.0f : 0.0f);
                for (std::int32_t j = 0; j < keys; ++j) in.key(0, j, 0, c) = from_float<fp16>(0.0f);
            }
            for (std::int32_t j = 0; j < keys; ++j) {
                double const u = random.uniform();
                double const value[] = {1 + u / 1000,
                                        -1 - u / 1000,
                                        u < 0.5 ? 0.0 : -0.0,
                                        std::exp2(30 * (u - 0.5)),
                                        u < 0.1   ? 1e9
                                        : u < 0.2 ? -1e9
                                                  : random.normal(),
                                        random.normal() * 1e-6};
                in.key(0, j, 0, 0) = from_float<fp16>(static_cast<float>(value[kind]));
            }
            prune_method m{.stages = {{1, 1, 8, keep}}, .stage_count = 1, .window = {8, 16}};
            m.scorer = scorer::centre_probe;
            INFO("kind " << kind << ", keep " << keep);
            check_prune(in, m);
        }
}

TEST_CASE("prune rotated: both scans, every sharing and path", "[gpu]") {
    for (std::int32_t const head_dim : {64, 128, 256}) {
        attend_input<bf16> in({.queries = {75, 75},
                               .keys = {1500, 803},
                               .heads = 6,
                               .kv_heads = 2,
                               .head_dim = head_dim,
                               .layout = kv_layout::block_table});
        for (auto const scan : {scan_style::relative, scan_style::chunk_indexed})
            for (auto const share : sharings)
                for (auto const path : paths)
                    for (auto const& method : {hip_tiny, mixed}) {
                        INFO("head_dim " << head_dim << ", scan " << static_cast<int>(scan) << ", sharing "
                                         << static_cast<int>(share) << ", path " << static_cast<int>(path)
                                         << ", stages " << method.stage_count);
                        check_rotated(in, with(method, scorer::tree_probe, share, path), scan);
                    }
    }
}

TEST_CASE("prune rotated: small", "[gpu][small]") {
    for (auto const scan : {scan_style::relative, scan_style::chunk_indexed})
        for (std::int32_t const head_dim : {64, 256}) {
            attend_input<bf16> in({.queries = {20, 20}, .keys = {300, 190}, .heads = 3, .head_dim = head_dim});
            check_rotated(in, hip_tiny, scan);
        }
}

TEST_CASE("prune rotated: rows in slices, windows shorter than a chunk", "[gpu][small]") {
    constexpr prune_method tall{.stages = {{128, 2, 32, 6}, {128, 1, 8, 9}}, .stage_count = 2, .window = {16, 20}};
    for (auto const scan : {scan_style::relative, scan_style::chunk_indexed})
        for (auto const path : paths) {
            attend_input<bf16> in({.queries = {100}, .keys = {500}, .heads = 6, .kv_heads = 2, .head_dim = 256});
            INFO("scan " << static_cast<int>(scan) << ", path " << static_cast<int>(path));
            check_rotated(in, with(tall, scorer::tree_probe, sharing::per_kv_group, path), scan);
        }
}

TEST_CASE("prune rotated: part of the channels, pairs side by side", "[gpu][small]") {
    for (auto const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int32_t const rotary_dim : {16, 48}) {
            attend_input<bf16> in({.queries = {40}, .keys = {600}, .heads = 4});
            INFO("pairing " << static_cast<int>(pairing) << ", rotary_dim " << rotary_dim);
            check_rotated(in, hip_tiny, scan_style::relative,
                          {.theta = 100, .rotary_dim = rotary_dim, .pairing = pairing});
        }
}

TEST_CASE("prune rotated: three million keys", "[gpu]") {
    // Sixteen pages serve the whole context: it is long, its contents small.
    constexpr std::int32_t keys = 3'000'000, page = 16;
    constexpr prune_method coarse{
        .stages = {{16, 2, 32768, 5}, {16, 1, 1024, 6}, {16, 1, 16, 8}}, .stage_count = 3, .window = {32, 1 << 16}};
    for (auto const scan : {scan_style::relative, scan_style::chunk_indexed})
        for (std::int32_t const rows : {1, 20}) {
            attend_input<bf16> in({.queries = {rows},
                                   .keys = {256},
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .layout = kv_layout::block_table,
                                   .page_size = page});
            std::size_t const table = in.memory().take<std::int32_t>(keys / page);
            std::size_t const length = in.memory().take<std::int32_t>(1);
            for (std::int32_t i = 0; i < keys / page; ++i)  // no two chunks alike, so that scores do not tie
                in.memory().at<std::int32_t>(table)[i] = in.pages()[(i ^ (i >> 4) ^ (i >> 9) ^ (i >> 13)) % 16];
            *in.memory().at<std::int32_t>(length) = keys;
            auto const queries = reinterpret_cast<std::uintptr_t>(in.params(nullptr).queries.data);
            INFO("scan " << static_cast<int>(scan) << ", rows " << rows);
            auto const found = check_prune(in, coarse, 1e-3, [&](prune_params<bf16>& p) {
                auto const base = reinterpret_cast<std::uintptr_t>(p.queries.data) - queries;
                p.kv.pages = reinterpret_cast<std::int32_t const*>(base + table);
                p.kv.length = reinterpret_cast<std::int32_t const*>(base + length);
                p.kv.table_stride = keys / page, p.kv.max_length = keys;
                p.rotation = {.theta = 5e5f}, p.scan = scan;
            });
            CHECK(found.view.counts(0, 0, 0) == 8);
        }
}

TEST_CASE("prune rotated: chunks of a prompt give the lists of one call", "[gpu]") {
    attend_input<bf16> in({.queries = {192}, .keys = {900}, .heads = 2});
    for (auto const scan : {scan_style::relative, scan_style::chunk_indexed}) {
        auto const set = [scan](prune_params<bf16>& p) { p.rotation = {.theta = 1e4f}, p.scan = scan; };
        auto const whole = run_prune(in, mixed, [&](prune_params<bf16>& p) { set(p), p.mask = causal{704}; });
        for (std::int32_t const first : {0, 64, 128}) {
            auto const part = run_prune(in, mixed, [&](prune_params<bf16>& p) {
                set(p);
                p.mask = causal{704 + first};
                p.queries.data += first * p.queries.stride[1], p.queries.extent[1] = 64;
            });
            INFO("scan " << static_cast<int>(scan) << ", rows from " << first);
            for (std::int32_t m = 0; m < 4; ++m) CHECK(list_of(part, 0, 0, m) == list_of(whole, 0, 0, first / 16 + m));
        }
    }
}
