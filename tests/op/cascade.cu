// The cascade operators against the oracle, chunk after chunk: outputs, lse and scores within derived tolerances, caches
// after an insertion to the bit; ragged batches, causality, graphs, forks, long sequences, refused calls.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "support/cascade_input.hpp"
#include "support/catch.hpp"
#include "support/gpu_device.hpp"
#include "support/tolerance.hpp"
#include "winnow/reference/cascade.hpp"

using namespace winnow;
using testing::cascade_input;
using testing::cascade_shape;
using testing::device_memory;
using testing::random_source;

namespace {

using lengths = std::vector<std::int32_t>;

rope const halves = {.theta = 1e4f};
rope const adjacent = {.theta = 5e5f, .rotary_dim = 32, .pairing = rope_pairing::adjacent};

// What is wrong with scores; empty if nothing is. As testing::compare, but probabilities have a floor of their own: an
// exponent between -16 and 16 is rounded to 2^-20, and 2^x and log2 x are good to 2^-22. `twice`: the twin rounds other
// numbers than the kernel, whose keys are rotated by other angles, so that the largest error of a few is another one.
std::string wrong_scores(std::vector<double> const& values, std::vector<double> const& oracle,
                         std::vector<double> const& rounded, bool twice) {
    if (values.size() != oracle.size() || rounded.size() != oracle.size()) return "sizes differ";
    if (auto const i = testing::misplaced(values, oracle); i < oracle.size())
        return "NaN or inf at " + std::to_string(i) + ": found " + std::to_string(values[i]);
    double scale = 0;
    for (double const x : oracle) scale = std::isfinite(x) ? std::fmax(scale, std::fabs(x)) : scale;
    auto const kernel = testing::distance_of(values, oracle), twin = testing::distance_of(rounded, oracle);
    double const allowed = (twice ? 4 : 2) * twin.most + 0x1p-18 * scale;
    if (kernel.most <= allowed) return "";
    return "off by " + std::to_string(1e6 * kernel.most) + "e-6 at " + std::to_string(kernel.at) + ", allowed " +
           std::to_string(1e6 * allowed) + "e-6";
}

// Host memory of an input and its copy on the device, kept in step.
template <class T>
class both {
public:
    explicit both(cascade_shape const& shape) : in(shape), device_(in.memory().size(), 4096) {}
    cascade_input<T> in;

    void upload() { device_.upload(in.memory().base(), in.memory().size()); }
    std::vector<char> download() const {
        CHECK(device_.guard_intact());
        return device_.template download<char>();
    }
    void* device() const { return device_.data(); }
    // Takes the device's memory over.
    void accept(std::vector<char> const& bytes) { std::memcpy(in.memory().base(), bytes.data(), bytes.size()); }
    bool same(std::vector<char> const& bytes) {
        return std::memcmp(in.memory().base(), bytes.data(), bytes.size()) == 0;
    }

