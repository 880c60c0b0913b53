// sparse_prefill and sparse_decode against the oracle: lists and outputs over many decode steps, slots, graphs.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "support/gpu_decode.hpp"
#include "support/gpu_prune.hpp"
#include "winnow/reference/sparse.hpp"

using namespace winnow;
using testing::attend_input;
using testing::device_copy;
using testing::device_memory;
using testing::draw;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

constexpr prune_method three_stages{
    .stages = {{16, 2, 64, 3}, {16, 1, 32, 4}, {16, 1, 8, 6}}, .stage_count = 3, .window = {16, 32}};

prune_method with(prune_method m, sharing share, scorer how = scorer::tree_probe) {
    m.sharing = share, m.scorer = how;
    return m;
}

// --- Prefill ---------------------------------------------------------------------------------------------------------

template <class T>
sparse_prefill_params<T> prefill_of(attend_params<T> const& a, prune_method const& method, std::int32_t dense_tail) {
    sparse_prefill_params<T> p;
    p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.kv = a.kv, p.rows = a.rows;
    p.output = a.output, p.lse = a.lse, p.scale = a.scale, p.soft_cap = a.soft_cap, p.mask = a.mask;
    p.method = method, p.dense_tail = dense_tail;
    return p;
}

// With gamma > 0 corrected, which has a dense tail of its own.
template <class T>
sparse_prefill_params<T> corrected(sparse_prefill_params<T> p, delta_options const& options) {
    p.delta = options;
    return p;
}

// The rounded twin of a prefill: the oracle's lists, attention rounded, the dense tail over it.
template <class T>
testing::attend_expectation expect_prefill(sparse_prefill_params<T> const& p) {
    testing::attend_expectation e;
    REQUIRE(reference::sparse_prefill(p, &e.exact, nullptr, testing::all_threads()).ok());
    reference::selection_storage const lists(p.method, p.shape());
    REQUIRE(reference::prune(prune_part(p, lists.view), nullptr, testing::all_threads()).ok());
    if (p.delta.gamma > 0) {
        REQUIRE(reference::delta_rounded(delta_part(p, lists.view), e.rounded, testing::all_threads()).ok());
        return e;
    }
    REQUIRE(reference::attend_rounded(attend_part(p, lists.view), e.rounded, testing::all_threads()).ok());
    if (p.dense_tail == 0) return e;
    reference::attend_result tail;
    REQUIRE(reference::attend_rounded(tail_part(p), tail, testing::all_threads()).ok());
    for (auto [to, from] : {std::pair{&e.rounded.output, &tail.output}, {&e.rounded.lse, &tail.lse}})
        for (std::size_t i = 0; i < to->size(); ++i)
            if (std::isnan((*to)[i])) (*to)[i] = (*from)[i];
    return e;
}

template <class T>
std::vector<char> check_prefill(attend_input<T>& in, prune_method const& method, std::int32_t dense_tail,
                                attention_mask mask = causal{}, float soft_cap = 0,
                                delta_options const& correction = {.gamma = 0}) {
    device_copy<T> memory(in);
    auto const set = [&](attend_params<T> a) {
        a.mask = mask, a.soft_cap = soft_cap;
        return corrected(prefill_of(a, method, dense_tail), correction);
    };
    testing::run_on_device(set(memory.params()));
    auto bytes = memory.download();
    CHECK(memory.stray_write(bytes) == -1);
    testing::check_close<T>(in.output(bytes.data()), in.lse(bytes.data()), expect_prefill(set(in.params())));
    return bytes;
}

// --- Decode ----------------------------------------------------------------------------------------------------------

// Integer inputs: the oracle and the device must choose the same lists.
struct decoding : testing::decode_state<bf16> {
    rope rotation = {};  ///< of keys without rotary embedding
    scan_style scan = scan_style::relative;

    decoding(std::vector<std::int32_t> const& first_lengths, std::int32_t steps, prune_method const& m,
             kv_layout layout = kv_layout::block_table, draw values = draw::integers)
        : decode_state(
              {.keys = first_lengths, .heads = 4, .kv_heads = 2, .layout = layout, .page_size = 8, .values = values},
              steps, m) {}

