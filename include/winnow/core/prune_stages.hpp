// Hierarchical top-k pruning as values: stages, scorers, presets, and the index arithmetic of chunks and query blocks.
//
// A stage scores chunks of keys against a block of queries and keeps the best; the next one cuts those smaller.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/kv_view.hpp"
#include "winnow/core/mask.hpp"
#include "winnow/core/math.hpp"
#include "winnow/core/selection.hpp"

namespace winnow {

/// How a chunk [left, right) of keys is scored against the rows of a query block: always a maximum over rows (and over
/// the heads that share a list) of dot products with one or more representative keys.
enum class scorer : std::int32_t {
    tree_probe,  ///< binary search by probes at branch centres; score is the best probe on the path (released HiP code)
    tree_probe_first,  ///< binary search by the first key of each branch; score is the last representative (the paper)
    centre_probe,      ///< one probe, at (left + right) / 2
    mean_key,          ///< one probe, the mean of the chunk's keys
    min_max_bound,     ///< no product with a key of the chunk is higher: each channel takes its best of the chunk's
                       ///< smallest and largest key there (Quest)
    antidiagonal  ///< the best sum of scores over the antidiagonal of query_stride rows and as many keys (XAttention)
};

/// Which heads walk a tree search together. Scorers without a path do not depend on it.
enum class probe_path : std::int32_t {
    per_head,     ///< every query head walks its own path (as released)
    per_kv_group  ///< one path per KV head, branches compared by the maximum over its query heads; reads fewer keys
};

/// Where the probes of a tree search stand, of keys that are cached without rotary embedding (InfiniteHiP, section on
/// context extension). `reach` is the window less a chunk of the first stage.
enum class scan_style : std::int32_t {
    relative,      ///< left probes at distance reach + 1 from every row, right ones at reach
    chunk_indexed  ///< a key at its chunk's number in the stage's list, a row at min(position, chunks + reach)
};

/// One stage of the pipeline.
struct prune_stage {
    std::int32_t query_block;   ///< query rows that share a list, 1 to 128, aligned to absolute positions; divides the
                                ///< stage before's
    std::int32_t query_stride;  ///< consecutive rows averaged before scoring; divides query_block
    std::int32_t chunk;         ///< keys per chunk: a power of two up to 65536, smaller than the stage before's
    std::int32_t keep;          ///< chunks kept, 1 to 65536
};

/// Longest stride of the scorer antidiagonal: 8 groups of so many rows are the least that a scoring block holds.
inline constexpr std::int32_t max_antidiagonal = 16;

/// Most stages of a method.
inline constexpr int max_prune_stages = 8;

/// A pruning method: stages from coarse to fine and what they share. The last stage's chunks are the selected blocks.
struct prune_method {
    prune_stage stages[max_prune_stages] = {};  ///< from coarse to fine
    std::int32_t stage_count = 0;               ///< stages in use, 1 to max_prune_stages
    attention_window window =
        {};  ///< sinks and recent keys, which pruning leaves to attention; sinks are a multiple of
             ///< the last chunk
    winnow::scorer scorer = winnow::scorer::tree_probe;    ///< how a chunk is represented
    probe_path path = probe_path::per_kv_group;            ///< which heads walk a tree search together
    winnow::sharing sharing = winnow::sharing::per_batch;  ///< which query heads share a list

    /// The stage whose chunks are selected; of a method that check refuses, the first.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr prune_stage const& last() const {
        return stages[stage_count > 1 && stage_count <= max_prune_stages ? stage_count - 1 : 0];
    }
    /// Keys that a list can hold.
    [[nodiscard]] WINNOW_HOST_DEVICE constexpr std::int32_t budget() const { return last().keep * last().chunk; }
};

/// InfiniteHiP's default: 256 sinks, 1024 recent keys, 2048 selected (InfiniteHiP, appendix F).
inline constexpr prune_method hip_3k{
    .stages = {{64, 4, 256, 128}, {64, 4, 32, 256}, {64, 1, 8, 256}}, .stage_count = 3, .window = {256, 1024}};

/// The same with 4096 selected keys, for the first layers.
inline constexpr prune_method hip_3k_early_layer{
    .stages = {{64, 4, 256, 128}, {64, 4, 32, 256}, {64, 1, 8, 512}}, .stage_count = 3, .window = {256, 1024}};

/// InfiniteHiP's 5K preset: 4096 selected keys in blocks of 16. The paper gives no query stride; 4, 4, 1 as in hip_3k.
inline constexpr prune_method hip_5k{
    .stages = {{64, 4, 64, 512}, {64, 4, 32, 512}, {64, 1, 16, 256}}, .stage_count = 3, .window = {256, 1024}};

