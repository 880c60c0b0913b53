// summarise against the oracle, byte for byte; pruning with summaries gives the lists that it gives without.
#include <cstdint>
#include <cstring>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_prune.hpp"
#include "winnow/reference/summarise.hpp"

using namespace winnow;
using testing::attend_input;
using testing::device_copy;
using testing::device_memory;
using testing::draw;

namespace {

constexpr prune_method mixed{
    .stages = {{64, 8, 128, 5}, {32, 2, 32, 9}, {16, 1, 16, 7}}, .stage_count = 3, .window = {32, 48}};
constexpr scorer whole_scorers[] = {scorer::mean_key, scorer::min_max_bound};

prune_method with(prune_method m, scorer how, sharing share = sharing::per_batch) {
    m.scorer = how, m.sharing = share;
    return m;
}

template <class T>
summarise_params<T> params_of(attend_params<T> const& a, std::int32_t batch, prune_method const& m, T* data,
                              std::int32_t rows, std::int32_t max_keys) {
    summarise_params<T> p;
    p.keys = a.keys, p.kv = a.kv, p.batch = batch, p.method = m, p.summary = {data, rows, max_keys, nullptr};
    return p;
}

// The device's summaries, checked against the oracle's; `filled` holds them.
template <class T>
void fill(attend_input<T>& in, device_copy<T> const& memory, prune_method const& m, device_memory& filled,
          std::int32_t rows, std::int32_t max_keys) {
    auto const batch = static_cast<std::int32_t>(in.shape().keys.size());
    testing::run_on_device(params_of(memory.params(), batch, m, filled.as<T>(), rows, max_keys));
    CHECK(filled.guard_intact());
    auto const found = filled.template download<char>();
    std::vector<std::uint64_t> own(found.size() / 8 + 2, ~0ull);
    char* const base = reinterpret_cast<char*>(own.data() + reinterpret_cast<std::uintptr_t>(own.data()) / 8 % 2);
    REQUIRE(reference::summarise(params_of(in.params(), batch, m, reinterpret_cast<T*>(base), rows, max_keys)).ok());
    CHECK(std::memcmp(base, found.data(), found.size()) == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("summarise: against the oracle, and lists as without", "[gpu]", bf16, fp16) {
    using T = TestType;
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (auto const how : whole_scorers)
            for (auto const share : {sharing::per_batch, sharing::per_head}) {
                attend_input<T> in({.queries = {75, 75, 75},
                                    .keys = {1500, 40, 803},
                                    .heads = 6,
                                    .kv_heads = 2,
                                    .layout = layout,
                                    .values = draw::integers});
                INFO("layout " << static_cast<int>(layout) << ", scorer " << static_cast<int>(how));
                prune_method const m = with(mixed, how, share);
                std::int32_t const max_keys = in.extents().max_keys;
                device_copy<T> const memory(in);
                device_memory filled(summary_elements(m, 2, 64, 3, max_keys) * sizeof(T), 4096);
                fill(in, memory, m, filled, 3, max_keys);
                key_summary<T const> const summary{filled.as<T>(), 3, max_keys, nullptr};
                testing::check_prune(in, m, 0, [&](prune_params<T>& p) {
                    // The oracle reads keys alone; its check sees the same fields.
                    p.summary = summary;
                });
            }
}

TEST_CASE("summarise: small", "[gpu][small]") {
    for (auto const how : whole_scorers)
        for (std::int32_t const head_dim : {128, 256}) {
            attend_input<bf16> in({.queries = {20},
                                   .keys = {300},
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_dim = head_dim,
                                   .layout = kv_layout::block_table,
                                   .values = draw::integers});
            prune_method const m = with(hip_tiny, how);
            device_copy<bf16> const memory(in);
            device_memory filled(summary_elements(m, 1, head_dim, 1, in.extents().max_keys) * 2, 4096);
            fill(in, memory, m, filled, 1, in.extents().max_keys);
            testing::check_prune(in, m, 0, [&](auto& p) {
                p.summary = {filled.as<bf16>(), 1, in.extents().max_keys, nullptr};
            });
        }
}

TEST_CASE("summarise: pruning reads summaries of whole chunks, and rows decide whose", "[gpu]") {
    // Summaries that prefer the last chunk of 16 keys: lists follow them, unless the request has no row.
    attend_input<bf16> in({.queries = {1, 1}, .keys = {600, 600}, .values = draw::integers});
    prune_method m{.stages = {{1, 1, 16, 4}}, .stage_count = 1, .window = {16, 32}};
    m.scorer = scorer::mean_key;
    std::size_t const elements = summary_elements(m, 1, 64, 1, 600);
    std::vector<bf16> doctored(elements, from_float<bf16>(0.0f));
    for (std::int32_t b = 0; b < 2; ++b)
        for (std::int32_t c = 0; c < 64; ++c) in.query(b, 0, 0, c) = from_float<bf16>(1.0f);
    summary_level const level = summary_level_of(m, 1, 64, 1, 600, 0);
    std::int32_t const best = 20;
    for (std::int32_t c = 0; c < 64; ++c)
        doctored[static_cast<std::size_t>(level.offset_of(0, best, 0) + c)] = from_float<bf16>(100.0f);
    device_memory memory(elements * 2), rows(8);
    memory.upload(doctored.data(), elements * 2);
    std::int32_t const row[] = {0, -1};
    rows.upload(row, sizeof row);
    auto const plain = testing::run_prune(in, m, [](auto&) {});
    auto const found = testing::run_prune(in, m, [&](prune_params<bf16>& p) {
        p.summary = {memory.as<bf16>(), 1, 600, rows.as<std::int32_t>()};
    });
    auto const first = testing::list_of(found, 0, 0, 0);
    CHECK(std::count(first.begin(), first.end(), 1 + best) == 1);
    CHECK(first != testing::list_of(plain, 0, 0, 0));
    CHECK(testing::list_of(found, 1, 0, 0) == testing::list_of(plain, 1, 0, 0));
}

TEST_CASE("summarise: kept up with a growing cache it equals what is made at once", "[gpu]") {
    attend_input<bf16> in(
        {.queries = {1, 1}, .keys = {700, 431}, .heads = 2, .kv_heads = 2, .layout = kv_layout::block_table});
    for (auto const how : whole_scorers) {
        prune_method const m = with(mixed, how);
        std::int32_t const max_keys = in.extents().max_keys;
        std::size_t const bytes = summary_elements(m, 2, 64, 2, max_keys) * 2;
        device_copy<bf16> const memory(in);
        device_memory whole(bytes, 4096), grown(bytes, 4096), lengths(8), known(8);
        fill(in, memory, m, whole, 2, max_keys);
        std::int32_t length[] = {0, 0};
        std::int32_t const end[] = {700, 431};
        while (length[0] < end[0] || length[1] < end[1]) {
            known.upload(length, sizeof length);
            for (int b = 0; b < 2; ++b) length[b] = smaller(length[b] + (b == 0 ? 37 : 29), end[b]);
            if (length[0] == 370) length[0] = 300;  // truncated: what is known shrinks with it
            lengths.upload(length, sizeof length);
            auto p = params_of(memory.params(), 2, m, grown.as<bf16>(), 2, max_keys);
            p.kv.length = lengths.as<std::int32_t>(), p.known = known.as<std::int32_t>(), p.max_new = 37;
            testing::run_on_device(p);
        }
        CHECK(grown.guard_intact());
        CHECK((grown.download<char>() == whole.download<char>()));
    }
}
