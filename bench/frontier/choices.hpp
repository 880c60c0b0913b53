// What the frontier compares: ways to score, and budgets of selected keys.
#pragma once

#include <cstdint>

#include "winnow/core/prune_stages.hpp"

namespace winnow::bench {

struct frontier_choice {
    char const* name;
    winnow::scorer scorer;
    probe_path path;
};

inline constexpr frontier_choice frontier_choices[] = {
    {"tree_probe", scorer::tree_probe, probe_path::per_kv_group},
    {"tree_probe_path_per_head", scorer::tree_probe, probe_path::per_head},
    {"tree_probe_first", scorer::tree_probe_first, probe_path::per_kv_group},
    {"centre_probe", scorer::centre_probe, probe_path::per_kv_group},
    {"mean_key", scorer::mean_key, probe_path::per_kv_group},
    {"min_max_bound", scorer::min_max_bound, probe_path::per_kv_group},
    {"antidiagonal", scorer::antidiagonal, probe_path::per_kv_group}};

/// Selected keys, in eighths of what attention could list at most.
inline constexpr std::int32_t frontier_budgets[] = {512, 1024, 2048, 4096};

/// The preset with another budget and scorer, for the time.
constexpr prune_method timed_method(frontier_choice const& c, std::int32_t budget) {
    prune_method m = hip_3k;
    m.stages[m.stage_count - 1].keep = budget / m.last().chunk;
    m.scorer = c.scorer, m.path = c.path;
    return m;
}

/// The same in small, for contexts of a few thousand tokens: a quarter of the keys, chunks and window.
constexpr prune_method small_method(frontier_choice const& c, std::int32_t budget) {
    prune_method m{.stages = {{32, 2, 64, budget / 64}, {32, 1, 8, budget / 32}},
                   .stage_count = 2,
                   .window = {.sinks = 64, .recent = 128}};
    m.scorer = c.scorer, m.path = c.path, m.sharing = sharing::per_kv_group;
    return m;
}

}  // namespace winnow::bench