    // Attention of one step on both sides; the device's results stay.
    void attend() {
        upload();
        testing::run_on_device(in.attend(device_.data()));
        std::vector<char> after = download();
        reference::cascade_result exact, rounded;
        std::vector<char> before(in.memory().base(), in.memory().base() + in.memory().size());
        auto const host = in.attend(in.memory().base());
        REQUIRE(reference::cascade_attend_rounded(host, rounded, testing::all_threads()).ok());
        REQUIRE(reference::cascade_attend(host, &exact, testing::all_threads()).ok());
        auto const found = in.attend(after.data());
        auto const output = testing::compare<T>(in.values_of(found.output), exact.output, rounded.output);
        INFO("output: " << output.message);
        CHECK(output.ok);
        if (!found.lse.empty()) {
            auto const lse = testing::compare_lse(in.values_of(found.lse.values), exact.lse, rounded.lse);
            INFO(lse.message);
            CHECK(lse.ok);
        }
        if (found.takes_scores()) {
            // Together: a decode step alone has too few scores for a twin's largest error to mean something.
            auto const together = [](std::vector<double> a, std::vector<double> const& b) {
                a.insert(a.end(), b.begin(), b.end());
                return a;
            };
            std::string const wrong = wrong_scores(
                together(in.values_of(found.scores), in.slot_scores(found.cache)), together(exact.scores, exact.slots),
                together(rounded.scores, rounded.slots), in.shape().stored == cascade_keys::with_rotated);
            CHECK(wrong == "");
        }
        // Nothing else was written: the host wrote the same places.
        auto const touched = [&](std::size_t i) { return in.memory().base()[i] != before[i]; };
        std::size_t stray = 0;
        for (std::size_t i = 0; i < after.size(); i += 4) {  // words: a float may keep some of its bytes
            bool const allowed = touched(i) || touched(i + 1) || touched(i + 2) || touched(i + 3);
            if (!allowed && std::memcmp(&after[i], &before[i], 4) != 0 && !in.loose(i)) ++stray;
        }
        CHECK(stray == 0);
        accept(after);
    }
    // Insertion on both sides, to the bit.
    void insert() {
        upload();
        testing::run_on_device(in.insert(device_.data()));
        REQUIRE(reference::cascade_insert(in.insert(in.memory().base())).ok());
        std::vector<char> after = download();
        if (in.shape().stored == cascade_keys::with_rotated) {
            // Rotated in fp32 here and in double there: at most a rounding apart. The device's go on.
            auto const host = in.rotated_keys(in.cache(in.memory().base()));
            auto const found = in.rotated_keys(in.cache(after.data()));
            double worst = 0;
            for (std::size_t i = 0; i < host.size(); ++i)
                worst = std::fmax(worst, std::fabs(found[i] - host[i]) / std::fmax(std::fabs(host[i]), 1.0));
            CHECK(worst <= 2 * testing::unit_roundoff<T>);
            for (std::size_t i = 0; i < after.size(); ++i)
                if (after[i] != in.memory().base()[i] && in.loose(i)) in.memory().base()[i] = after[i];
        }
        CHECK(same(after));
    }
    void step(lengths const& tokens) {
        in.draw_step(tokens);
        attend();
        insert();
    }

private:
    device_memory device_;
};

template <class T>
void run(cascade_shape const& shape, std::vector<lengths> const& steps) {
    both<T> sides(shape);
    int n = 0;
    for (auto const& tokens : steps) {
        INFO("step " << n++ << ", sinks " << shape.layout.sinks << ", levels " << shape.layout.levels << ", slots "
                     << shape.layout.slots() << ", heads " << shape.heads << "/" << shape.kv_heads << ", head_dim "
                     << shape.head_dim << ", shared " << static_cast<int>(shape.token_heads) << ", seed "
                     << shape.seed);
        sides.step(tokens);
    }
}

cascade_layout uneven(std::int32_t sinks, std::vector<std::int32_t> const& sizes, bool eager = true) {
    cascade_layout layout;
    layout.sinks = sinks, layout.levels = static_cast<std::int32_t>(sizes.size()), layout.eager_fill = eager;
    std::copy(sizes.begin(), sizes.end(), layout.size);
    return layout;
}

}  // namespace

TEMPLATE_TEST_CASE("cascade: small", "[gpu][small]", bf16, fp16) {
    run<TestType>({.layout = even_cascade(2, 12, 3),
                   .heads = 4,
                   .kv_heads = 2,
                   .max_tokens = 21,
                   .rotation = halves,
                   .scorer = {all_queries{}, 0.9}},
                  {{7}, {21}, {1}, {1}, {5}, {0}});
    run<TestType>({.layout = uneven(3, {9, 4, 1}, false),
                   .heads = 2,
                   .token_heads = cascade_heads::shared,
                   .batch = 2,
                   .max_tokens = 70,
                   .ragged = true,
                   .rotation = adjacent,
                   .positions = cascade_positions::original,
                   .scorer = {last_queries<5>{}, 1.0, cascade_reduction::median}},
                  {{70, 2}, {0, 30}, {3, 1}});
}