    sparse_decode_params<bf16> params(attend_params<bf16> const& a, stage_cache const& cache) const {
        sparse_decode_params<bf16> p;
        p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.kv = a.kv;
        p.output = a.output, p.lse = a.lse, p.scale = a.scale;
        p.method = method, p.cache = cache, p.rotation = rotation, p.scan = scan;
        return p;
    }
    sparse_decode_params<bf16> host_params() { return params(in.params(), host_cache()); }
    sparse_decode_params<bf16> device_params() const { return params(memory.params(), device_cache()); }
    void check() { decode_state::check(host_params()); }
};

// --- A batch as an engine changes it between the replays of one graph ------------------------------------------------

// Rows hold requests that join, leave, pause, move to another row or slot, are truncated and forked, while contexts
// grow and pages move. Integer inputs, as in `decoding`.
class changing_batch {
public:
    enum event { join, leave, pause, go_on, truncate, change_slot, change_row, fork, move_pages, event_count };
    struct record {
        int events[event_count] = {};                ///< how often each happened
        int due[three_stages.stage_count + 1] = {};  ///< requests' steps by the first stage that was due
        int padded_rows = 0;
    };

    changing_batch(std::int32_t rows, prune_method const& method)
        : d(std::vector<std::int32_t>(static_cast<std::size_t>(rows), capacity - query_steps), query_steps, method),
          random_(static_cast<std::uint64_t>(rows)), paused_(static_cast<std::size_t>(rows), nowhere) {
        for (std::int32_t b = 0; b < rows; ++b) length(b) = 0, slot(b) = nowhere;
    }

    /// The next step's state: one more token for every request that runs, and at most two events.
    void advance() {
        for (std::int32_t b = 0; b < d.batch; ++b) {
            if (!running(b)) continue;
            if (length(b) == capacity)
                empty(b);
            else
                ++length(b);
        }
        for (int i = 0; i < 2; ++i) happen(static_cast<event>(random_.below(event_count)));
        for (std::int32_t b = 0; b < d.batch; ++b) {
            if (running(b))
                ++seen.due[first_stage_due(step(b), d.intervals.steps, d.method.stage_count)];
            else
                ++seen.padded_rows;
        }
        d.upload_cache();
    }

    static constexpr std::int32_t capacity = 448, page = 8, pages = capacity / page, query_steps = 48, nowhere = -1;
    decoding d;
    record seen;

private:
    std::int32_t& length(std::int32_t b) { return d.in.key_lengths()[b]; }
    std::int32_t& slot(std::int32_t b) { return d.slot[static_cast<std::size_t>(b)]; }
    std::int32_t& paused(std::int32_t b) { return paused_[static_cast<std::size_t>(b)]; }
    std::int32_t& step(std::int32_t b) { return d.step[static_cast<std::size_t>(slot(b))]; }
    bool running(std::int32_t b) { return length(b) > 0 && slot(b) >= 0 && slot(b) < d.slots; }

    /// A slot that neither runs nor is kept by a pause, with whatever its last request left in it.
    std::int32_t free_slot() {
        for (;;) {
            std::int32_t const s = random_.below(d.slots);
            if (std::find(d.slot.begin(), d.slot.end(), s) == d.slot.end() &&
                std::find(paused_.begin(), paused_.end(), s) == paused_.end())
                return s;
        }
    }
    void start_in(std::int32_t b, std::int32_t s) { slot(b) = s, step(b) = 0; }
    /// Leaves a row of padding: without a length, and with its old slot, none, or one that does not exist.
    void empty(std::int32_t b) {
        std::int32_t const slots[] = {slot(b), nowhere, d.slots + 92};
        length(b) = 0, slot(b) = slots[random_.below(3)], paused(b) = nowhere;
    }
    bool vacant(std::int32_t b) { return length(b) == 0; }
    template <class F>
    void each_element(std::int32_t first, std::int32_t last, F const& f) {
        for (std::int32_t j = first; j < last; ++j)
            for (std::int32_t h = 0; h < d.kv_heads; ++h)
                for (std::int32_t c = 0; c < 64; ++c) f(j, h, c);
    }
    std::int32_t* table(std::int32_t b) { return d.in.pages() + b * d.in.params().kv.table_stride; }