/// HiP v1's beam on a fixed grid: 64 branches halve from 256 keys to 8, one list per head (HiP, algorithm 1). The paper
/// ends at blocks of 2 keys; attention works on blocks of 8, so the last two halvings are left out.
inline constexpr prune_method hip_v1{
    .stages = {{32, 1, 256, 64}, {32, 1, 128, 64}, {32, 1, 64, 64}, {32, 1, 32, 64}, {32, 1, 16, 64}, {32, 1, 8, 64}},
    .stage_count = 6,
    .window = {16, 256},
    .scorer = scorer::centre_probe,
    .sharing = sharing::per_head};

/// For tests and short contexts: 16 sinks, 64 recent keys, 64 selected.
inline constexpr prune_method hip_tiny{.stages = {{16, 2, 32, 8}, {16, 1, 8, 8}}, .stage_count = 2, .window = {16, 64}};

/// Distance between rows and the chunks that a scan looks at; 0 where a chunk is as long as the window.
WINNOW_HOST_DEVICE constexpr std::int32_t scan_reach(prune_method const& m) {
    return larger(m.window.recent - m.stages[0].chunk, 0);
}

/// Where a row that looks from `looking` stands among `chunks` chunks, with scan_style::chunk_indexed.
WINNOW_HOST_DEVICE constexpr std::int32_t scan_row_position(std::int32_t looking, std::int32_t chunks,
                                                            std::int32_t reach) {
    return static_cast<std::int32_t>(smaller<std::int64_t>(looking, std::int64_t{chunks} + reach));
}

/// First key that no row up to looking position `last` needs from a list: all later ones are in its window. `lookahead`
/// admits keys that leave the window within that many later decode steps, so that a list reused for so long drops none.
WINNOW_HOST_DEVICE constexpr std::int32_t eligible_end(std::int32_t last, std::int32_t keys, attention_window window,
                                                       std::int32_t lookahead) {
    if (last < 0) return 0;
    std::int64_t const seen = last < keys ? last + 1 : keys;
    std::int64_t const hidden = std::int64_t{last} + 1 - window.recent + lookahead;
    return static_cast<std::int32_t>(smaller(larger<std::int64_t>(hidden, 0), seen));
}

/// Chunks of a first stage: the grid starts at the end of the sinks.
WINNOW_HOST_DEVICE constexpr std::int32_t first_candidates(std::int32_t eligible, std::int32_t sinks,
                                                           std::int32_t chunk) {
    return eligible > sinks ? ceil_div(eligible - sinks, chunk) : 0;
}

/// A query block of one request: rows [first, last] by position; empty when last < first.
struct query_span {
    std::int32_t first;  ///< position of the first row
    std::int32_t last;   ///< position of the last row
};

/// Block `m` of a request, counted from the block of its first row: see basic_selection.
WINNOW_HOST_DEVICE constexpr query_span span_of(request_view const& r, std::int32_t query_block, std::int32_t m) {
    std::int32_t const first = larger(r.first_position, 0), end = r.first_position + r.queries;
    std::int32_t const begin = (first / query_block + m) * query_block;
    return {larger(begin, first), smaller(begin + query_block, end) - 1};
}

/// Block of a coarser stage that holds block `m` of a finer one.
WINNOW_HOST_DEVICE constexpr std::int32_t coarser_block(request_view const& r, std::int32_t fine, std::int32_t coarse,
                                                        std::int32_t m) {
    std::int32_t const first = larger(r.first_position, 0);
    return (first / fine + m) * fine / coarse - first / coarse;
}

/// True if a stage of interval `interval` is due by itself at decode step `step` >= 0.
WINNOW_HOST_DEVICE constexpr bool falls_due(std::int32_t step, std::int32_t interval) { return step % interval == 0; }

/// Stages to run at decode step `step` of a request: the first stage due and everything after it; earlier ones are
/// taken from the cache. stage_count: nothing is due, the final list is reused. Step 0 runs everything.
WINNOW_HOST_DEVICE constexpr std::int32_t first_stage_due(std::int32_t step, std::int32_t const* intervals,
                                                          std::int32_t stage_count) {
    if (step <= 0) return 0;
    for (std::int32_t i = 0; i < stage_count; ++i)
        if (falls_due(step, intervals[i])) return i;
    return stage_count;
}

/// Refresh intervals of stages 1, 2, 3 (InfiniteHiP, appendix F): a larger number reuses lists for longer.
struct refresh_intervals {
    std::int32_t steps[max_prune_stages];  ///< decode steps between two runs of each stage, >= 1
};
/// The paper's default.
inline constexpr refresh_intervals refresh_default{{16, 8, 4, 4, 4, 4, 4, 4}};
/// "Fast", the released code's default.
inline constexpr refresh_intervals refresh_fast{{32, 16, 8, 8, 8, 8, 8, 8}};
/// "Flash", what the released server recipes use.
inline constexpr refresh_intervals refresh_flash{{96, 24, 8, 8, 8, 8, 8, 8}};

}  // namespace winnow