TEMPLATE_TEST_CASE("cascade: chunk after chunk", "[gpu]", bf16, fp16) {
    std::uint64_t seed = 1;
    for (std::int32_t const head_dim : {64, 128, 256})
        for (cascade_heads const shared : {cascade_heads::per_kv_head, cascade_heads::shared})
            for (cascade_positions const positions : {cascade_positions::cached, cascade_positions::original}) {
                cascade_reduction const reduction = seed % 3 == 0   ? cascade_reduction::max
                                                    : seed % 3 == 1 ? cascade_reduction::mean
                                                                    : cascade_reduction::median;
                run<TestType>({.layout = seed % 2 == 0 ? even_cascade(4, 120, 4) : uneven(7, {61, 30, 17}),
                               .heads = seed % 4 == 0 ? 3 : 8,
                               .kv_heads = seed % 4 == 0 ? 3 : 2,
                               .head_dim = head_dim,
                               .token_heads = shared,
                               .max_tokens = 150,
                               .lse = seed % 3 != 0,
                               .head_major = seed % 5 == 0,
                               .rotation = seed % 3 == 1   ? rope{}
                                           : seed % 3 == 0 ? halves
                                                           : adjacent,
                               .positions = positions,
                               .scorer = {all_queries{}, seed % 2 == 0 ? 0.99 : 0.9999999, reduction},
                               .seed = seed},
                              {{150}, {65}, {64}, {3}, {1}, {1}, {97}});
                ++seed;
            }
}

TEMPLATE_TEST_CASE("cascade: decode over rows as they lie", "[gpu]", bf16, fp16) {
    std::uint64_t seed = 1;
    for (std::int32_t const head_dim : {64, 128, 256})
        for (cascade_positions const positions : {cascade_positions::cached, cascade_positions::original})
            for (cascade_heads const shared : {cascade_heads::per_kv_head, cascade_heads::shared}) {
                std::int32_t const batch = seed % 3 == 0 ? 2 : 1;
                auto const all = [&](std::int32_t n) { return lengths(static_cast<std::size_t>(batch), n); };
                run<TestType>({.layout = seed % 2 == 0 ? even_cascade(4, 120, 4) : uneven(5, {61, 30, 17}),
                               .heads = seed % 4 == 0 ? 3 : 8,
                               .kv_heads = seed % 4 == 0 ? 3 : 2,
                               .head_dim = head_dim,
                               .token_heads = shared,
                               .batch = batch,
                               .max_tokens = 150,
                               .sequence = batch == 2 ? lengths{2, 0} : lengths{},
                               .sequences = batch == 2 ? 3 : 0,
                               .lse = seed % 2 != 0,
                               .head_major = seed % 5 == 0,
                               .rotation = seed % 3 == 1   ? rope{}
                                           : seed % 3 == 0 ? halves
                                                           : adjacent,
                               .positions = positions,
                               .scorer = {all_queries{}, 0.99},
                               .stored = cascade_keys::with_rotated,
                               .seed = seed},
                              {all(1), all(1), all(40), all(1), all(150), all(1), all(1), all(1), all(70), all(1)});
                ++seed;
            }
}

TEST_CASE("cascade: decode over rows as they lie, small", "[gpu][small]") {
    run<bf16>({.layout = uneven(3, {9, 4, 1}),
               .heads = 4,
               .kv_heads = 2,
               .batch = 3,
               .max_tokens = 20,
               .sequence = {1, -1, 0},
               .sequences = 2,
               .rotation = halves,
               .stored = cascade_keys::with_rotated},
              {{1, 1, 1}, {20, 20, 20}, {1, 1, 1}, {1, 1, 1}, {3, 3, 3}, {1, 1, 1}});
}

TEST_CASE("cascade: a first chunk of any size, many tokens at a time, an estimate", "[gpu]") {
    for (std::int32_t const first : {1, 2, 63, 64, 65, 300, 700})
        run<bf16>({.layout = even_cascade(4, 64, 4), .max_tokens = 700, .rotation = halves}, {{first}, {40}});
    run<bf16>({.layout = even_cascade(64, 256, 2),
               .heads = 4,
               .max_tokens = 400,
               .rotation = halves,
               .scorer = {last_queries<100>{}, 0.999}},
              {{400}, {300}, {99}});
    run<fp16>({.layout = sliding_window(4, 60), .max_tokens = 100, .scored = false, .rotation = halves},
              {{100}, {30}, {1}, {1}});
}