    /// Does it to a random row, if the row is in a state for it.
    void happen(event what) {
        std::int32_t const b = random_.below(d.batch), other = random_.below(d.batch);
        bool done = true;
        if (what == join && vacant(b)) {
            each_element(0, capacity, [&](std::int32_t j, std::int32_t h, std::int32_t c) {
                d.in.key(b, j, h, c) = from_float<bf16>(static_cast<float>(random_.between(-4, 4)));
                d.in.value(b, j, h, c) = from_float<bf16>(static_cast<float>(random_.between(-4, 4)));
            });
            length(b) = random_.below(4) == 0 ? 1 : random_.between(1, capacity);
            slot(b) = nowhere, start_in(b, free_slot());
        } else if (what == leave && running(b)) {
            empty(b);
        } else if (what == pause && running(b)) {
            paused(b) = slot(b), slot(b) = nowhere;
        } else if (what == go_on && paused(b) != nowhere) {
            slot(b) = paused(b), paused(b) = nowhere;
        } else if (what == truncate && running(b) && length(b) > 1) {
            length(b) = random_.between(1, length(b) - 1), step(b) = 0;
        } else if (what == change_slot && running(b)) {
            start_in(b, free_slot());
        } else if (what == change_row && b != other && (running(b) || running(other))) {
            std::swap(length(b), length(other)), std::swap(slot(b), slot(other)), std::swap(paused(b), paused(other));
            std::swap_ranges(table(b), table(b) + pages, table(other));
        } else if (what == fork && vacant(b) && running(other)) {
            each_element(0, length(other), [&](std::int32_t j, std::int32_t h, std::int32_t c) {
                d.in.key(b, j, h, c) = d.in.key(other, j, h, c);
                d.in.value(b, j, h, c) = d.in.value(other, j, h, c);
            });
            length(b) = length(other);
            slot(b) = nowhere, start_in(b, free_slot());
        } else if (what == move_pages && running(b) && b != other) {
            // Page e of one row and page f of the other change places in memory, and what they hold with them.
            std::int32_t const e = random_.below(pages), f = random_.below(pages);
            each_element(0, page, [&](std::int32_t j, std::int32_t h, std::int32_t c) {
                std::swap(d.in.key(b, e * page + j, h, c), d.in.key(other, f * page + j, h, c));
                std::swap(d.in.value(b, e * page + j, h, c), d.in.value(other, f * page + j, h, c));
            });
            std::swap(table(b)[e], table(other)[f]);
        } else {
            done = false;
        }
        seen.events[what] += done;
    }

    testing::random_source random_;
    std::vector<std::int32_t> paused_;  ///< [row] slot that a paused request keeps
};

/// Replays one graph over `steps` states of a batch, every step and row held to the oracle.
changing_batch::record replay_changing_batch(std::int32_t rows, std::int32_t steps, std::int32_t recent) {
    prune_method method = with(three_stages, sharing::per_kv_group);
    method.window.recent = recent;
    changing_batch batch(rows, method);
    decoding& d = batch.d;
    auto const p = d.device_params();
    auto const plan = winnow::plan(p, testing::current_device());
    REQUIRE(plan.why.ok());
    CHECK(plan.attend.merges_itself() == (recent == 200));
    device_memory scratch(plan.workspace_bytes, 4096);
    // Once outside of the capture, so that the code is on the device; all rows are padding yet.
    d.upload_cache();
    d.begin(0);
    testing::run_on_device(p);
    testing::captured_graph const graph([&](cudaStream_t stream) {
        REQUIRE(testing::gpu_launch(p, plan, {scratch.data(), plan.workspace_bytes}, stream).ok());
    });
    CHECK(graph.kernels_and_others().first > 0);
    CHECK(graph.kernels_and_others().second == 0);
    for (std::int32_t s = 0; s < steps; ++s) {
        batch.advance();
        INFO("step " << s);
        d.begin(s % changing_batch::query_steps);
        graph.replay();
        d.check();
    }
    CHECK(scratch.guard_intact());
    return batch.seen;
}

}  // namespace

TEMPLATE_TEST_CASE("sparse_prefill: against the oracle", "[gpu]", bf16, fp16) {
    for (std::int32_t const head_dim : {64, 128, 256})
        for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
            for (std::int32_t const tail : {0, 40}) {
                attend_input<TestType> in({.queries = {150, 150},
                                           .keys = {700, 411},
                                           .heads = 6,
                                           .kv_heads = 2,
                                           .head_dim = head_dim,
                                           .values = draw::integers});
                INFO("head_dim " << head_dim << ", sharing " << static_cast<int>(share) << ", tail " << tail);
                check_prefill(in, with(hip_tiny, share), tail);
            }
}

