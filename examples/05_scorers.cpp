// Which scorer finds the keys that attention really looks at: mass kept and recall on a recorded input, by the reference.
//
//   ./example_scorers [DIR]     examples/data by default; half a minute on two cores
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <winnow/reference/prune.hpp>
#include <winnow/reference/quality.hpp>

#include "01_quickstart/recording.hpp"

namespace {

using winnow::bf16;

struct choice {
    char const* name;
    winnow::scorer scorer;
    winnow::probe_path path;
};
constexpr choice choices[] = {
    {"tree_probe, path per head", winnow::scorer::tree_probe, winnow::probe_path::per_head},
    {"tree_probe, path per KV group", winnow::scorer::tree_probe, winnow::probe_path::per_kv_group},
    {"tree_probe_first, path per head", winnow::scorer::tree_probe_first, winnow::probe_path::per_head},
    {"centre_probe", winnow::scorer::centre_probe, winnow::probe_path::per_head},
    {"mean_key", winnow::scorer::mean_key, winnow::probe_path::per_head},
    {"min_max_bound", winnow::scorer::min_max_bound, winnow::probe_path::per_head},
    {"antidiagonal", winnow::scorer::antidiagonal, winnow::probe_path::per_head}};

int failed(char const* what, winnow::status const& s) {
    std::fprintf(stderr, "%s: %s %s, found %lld\n", what, s.field, s.rule, static_cast<long long>(s.value));
    return 1;
}

}  // namespace

int main(int count, char** words) {
    quickstart::recording r;
    std::string problem;
    if (!quickstart::read_recording(count > 1 ? words[1] : WINNOW_EXAMPLES_DATA, r, problem)) {
        std::fprintf(stderr, "%s\n", problem.c_str());
        return 1;
    }
    winnow::reference::run_options const run{.threads =
                                                 static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
    std::vector<bf16> output(r.queries.data.size());
    constexpr int kept[] = {16, 32, 64};  // blocks of 8 keys
    std::printf("attention mass kept / recall of the true top blocks; a list per KV head and 32 rows\n%-34s", "scorer");
    for (int const keep : kept) std::printf("%10d keys   ", keep * 8);
    std::printf("\n");
    for (choice const& c : choices) {
        std::printf("%-34s", c.name);
        for (int const keep : kept) {
            winnow::prune_params<bf16> p{.queries = r.queries.view(),
                                         .keys = r.keys.view(),
                                         .method = {.stages = {{32, 2, 64, keep / 2}, {32, 1, 8, keep}},
                                                    .stage_count = 2,
                                                    .window = {.sinks = 32, .recent = 128},
                                                    .scorer = c.scorer,
                                                    .path = c.path,
                                                    .sharing = winnow::sharing::per_kv_group}};
            winnow::reference::selection_storage const lists(p.method, p.shape());
            p.selection = lists.view;
            if (auto s = winnow::reference::prune(p, nullptr, run); !s) return failed("prune", s);
            winnow::attend_params<bf16> const attention{
                .queries = p.queries,
                .keys = p.keys,
                .values = r.values.view(),
                .selection = lists.view,
                .window = p.method.window,
                .output = winnow::packed_view(output.data(), {1, r.queries.tokens, r.queries.heads, 64}),
                .scale = 0.125f};
            winnow::reference::attention_quality quality;
            if (auto s = winnow::reference::measure(attention, quality, run); !s) return failed("measure", s);
            std::printf("   %5.1f %% / %4.1f %%", 100 * quality.mass_kept, 100 * quality.block_recall);
            std::fflush(stdout);
        }
        std::printf("\n");
    }
    return 0;
}