TEST_CASE("cascade: ragged batches, padding, and sequences in any order", "[gpu]") {
    for (bool const shared : {false, true})
        run<bf16>({.layout = even_cascade(3, 48, 3),
                   .heads = 4,
                   .kv_heads = 2,
                   .token_heads = shared ? cascade_heads::shared : cascade_heads::per_kv_head,
                   .batch = 4,
                   .max_tokens = 90,
                   .ragged = true,
                   .sequence = {5, -1, 0, 3},
                   .sequences = 6,
                   .rotation = halves},
                  {{90, 3, 1, 40}, {0, 10, 80, 1}, {1, 1, 1, 1}, {33, 0, 0, 64}});
    run<bf16>({.layout = even_cascade(3, 48, 3),
               .heads = 4,
               .kv_heads = 2,
               .batch = 3,
               .max_tokens = 20,
               .sequence = {1, 7, 0},
               .sequences = 2},
              {{20, 20, 20}, {20, 20, 20}, {1, 1, 1}});
}

TEST_CASE("cascade: the same bits alone and in a batch", "[gpu]") {
    cascade_shape shape{.layout = even_cascade(3, 48, 3),
                        .heads = 4,
                        .kv_heads = 2,
                        .batch = 3,
                        .max_tokens = 40,
                        .ragged = true,
                        .rotation = halves};
    both<bf16> sides(shape);
    std::vector<lengths> const steps{{40, 40, 40}, {17, 40, 3}, {1, 1, 1}};
    for (auto const& tokens : steps) {
        sides.in.draw_step(tokens);
        sides.upload();
        auto const p = sides.in.attend(sides.device());
        testing::run_on_device(p);
        testing::run_on_device(sides.in.insert(sides.device()));
        auto const together = sides.download();
        for (std::int32_t b = 0; b < 3; ++b) {  // request b alone, with the batch's maxima
            sides.upload();
            auto one = sides.in.attend(sides.device());
            one.rows.batch = 1, one.rows.start += b;
            one.queries.extent[1] = one.keys.extent[1] = one.values.extent[1] = one.output.extent[1] =
                one.lse.values.extent[1] = one.scores.extent[1] = one.rows.max_length;
            device_memory which(4);
            which.upload(&b, 4);
            one.sequence = which.as<std::int32_t>();
            // The tensors stay where they are: rows are found through the offsets. Their extents must hold a request.
            one.queries.extent[1] = p.queries.extent[1], one.keys.extent[1] = p.keys.extent[1];
            one.values.extent[1] = p.values.extent[1], one.output.extent[1] = p.output.extent[1];
            one.lse.values.extent[1] = p.lse.values.extent[1], one.scores.extent[1] = p.scores.extent[1];
            testing::run_on_device(one);
            testing::run_on_device(insert_part(one));
            auto alone = sides.download();
            auto const all = sides.in.attend(const_cast<char*>(together.data())), mine = sides.in.attend(alone.data());
            auto const bytes = static_cast<std::size_t>(all.cache.sequence_bytes());
            CHECK(std::memcmp(all.cache.counters(b), mine.cache.counters(b), bytes) == 0);
            auto const start = all.rows.start[b], count = all.rows.start[b + 1] - start;
            CHECK(std::memcmp(&all.output(0, start, 0, 0), &mine.output(0, start, 0, 0),
                              static_cast<std::size_t>(count * 4 * 64) * 2) == 0);
        }
        sides.accept(together);
    }
}