TEST_CASE("sparse_prefill: small", "[gpu][small]") {
    for (std::int32_t const tail : {0, 8}) {
        attend_input<bf16> in({.queries = {30, 0, 11},
                               .keys = {200, 77, 0},
                               .heads = 2,
                               .layout = kv_layout::page_list,
                               .ragged_queries = true,
                               .values = draw::integers});
        check_prefill(in, hip_tiny, tail);
    }
}

TEST_CASE("sparse_prefill: corrected", "[gpu][small]") {
    // Not mass_preserving: over lists it divides a difference by a difference, and the scores of integers spread so widely
    // that for some rows nothing else counts. tests/op/delta.cu has it where scores do not.
    for (auto const form : {delta_form::complement, delta_form::difference, delta_form::recompute})
        for (auto const share : {sharing::per_kv_group, sharing::per_head}) {
            attend_input<bf16> in({.queries = {90, 0, 11},
                                   .keys = {200, 77, 0},
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .layout = kv_layout::page_list,
                                   .ragged_queries = true,
                                   .values = draw::integers});
            INFO("form " << static_cast<int>(form) << ", sharing " << static_cast<int>(share));
            check_prefill(in, with(hip_tiny, share), 0, causal{}, 0, {.gamma = 12, .dense_tail = 8, .form = form});
        }
}

TEST_CASE("sparse_prefill: layouts, masks, cap and tails of every length", "[gpu]") {
    for (auto const layout : {kv_layout::contiguous, kv_layout::ragged, kv_layout::block_table, kv_layout::page_list})
        for (bool const ragged : {false, true}) {
            attend_input<bf16> in({.queries = {130, ragged ? 7 : 130},
                                   .keys = {900, 640},
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .layout = layout,
                                   .ragged_queries = ragged,
                                   .values = draw::integers});
            INFO("layout " << static_cast<int>(layout) << ", ragged rows " << ragged);
            for (std::int32_t const tail : {1, 64, 130, 1000}) {
                INFO("tail " << tail);
                check_prefill(in, three_stages, tail);
            }
            check_prefill(in, three_stages, 16, causal{300}, 30);
            check_prefill(in, three_stages, 16, full{});
        }
}

TEST_CASE("sparse_prefill: the default preset", "[gpu]") {
    attend_input<bf16> in({.queries = {200},
                           .keys = {12000},
                           .heads = 4,
                           .kv_heads = 2,
                           .head_dim = 128,
                           .layout = kv_layout::block_table,
                           .values = draw::integers});
    check_prefill(in, hip_3k, 64);
}

TEST_CASE("sparse_prefill: with room for everything it is dense attention; again it gives the same bits", "[gpu]") {
    attend_input<bf16> in({.queries = {90, 90}, .keys = {560, 300}, .heads = 4, .kv_heads = 2});
    auto const dense = testing::expect_attend(in, [](auto&) {});
    prune_method method = hip_tiny;
    method.stages[0].keep = method.stages[1].keep = 80;
    auto bytes = check_prefill(in, method, 0);
    testing::check_close<bf16>(in.output(bytes.data()), in.lse(bytes.data()), dense);
    CHECK((check_prefill(in, method, 0) == bytes));
}

TEST_CASE("sparse_decode: 48 steps with growing contexts", "[gpu]") {
    for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
        for (auto const layout : {kv_layout::contiguous, kv_layout::block_table}) {
            decoding d({400, 30, 170}, 48, with(three_stages, share), layout);
            for (std::int32_t s = 0; s < 48; ++s) {
                INFO("sharing " << static_cast<int>(share) << ", layout " << static_cast<int>(layout) << ", step "
                                << s);
                d.begin(s);
                testing::run_on_device(d.device_params());
                d.check();
                d.grow();
            }
        }
}

TEST_CASE("sparse_decode: small, attention merges its splits and counts the step", "[gpu][small]") {
    prune_method method = with(three_stages, sharing::per_batch);
    method.window.recent = 150;
    decoding d({260, 0, 40}, 5, method);
    for (std::int32_t s = 0; s < 5; ++s) {
        INFO("step " << s);
        d.begin(s);
        CHECK(testing::run_on_device(d.device_params()).attend.merges_itself());
        d.check();
        d.grow();
    }
}

