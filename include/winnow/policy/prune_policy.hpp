// Tuning of `prune`: how many chunks and rows a scoring block takes, and how wide selection runs.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/prune_stages.hpp"

namespace winnow {

inline constexpr int prune_probes = 64;          ///< keys probed at a time, the columns of a product
inline constexpr int prune_rows = 64;            ///< query rows held at a time
inline constexpr int prune_score_threads = 128;  ///< four warps, 16 probes each
inline constexpr int prune_select_threads = 256;

/// Scorers that walk down a chunk probe two branches of it at a time.
WINNOW_HOST_DEVICE constexpr bool walks_tree(scorer s) {
    return s == scorer::tree_probe || s == scorer::tree_probe_first;
}

/// Chunks that one scoring block takes.
WINNOW_HOST_DEVICE constexpr std::int32_t chunks_per_block(scorer s) {
    return walks_tree(s) ? prune_probes / 2 : prune_probes;
}

/// Query heads whose rows are scored together, against the same probes: the KV group where all of them share the probes
/// and the list, one head where each walks its own path or has its own list.
WINNOW_HOST_DEVICE constexpr std::int32_t heads_scored_together(prune_method const& m, std::int32_t group) {
    if (walks_tree(m.scorer)) return m.path == probe_path::per_kv_group ? group : 1;
    return m.sharing == sharing::per_head ? 1 : group;
}

}  // namespace winnow