TEST_CASE("cascade: a decode step over rows as they lie has the same bits alone and in a batch", "[gpu]") {
    both<bf16> sides({.layout = even_cascade(3, 48, 3),
                      .heads = 4,
                      .kv_heads = 2,
                      .batch = 3,
                      .max_tokens = 70,
                      .rotation = halves,
                      .stored = cascade_keys::with_rotated});
    sides.step({70, 70, 70});
    sides.in.draw_step({1, 1, 1});
    sides.upload();
    auto const p = sides.in.attend(sides.device());
    testing::run_on_device(p);
    testing::run_on_device(insert_part(p));
    auto together = sides.download();
    auto const all = sides.in.attend(together.data());
    for (std::int32_t b = 0; b < 3; ++b) {
        sides.upload();
        auto one = p;
        auto const take = [&](auto& view) { view.data += view.offset(b), view.extent[0] = 1; };
        take(one.queries), take(one.keys), take(one.values), take(one.output), take(one.lse.values), take(one.scores);
        device_memory which(4);
        which.upload(&b, 4);
        one.sequence = which.as<std::int32_t>();
        testing::run_on_device(one);
        testing::run_on_device(insert_part(one));
        auto alone = sides.download();
        auto const mine = sides.in.attend(alone.data());
        CHECK(std::memcmp(&all.output(b, 0, 0, 0), &mine.output(b, 0, 0, 0), 4 * 64 * 2) == 0);
        CHECK(std::memcmp(all.cache.counters(b), mine.cache.counters(b),
                          static_cast<std::size_t>(all.cache.sequence_bytes())) == 0);
    }
}

TEST_CASE("cascade: insertion is the sequential one to the bit", "[gpu]") {
    random_source random(11);
    for (int i = 0; i < 360; ++i) {
        cascade_shape shape;
        shape.layout = testing::random_cascade(random, i % 4 == 0 ? 40 : 9);
        shape.kv_heads = shape.heads = random.between(1, 3);
        shape.token_heads = random.below(3) == 0 ? cascade_heads::shared : cascade_heads::per_kv_head;
        shape.batch = random.between(1, 2);
        shape.max_tokens = i % 16 == 0 ? 600 : i % 3 == 0 ? 2 : 140;  // few moves take another way
        if (i % 9 == 0) shape.head_dim = 256;
        shape.ragged = random.below(2) == 0;
        shape.seed = static_cast<std::uint64_t>(i);
        both<bf16> sides(shape);
        for (int step = 0; step < 3; ++step) {
            lengths tokens(static_cast<std::size_t>(shape.batch), random.between(1, shape.max_tokens));
            if (shape.ragged)
                for (auto& n : tokens) n = random.between(0, random.below(2) == 0 ? 3 : shape.max_tokens);
            INFO("configuration " << i << ", step " << step);
            sides.in.draw_step(tokens);
            sides.in.draw_scores(1 + random.below(12));
            sides.insert();
        }
    }
}

TEST_CASE("cascade: without scores newcomers win; NaN loses", "[gpu][small]") {
    both<bf16> sides({.layout = even_cascade(1, 6, 3), .max_tokens = 40, .scored = false});
    sides.insert();
    both<bf16> other({.layout = even_cascade(1, 6, 3), .max_tokens = 40});
    other.in.draw_scores(3);
    auto const p = other.in.attend(other.in.memory().base());
    for (std::int64_t t = 0; t < 40; t += 3) p.scores(0, t, 0) = std::numeric_limits<float>::quiet_NaN();
    other.insert();
}

TEST_CASE("cascade: a million tokens, and counters beyond 2^31", "[gpu]") {
    cascade_layout const layout = even_cascade(4, 256, 4);
    both<bf16> sides({.layout = layout, .heads = 1, .max_tokens = 1 << 16});
    for (int chunk = 0; chunk < 16; ++chunk) {
        sides.in.draw_scores(50);
        sides.insert();
    }
    auto* const counters = sides.in.cache(sides.in.memory().base()).counters(0);
    CHECK(counters->seen == 1 << 20);
    counters->seen = (std::int64_t{1} << 31) - 20;
    both<bf16> later({.layout = layout, .heads = 2, .max_tokens = 50, .rotation = halves});
    later.step({50});
    later.step({50});
    later.in.cache(later.in.memory().base()).counters(0)->seen = (std::int64_t{1} << 33) - 20;
    later.step({50});
    later.step({1});
}