TEST_CASE("sparse_decode: small", "[gpu][small]") {
    decoding d({150, 0}, 3, three_stages);
    for (std::int32_t s = 0; s < 3; ++s) {
        d.begin(s);
        testing::run_on_device(d.device_params());
        d.check();
        d.grow();
    }
}

TEST_CASE("sparse_decode: a cache that was never reset is read and written inside its bounds", "[gpu][small]") {
    // Outputs mean nothing then; the sanitizer sees that no access is out of bounds, and what follows a reset is right.
    for (std::int32_t const garbage :
         {std::numeric_limits<std::int32_t>::min(), -1, 7, 100, 1 << 20, std::numeric_limits<std::int32_t>::max()}) {
        decoding d({150, 80}, 1, three_stages);
        for (std::int32_t const step : {1, 2, 4}) {  // nothing is due, the third stage, the second and third
            d.step = std::vector<std::int32_t>(d.step.size(), step);
            d.upload_cache();
            std::vector<std::int32_t> const lists(d.lists.size(), garbage);
            d.list_memory.upload(lists.data(), lists.size() * 4);
            d.begin(0);
            testing::run_on_device(d.device_params());
            CHECK(d.memory.stray_write(d.memory.download()) == -1);
            CHECK(d.list_memory.guard_intact());
        }
    }
}

TEST_CASE("sparse_decode: the default preset with its own intervals", "[gpu]") {
    for (scorer const how : {scorer::tree_probe, scorer::mean_key}) {
        decoding d({9000, 2000}, 18, with(hip_3k, sharing::per_batch, how));
        d.intervals = refresh_default;
        for (std::int32_t s = 0; s < 18; ++s) {
            INFO("scorer " << static_cast<int>(how) << ", step " << s);
            d.begin(s);
            testing::run_on_device(d.device_params());
            d.check();
            d.grow();
        }
    }
}

TEST_CASE("sparse_decode: requests join, leave, move, pause, are truncated and forked", "[gpu]") {
    decoding d({300, 120, 40, 220}, 40, with(three_stages, sharing::per_kv_group));
    for (std::int32_t s = 0; s < 40; ++s) {
        if (s == 5) d.slot[1] = -1;              // pauses: its slot keeps its lists and steps
        if (s == 9) d.slot[1] = 3;               // and goes on
        if (s == 12) d.in.key_lengths()[2] = 0;  // leaves; the row is padding from here on
        if (s == 15) d.in.key_lengths()[2] = 35, d.slot[2] = 0, d.step[0] = 0;  // another request in a new slot
        if (s == 20) d.in.key_lengths()[0] = 60, d.step[4] = 0;                 // truncated: its slot starts afresh
        if (s == 23) d.slot[3] = 100;                                           // a slot that does not exist is padding
        if (s == 25) d.slot[3] = 5, d.step[5] = 0;                              // moves, with everything computed anew
        if (s == 30) {  // the second request goes on as a fork of the first, in a slot that another one has left
            for (std::int32_t j = 0; j < d.in.key_lengths()[0]; ++j)
                for (std::int32_t h = 0; h < d.kv_heads; ++h)
                    for (std::int32_t c = 0; c < 64; ++c) {
                        d.in.key(1, j, h, c) = d.in.key(0, j, h, c);
                        d.in.value(1, j, h, c) = d.in.value(0, j, h, c);
                    }
            d.in.key_lengths()[1] = d.in.key_lengths()[0], d.slot[1] = 1, d.step[1] = 0;
        }
        d.upload_cache();
        INFO("step " << s);
        d.begin(s);
        testing::run_on_device(d.device_params());
        d.check();
        d.grow();
    }
}

TEST_CASE("sparse_decode: without slots each row has its own", "[gpu]") {
    decoding d({300, 120}, 10, three_stages);
    d.slot = {0, 1};
    for (std::int32_t s = 0; s < 10; ++s) {
        INFO("step " << s);
        d.begin(s);
        auto p = d.device_params();
        p.cache.slot = nullptr;
        testing::run_on_device(p);
        d.check();
        d.grow();
    }
}

TEST_CASE("sparse_decode: one captured graph serves 1000 steps of changing state", "[gpu]") {
    // With the short window attention has one split; with the long one its last blocks merge and count the step.
    std::int32_t const recent = GENERATE(16, 200);
    INFO("window " << recent);
    auto const seen = replay_changing_batch(6, 1000, recent);
    for (int const times : seen.events) CHECK(times >= 10);
    for (int const times : seen.due) CHECK(times >= 100);
    CHECK(seen.padded_rows >= 100);
}

