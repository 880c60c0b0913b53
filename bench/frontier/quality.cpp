// Quality of every scorer and budget by the reference: attention mass kept, output error, recall of the true top blocks
// and planted needles found, as JSON.
//
//   bench_frontier_quality [recording] > quality.json    examples/data by default; minutes on two cores
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "../../examples/01_quickstart/recording.hpp"
#include "frontier/choices.hpp"
#include "winnow/reference/prune.hpp"
#include "winnow/reference/quality.hpp"

using namespace winnow;
using namespace winnow::bench;

namespace {

struct needle {
    std::int32_t head;  // the query head that looks for it
    std::int32_t position;
};

struct frontier_input {
    std::string name;
    quickstart::tensor queries, keys, values;
    std::vector<needle> needles;
};

struct generator {
    std::uint64_t state = 7;
    double uniform() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<double>(state >> 11) * 0x1p-53;
    }
    double normal() {
        double const u = 1 - uniform();
        return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * uniform());
    }
};

// Each head's queries share a direction. A needle lies along it, its neighbours less and less; all else is noise.
frontier_input plant(std::int32_t tokens, std::int32_t heads, std::int32_t kv_heads, std::int32_t needles_each) {
    constexpr std::int32_t head_dim = 64, rows = 64;
    frontier_input in{"needles", {rows, heads, head_dim, {}}, {tokens, kv_heads, head_dim, {}}, {}, {}};
    generator random;
    auto const at = [&](std::int32_t token, std::int32_t head, std::int32_t count, std::int32_t c) {
        return static_cast<std::size_t>((token * count + head) * head_dim + c);
    };
    std::vector<double> direction(static_cast<std::size_t>(heads * head_dim));
    for (auto& x : direction) x = random.normal();
    std::vector<double> keys(static_cast<std::size_t>(tokens * kv_heads * head_dim)), queries;
    for (auto& x : keys) x = random.normal();
    for (std::int32_t token = 0; token < rows; ++token)
        for (std::int32_t i = 0; i < heads * head_dim; ++i)
            queries.push_back(direction[static_cast<std::size_t>(i)] + 0.5 * random.normal());
    for (std::int32_t h = 0; h < heads; ++h)
        for (std::int32_t n = 0; n < needles_each; ++n) {
            auto const position = static_cast<std::int32_t>(128 + random.uniform() * (tokens - 512));
            in.needles.push_back({h, position});
            for (std::int32_t away = -24; away <= 24; ++away)
                for (std::int32_t c = 0; c < head_dim; ++c)
                    keys[at(position + away, h / (heads / kv_heads), kv_heads, c)] +=
                        1.5 * std::pow(0.85, std::abs(away)) * direction[static_cast<std::size_t>(h * head_dim + c)];
        }
    for (double const x : queries) in.queries.data.push_back(from_float<bf16>(static_cast<float>(x)));
    for (double const x : keys) in.keys.data.push_back(from_float<bf16>(static_cast<float>(x)));
    in.values = in.keys;
    for (auto& x : in.values.data) x = from_float<bf16>(static_cast<float>(random.normal()));
    return in;
}

double needles_found(frontier_input const& in, block_selection const& lists) {
    std::int32_t found = 0;
    auto const heads = static_cast<std::int32_t>(in.queries.heads);
    for (auto const& n : in.needles) {
        std::int32_t const list = list_head_of(n.head, heads, lists.list_heads()), m = 0;
        for (std::int32_t i = 0; i < lists.counts(0, list, m); ++i)
            if (lists.blocks(0, list, m, i) == n.position / lists.block_size) {
                ++found;
                break;
            }
    }
    return static_cast<double>(found) / static_cast<double>(in.needles.size());
}

void refuse(status const& s) {
    if (s) return;
    std::fprintf(stderr, "%s %s (%lld)\n", s.field, s.rule, static_cast<long long>(s.value));
    std::exit(1);
}

void measure_all(frontier_input const& in, bool& first) {
    reference::run_options const run{.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
    std::vector<bf16> output(in.queries.data.size());
    attend_params<bf16> attention{
        .queries = in.queries.view(),
        .keys = in.keys.view(),
        .values = in.values.view(),
        .output = packed_view(output.data(), {1, in.queries.tokens, in.queries.heads, in.queries.head_dim}),
        .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(in.queries.head_dim)))};
    reference::attend_result dense;
    refuse(reference::attend(attention, &dense, run));
    for (auto const& choice : frontier_choices)
        for (std::int32_t const budget : frontier_budgets) {
            prune_params<bf16> p{
                .queries = in.queries.view(), .keys = in.keys.view(), .method = small_method(choice, budget)};
            reference::selection_storage const lists(p.method, p.shape());
            p.selection = lists.view;
            refuse(reference::prune(p, nullptr, run));
            attention.selection = lists.view, attention.window = p.method.window;
            reference::attention_quality quality;
            refuse(reference::measure(attention, quality, run));
            reference::attend_result sparse;
            refuse(reference::attend(attention, &sparse, run));
            std::printf(
                "%s\n  {\"input\": \"%s\", \"scorer\": \"%s\", \"budget\": %d, \"keys\": %.1f, \"mass_kept\": %.5f, "
                "\"block_recall\": %.5f, \"output_error\": %.5f",
                first ? "" : ",", in.name.c_str(), choice.name, p.method.budget(), quality.keys_per_query,
                quality.mass_kept, quality.block_recall, reference::relative_error(sparse.output, dense.output));
            if (!in.needles.empty()) std::printf(", \"needles_found\": %.5f", needles_found(in, lists.view));
            std::printf("}");
            std::fflush(stdout);
            first = false;
        }
}

}  // namespace

int main(int count, char** words) {
    quickstart::recording r;
    std::string problem;
    if (!quickstart::read_recording(count > 1 ? words[1] : WINNOW_EXAMPLES_DATA, r, problem)) {
        std::fprintf(stderr, "%s\n", problem.c_str());
        return 1;
    }
    bool first = true;
    std::printf("[");
    measure_all({"recording", r.queries, r.keys, r.values, {}}, first);
    measure_all(plant(8192, 8, 2, 4), first);
    std::printf("\n]\n");
    return 0;
}