TEST_CASE("cascade: offsets beyond 2^31", "[gpu][big]") {
    // The second of two caches of 2^22 slots begins beyond 2^32 bytes, and so do its values within it. With few tokens
    // in it, it holds what a small cache holds.
    cascade_shape shape{
        .layout = sliding_window(3, 500), .heads = 2, .head_dim = 256, .max_tokens = 100, .rotation = halves};
    both<bf16> small(shape);
    small.upload();
    auto attend = small.in.attend(small.device());
    cascade_cache<bf16> large = attend.cache;
    large.layout.size[0] = 1 << 22, large.sequences = 2;
    std::size_t available = 0, total = 0;
    testing::require_cuda(cudaMemGetInfo(&available, &total));
    if (available <= 2 * cascade_bytes(large)) {
        std::puts("cascade, offsets beyond 2^31: not enough free device memory, nothing tested");
        return;
    }
    device_memory memory(cascade_bytes(large)), second(4);
    std::int32_t const one = 1;
    second.upload(&one, 4);
    large.memory = memory.data();
    testing::require_cuda(cudaMemset(large.counters(1), 0, sizeof(cascade_counters)));
    auto far = attend;
    far.cache = large, far.sequence = second.as<std::int32_t>();
    device_memory output(static_cast<std::size_t>(attend.output.size()) * 2);
    far.output.data = output.as<bf16>();
    for (int step = 0; step < 3; ++step) {
        small.in.draw_step({100});
        auto const bytes = static_cast<std::size_t>(static_cast<char const*>(attend.cache.memory) -
                                                    static_cast<char const*>(small.device()));
        testing::require_cuda(cudaMemcpy(small.device(), small.in.memory().base(), bytes, cudaMemcpyHostToDevice));
        testing::run_on_device(attend), testing::run_on_device(insert_part(attend));
        auto near = small.download();
        testing::run_on_device(far), testing::run_on_device(insert_part(far));
        auto const found = output.download<char>();
        CHECK(std::memcmp(found.data(), small.in.attend(near.data()).output.data, found.size()) == 0);
    }
}

TEST_CASE("cascade: rows see no later token", "[gpu][small]") {
    // Sinks and slots that are no multiple of a tile (4 + 19), where a padded boundary would leak.
    cascade_shape const shape{.layout = uneven(4, {11, 8}), .max_tokens = 90, .rotation = halves};
    both<bf16> one(shape), two(shape);
    for (int step = 0; step < 2; ++step) {
        one.in.draw_step({90}), two.in.draw_step({90});
        auto const a = two.in.attend(two.in.memory().base());
        std::int64_t const cut = 37;
        for (std::int64_t t = cut; t < 90; ++t)
            for (std::int64_t c = 0; c < 64; ++c)
                const_cast<bf16&>(a.keys(0, t, 0, c)) = from_float<bf16>(30.0f),
                                                  const_cast<bf16&>(a.values(0, t, 0, c)) = from_float<bf16>(-9.0f);
        one.upload(), two.upload();
        testing::run_on_device(one.in.attend(one.device())), testing::run_on_device(two.in.attend(two.device()));
        auto first = one.download(), second = two.download();
        auto const x = one.in.attend(first.data()), y = two.in.attend(second.data());
        CHECK(std::memcmp(&x.output(0, 0, 0, 0), &y.output(0, 0, 0, 0), static_cast<std::size_t>(cut) * 2 * 64 * 2) ==
              0);
        CHECK(std::memcmp(&x.output(0, cut, 0, 0), &y.output(0, cut, 0, 0), 2 * 64 * 2) != 0);
        one.attend(), one.insert();
        two.accept({one.in.memory().base(), one.in.memory().base() + one.in.memory().size()});
    }
}