TEST_CASE("sparse_decode: one captured graph serves a short run of changing state", "[gpu][small]") {
    auto const seen = replay_changing_batch(3, 24, 200);
    for (int const times : seen.due) CHECK(times >= 1);
}

TEST_CASE("sparse_decode: blocks count right whatever the workspace holds and whichever stages are due",
          "[gpu][small]") {
    // Lists of several blocks and units, of heads that share one and of heads that have equal ones, and of four query
    // blocks of which a step has one; rows in different refresh states, one of them padding, one empty. The graph is
    // replayed over a workspace full of garbage.
    constexpr prune_method wide{.stages = {{16, 2, 32, 20}, {4, 1, 8, 30}}, .stage_count = 2, .window = {16, 40}};
    struct {
        scorer how;
        sharing share;
        probe_path path;
    } const ways[] = {{scorer::tree_probe, sharing::per_batch, probe_path::per_kv_group},
                      {scorer::tree_probe, sharing::per_head, probe_path::per_kv_group},
                      {scorer::tree_probe, sharing::per_kv_group, probe_path::per_head},
                      {scorer::tree_probe_first, sharing::per_head, probe_path::per_head},
                      {scorer::centre_probe, sharing::per_head, probe_path::per_head},
                      {scorer::mean_key, sharing::per_batch, probe_path::per_head},
                      {scorer::min_max_bound, sharing::per_kv_group, probe_path::per_head},
                      {scorer::antidiagonal, sharing::per_batch, probe_path::per_head}};
    for (auto const& way : ways) {
        prune_method method = with(wide, way.share, way.how);
        method.path = way.path;
        INFO("scorer " << static_cast<int>(way.how) << ", sharing " << static_cast<int>(way.share) << ", path "
                       << static_cast<int>(way.path));
        decoding d({2000, 700, 0, 1200}, 10, method);
        auto const p = d.device_params();
        auto const plan = winnow::plan(p, testing::current_device());
        REQUIRE(plan.why.ok());
        device_memory scratch(plan.workspace_bytes, 4096);
        d.begin(0);
        testing::run_on_device(p);  // the code is on the device now; what it did is undone
        d.upload_cache();
        std::vector<std::int32_t> const unset(d.lists.size(), -1);
        d.list_memory.upload(unset.data(), unset.size() * 4);
        testing::captured_graph const graph([&](cudaStream_t stream) {
            REQUIRE(testing::gpu_launch(p, plan, {scratch.data(), plan.workspace_bytes}, stream).ok());
        });
        for (std::int32_t s = 0; s < 10; ++s) {
            if (s == 3) d.step[4] = 0;                 // the first row starts afresh while others go on
            if (s == 5) d.slot[3] = -1;                // padding beside rows of which nothing is due
            if (s == 6) d.slot[3] = 1, d.step[3] = 0;  // it goes on, and the second row starts afresh
            d.upload_cache();
            std::vector<std::int32_t> garbage(plan.workspace_bytes / 4);
            for (std::size_t i = 0; i < garbage.size(); ++i)
                garbage[i] = s % 3 == 0 ? -1 : s % 3 == 1 ? 1 : static_cast<std::int32_t>(i * 2654435761u);
            scratch.upload(garbage.data(), garbage.size() * 4);
            INFO("step " << s);
            d.begin(s);
            graph.replay();
            d.check();
            d.grow();
        }
        CHECK(scratch.guard_intact());
    }
}

TEST_CASE("sparse_decode: lists about as long as a scoring block can select", "[gpu]") {
    // Longer ones are selected by a kernel of their own, here in the first stage and not in the second.
    constexpr prune_method fine{.stages = {{16, 1, 32, 150}, {16, 1, 8, 50}}, .stage_count = 2, .window = {16, 64}};
    for (auto const share : {sharing::per_batch, sharing::per_head})
        for (std::int32_t const keys : {65500, 66000}) {
            prune_method const method = with(fine, share, scorer::centre_probe);
            CHECK(selects_in_place(true, stage_candidates(method, 0, keys + 3)) == (keys == 65500));
            CHECK(selects_in_place(true, stage_candidates(method, 1, keys + 3)));
            decoding d({keys, 500}, 3, method);
            for (std::int32_t s = 0; s < 3; ++s) {
                INFO("sharing " << static_cast<int>(share) << ", keys " << keys << ", step " << s);
                d.begin(s);
                testing::run_on_device(d.device_params());
                d.check();
                d.grow();
            }
        }
}