TEST_CASE("cascade: while nothing has been lost it is dense attention", "[gpu]") {
    for (rope const& rotation : {rope{}, halves}) {
        cascade_shape shape{.layout = even_cascade(5, 120, 4),
                            .heads = 4,
                            .kv_heads = 2,
                            .max_tokens = 125,
                            .rotation = rotation,
                            .scorer = {all_queries{}, 0.99}};
        // All at once on the host, from an empty cache: causal attention of the chunk alone.
        both<bf16> whole(shape);
        auto const dense = whole.in.attend(whole.in.memory().base());
        reference::cascade_result exact, rounded;
        REQUIRE(reference::cascade_attend_rounded(dense, rounded).ok());
        REQUIRE(reference::cascade_attend(dense, &exact).ok());
        // In chunks on the device.
        for (std::int32_t const chunk : {125, 40, 7}) {
            whole.upload();
            auto const d = whole.in.attend(whole.device());
            cascade_prefill_params<bf16> p;
            p.queries = d.queries, p.keys = d.keys, p.values = d.values, p.cache = d.cache, p.output = d.output;
            p.lse = d.lse, p.scale = d.scale, p.rotation = d.rotation, p.scorer = d.scorer, p.chunk = chunk;
            testing::run_on_device(p);
            auto after = whole.download();
            auto const verdict = testing::compare<bf16>(whole.in.values_of(whole.in.attend(after.data()).output),
                                                        exact.output, rounded.output);
            INFO("chunk " << chunk << ": " << verdict.message);
            CHECK(verdict.ok);
            auto* const counters = whole.in.cache(after.data()).counters(0);
            CHECK(counters->seen == 125);
            for (std::int32_t i = 0; i < 4; ++i) CHECK(counters->count[i] == 30);
        }
    }
}

TEST_CASE("cascade: prefill is attend and insert in turn, to the bit", "[gpu]") {
    auto const stored = GENERATE(cascade_keys::unrotated, cascade_keys::with_rotated);
    constexpr std::int32_t chunk = 33;  // three chunks, and one of a single token
    cascade_shape shape{.layout = uneven(3, {20, 10, 10}),
                        .heads = 4,
                        .kv_heads = 2,
                        .batch = 2,
                        .max_tokens = 100,
                        .sequence = {1, 0},
                        .rotation = halves,
                        .stored = stored};
    both<bf16> sides(shape);
    sides.upload();
    auto const d = sides.in.attend(sides.device());
    cascade_prefill_params<bf16> p;
    p.queries = d.queries, p.keys = d.keys, p.values = d.values, p.cache = d.cache, p.output = d.output, p.lse = d.lse;
    p.sequence = d.sequence, p.scale = d.scale, p.rotation = d.rotation, p.scorer = d.scorer, p.chunk = chunk;
    testing::run_on_device(p);
    auto const at_once = sides.download();
    sides.upload();
    device_memory scores(2 * chunk * 2 * 4);
    for (std::int64_t first = 0; first < 100; first += chunk) {
        auto const part = attend_part(p, first, std::min<std::int64_t>(chunk, 100 - first), scores.as<float>());
        testing::run_on_device(part);
        testing::run_on_device(insert_part(part));
    }
    CHECK((sides.download() == at_once));
}

TEST_CASE("cascade: captured steps", "[gpu][small]") {
    auto const stored = GENERATE(cascade_keys::unrotated, cascade_keys::with_rotated);
    cascade_shape const shape{.layout = even_cascade(2, 9, 3),
                              .heads = 4,
                              .kv_heads = 2,
                              .batch = 2,
                              .max_tokens = 1,
                              .rotation = halves,
                              .stored = stored};
    both<bf16> sides(shape);
    sides.upload();
    auto const attend = sides.in.attend(sides.device());
    auto const insert = sides.in.insert(sides.device());
    auto const attend_plan = plan(attend, testing::current_device());
    auto const insert_plan = plan(insert, testing::current_device());
    device_memory scratch(std::max(attend_plan.workspace_bytes, insert_plan.workspace_bytes));
    workspace const lent{scratch.data(), scratch.size()};
    testing::captured_graph const graph([&](cudaStream_t stream) {
        REQUIRE(testing::gpu_launch(attend, attend_plan, lent, stream).ok());
        REQUIRE(testing::gpu_launch(insert, insert_plan, lent, stream).ok());
    });
    CHECK(graph.kernels_and_others().second == 0);
    both<bf16> plain(shape);
    for (int step = 0; step < 25; ++step) {
        sides.in.draw_step({1, 1}), plain.in.draw_step({1, 1});
        // Only the chunk is new; the caches live on the device.
        auto const bytes = static_cast<std::size_t>(static_cast<char const*>(sides.in.cache(sides.device()).memory) -
                                                    static_cast<char const*>(sides.device()));
        testing::require_cuda(cudaMemcpy(sides.device(), sides.in.memory().base(), bytes, cudaMemcpyHostToDevice));
        graph.replay();
        plain.upload();
        testing::run_on_device(plain.in.attend(plain.device()));
        testing::run_on_device(plain.in.insert(plain.device()));
        plain.accept(plain.download());
        REQUIRE(plain.same(sides.download()));
    }
}

TEST_CASE("cascade: fork, reset, clear", "[gpu][small]") {
    both<bf16> sides({.layout = even_cascade(2, 12, 3), .batch = 3, .max_tokens = 30, .rotation = halves});
    sides.step({30, 30, 30});
    sides.upload();
    auto const cache = sides.in.cache(sides.device());
    auto const bytes = static_cast<std::size_t>(cache.sequence_bytes());
    REQUIRE(testing::gpu_cascade_fork(cache, 0, 2, nullptr).ok());
    REQUIRE(testing::gpu_cascade_reset(cache, 1, nullptr).ok());
    auto after = sides.download();
    auto const found = sides.in.cache(after.data()), before = sides.in.cache(sides.in.memory().base());
    CHECK(std::memcmp(found.counters(0), before.counters(0), bytes) == 0);
    CHECK(std::memcmp(found.counters(2), before.counters(0), bytes) == 0);
    CHECK(*found.counters(1) == cascade_counters{});
    sides.accept(after);
    sides.step({3, 30, 3});  // the sequence that was reset starts anew
    sides.upload();
    REQUIRE(testing::gpu_cascade_clear(cache, 1, nullptr).ok());
    after = sides.download();
    auto const now = sides.in.cache(after.data());
    char const* const cleared = reinterpret_cast<char const*>(now.counters(1));
    CHECK(std::all_of(cleared, cleared + bytes, [](char c) { return c == 0; }));
    CHECK(std::memcmp(now.counters(2), before.counters(2), bytes) == 0);

    status const s = testing::gpu_cascade_fork(cache, 3, 0, nullptr);
    CHECK(s.code == errc::out_of_range);
    CHECK(std::string(s.field) == "from");
    CHECK(std::string(testing::gpu_cascade_fork(cache, 0, -1, nullptr).field) == "to");
    CHECK(std::string(testing::gpu_cascade_reset(cache, 3, nullptr).field) == "sequence");
    CHECK(std::string(testing::gpu_cascade_clear(cache, -1, nullptr).field) == "sequence");
}

TEST_CASE("cascade: a refused launch writes nothing", "[gpu][small]") {
    both<bf16> sides({.layout = even_cascade(2, 12, 3), .max_tokens = 30, .rotation = halves});
    sides.upload();
    auto const attend = sides.in.attend(sides.device());
    auto const insert = sides.in.insert(sides.device());
    auto const a = plan(attend, testing::current_device());
    auto const i = plan(insert, testing::current_device());
    device_memory scratch(std::max(a.workspace_bytes, i.workspace_bytes));
    workspace const lent{scratch.data(), scratch.size()};
    auto other = attend;
    other.queries.extent[1] = other.keys.extent[1] = other.values.extent[1] = other.output.extent[1] = 20;
    other.lse.values.extent[1] = other.scores.extent[1] = 20;
    CHECK(testing::gpu_launch(other, a, lent, nullptr).code == errc::wrong_plan);
    CHECK(testing::gpu_launch(insert_part(other), i, lent, nullptr).code == errc::wrong_plan);
    CHECK(testing::gpu_launch(attend, a, {scratch.data(), a.workspace_bytes - 1}, nullptr).code ==
          errc::workspace_too_small);
    CHECK(testing::gpu_launch(insert, i, {scratch.data(), i.workspace_bytes - 1}, nullptr).code ==
          errc::workspace_too_small);
    other = attend;
    other.scale = 0;
    CHECK(testing::gpu_launch(other, a, lent, nullptr).code == errc::out_of_range);
    CHECK(testing::gpu_launch(other, plan(other, testing::current_device()), lent, nullptr).code == errc::out_of_range);
    testing::require_cuda(cudaDeviceSynchronize());
    CHECK(sides.same(sides.download()));
}