TEST_CASE("sparse_decode: a request's bits do not depend on its neighbours", "[gpu]") {
    prune_method method = three_stages;
    method.window.recent = GENERATE(16, 200);
    decoding together({500, 120, 333}, 12, method);
    std::vector<std::unique_ptr<decoding>> alone;
    for (int b = 0; b < 3; ++b) {
        alone.push_back(std::make_unique<decoding>(std::vector<std::int32_t>{500, 120, 333}, 12, method));
        for (int other = 0; other < 3; ++other)
            if (other != b) alone.back()->slot[static_cast<std::size_t>(other)] = -1;
        alone.back()->upload_cache();
    }
    for (std::int32_t s = 0; s < 12; ++s) {
        auto const run = [s](decoding& d) {
            d.begin(s);
            testing::run_on_device(d.device_params());
            auto bytes = d.memory.download();
            d.grow();
            return std::pair{d.in.output(bytes.data()), d.in.lse(bytes.data())};
        };
        auto const [outputs, lses] = run(together);
        std::ptrdiff_t const heads = together.heads, width = heads * together.head_dim;
        for (int b = 0; b < 3; ++b) {
            INFO("step " << s << ", request " << b);
            auto const [output, lse] = run(*alone[static_cast<std::size_t>(b)]);
            CHECK(
                std::equal(outputs.begin() + b * width, outputs.begin() + (b + 1) * width, output.begin() + b * width));
            CHECK(std::equal(lses.begin() + b * heads, lses.begin() + (b + 1) * heads, lse.begin() + b * heads));
            int const padded = (b + 1) % 3;
            CHECK(lse[static_cast<std::size_t>(padded * heads)] == -infinity);
            CHECK(output[static_cast<std::size_t>(padded * width)] == 0);
        }
    }
}

TEST_CASE("sparse_prefill rotated: against the oracle", "[gpu]") {
    for (std::int32_t const head_dim : {64, 128})
        for (auto const scan : {scan_style::relative, scan_style::chunk_indexed}) {
            attend_input<bf16> in({.queries = {150, 150},
                                   .keys = {700, 411},
                                   .heads = 6,
                                   .kv_heads = 2,
                                   .head_dim = head_dim,
                                   .layout = kv_layout::block_table});
            device_copy<bf16> memory(in);
            auto const set = [&](attend_params<bf16> const& a) {
                auto p = prefill_of(a, with(three_stages, sharing::per_kv_group), 40);
                p.rotation = {.theta = 1e4f}, p.scan = scan;
                return p;
            };
            testing::run_on_device(set(memory.params()));
            auto bytes = memory.download();
            CHECK(memory.stray_write(bytes) == -1);
            INFO("head_dim " << head_dim << ", scan " << static_cast<int>(scan));
            testing::check_close<bf16>(in.output(bytes.data()), in.lse(bytes.data()), expect_prefill(set(in.params())));
        }
}

TEST_CASE("sparse_decode rotated: lists from earlier steps keep their own ranks", "[gpu]") {
    for (auto const scan : {scan_style::relative, scan_style::chunk_indexed})
        for (auto const share : {sharing::per_batch, sharing::per_head}) {
            decoding d({400, 30, 170}, 20, with(three_stages, share), kv_layout::block_table, draw::normal);
            d.rotation = {.theta = 1e4f}, d.scan = scan;
            for (std::int32_t s = 0; s < 20; ++s) {
                INFO("scan " << static_cast<int>(scan) << ", sharing " << static_cast<int>(share) << ", step " << s);
                d.begin(s);
                testing::run_on_device(d.device_params());
                d.check();
                d.grow();
            }
        }
}

TEST_CASE("sparse_decode rotated: small", "[gpu][small]") {
    decoding d({150, 0}, 3, three_stages, kv_layout::block_table, draw::normal);
    d.rotation = {.theta = 1e4f};
    for (std::int32_t s = 0; s < 3; ++s) {
        d.begin(s);
        testing::run_on_device(d.device_params());
        d.check();
        d.grow();
    }
}
