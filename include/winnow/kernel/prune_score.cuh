// Scores the chunks of one pruning stage on tensor cores: a warp looks at keys wherever they lie and takes maxima over
// the rows of a query block.
//
// One block: one query block, one unit (a KV group or a query head), a range of chunks. Its warps share the averaged
// query rows and nothing else: each walks down its own chunks, so that loads of one hide behind products of others.
// Warps next to each other walk for the heads of a group down the same chunks, and find common keys in L1. At decode the
// block of a list that is done last selects as well.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/core/math.hpp"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/ptx/grid_dependency.cuh"
#include "winnow/stage/prune_antidiagonal.cuh"
#include "winnow/stage/prune_place.cuh"
#include "winnow/stage/prune_rows.cuh"
#include "winnow/stage/prune_walk.cuh"
#include "winnow/stage/select_list.cuh"

namespace winnow {

/// Shared memory of a scoring block that selects, in the place of its rows.
template <int Threads>
struct prune_in_place_storage {
    top_k_storage<Threads> top_k;
    /// Scores of candidates, in whole groups of four, and behind them the list that the candidates are cut from.
    alignas(16) std::uint32_t word[2 * prune_select_in_place];
};

/// The same for lists of up to `candidates`.
constexpr std::size_t prune_in_place_bytes(std::int32_t candidates) {
    return sizeof(prune_in_place_storage<prune_score_warps * 32>) -
           static_cast<std::size_t>(prune_select_in_place - round_up(candidates, 4)) * 2 * sizeof(std::uint32_t);
}

/// The chunks from `first` on that are candidates.
template <int Slots>
WINNOW_DEVICE chunk_slots<Slots> chunks_from(prune_place const& place, std::int32_t first, std::int32_t sinks,
                                             std::int32_t size) {
    chunk_slots<Slots> chunk;
    WINNOW_UNROLL
    for (int s = 0; s < Slots; ++s) {
        std::int32_t const c = first + 8 * s + threadIdx.x % 32 / 4;
        bool const exists = c < place.candidates;
        chunk.left[s] = exists ? place.left(c, sinks, size) : 0;
        chunk.right[s] = exists ? smaller(chunk.left[s] + size, place.eligible) : 0;
        chunk.score[s] = minus_infinity;
    }
    return chunk;
}

template <class T, int HeadDim, scorer How, product_unit Unit>
__global__ void __launch_bounds__(prune_tuning_of(HeadDim, How, Unit).warps * 32,
                                  prune_tuning_of(HeadDim, How, Unit).blocks)
    prune_score(prune_arguments<T> const __grid_constant__ a) {
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<prune_score_storage<HeadDim>*>(raw);
    unsigned char* const queries = raw + prune_rows_behind<HeadDim, Unit>;
    constexpr prune_tuning tuning = prune_tuning_of(HeadDim, How, Unit);
    constexpr int slots = slots_of<How, tuning.key_tiles>;
    constexpr std::int32_t per_tile = 8 * slots;
    std::int32_t const held = prune_rows_held(HeadDim) / prune_row_copies(Unit, a.params.scan);
    prune_method const& m = a.params.method;
    prune_stage const& stage = m.stages[a.stage];
    std::int32_t const t = threadIdx.x, warp = t / 32;

    // Lists first: blocks that run together look at the same chunks of one KV head, which L2 then holds.
    std::int32_t const lists = a.lists_of_slab, tile = blockIdx.x / lists, index = blockIdx.x - tile * lists,
                       unit = blockIdx.y, b = blockIdx.z;
    std::int32_t const first_chunk = tile * a.chunks_per_block;
    std::int32_t const first_head = unit * a.units.walkers * a.units.heads, kv_head = first_head / a.shape.group();

    ptx::let_later_grid_start();
    if (leaves_early(a, b)) return;
    if (t == 0) {
        shared.place = place_of(a, index, list_head_of(first_head, a.shape.heads, a.list_heads), b);
        shared.source = query_source_of(a, shared.place);
        shared.group = std::int64_t{b} * a.groups.count + unit / a.groups.units;
    }
    for (std::int32_t c = t; c < prune_most_chunks; c += tuning.warps * 32) shared.best[c] = 0;
    __syncthreads();
    prune_place const& place = shared.place;
    bool const empty = !place.due || place.span.last < place.span.first;
    if (empty || (a.stage == 0 && tile > 0 && first_chunk >= place.candidates)) {
        ptx::wait_for_earlier_grids();  // whoever waits for this kernel waits for those before it as well
        return;
    }
    std::int32_t const first_group = place.span.first / stage.query_stride;
    prune_row_set const set{first_group,
                            place.span.last / stage.query_stride - first_group + 1,
                            first_head,
                            a.units.heads,
                            a.units.walkers,
                            rows_of_product(Unit),
                            prune_residues(How, stage.query_stride)};
    std::int32_t const walkers_held = set.walkers_held(held), slices = set.slices(held);
    // Rows do not depend on the stage before: they come while it runs. Those that are turned need its lists.
    bool const early = Unit != product_unit::turned && slices == 1 && (a.stage > 0 || place.candidates > stage.keep);
    auto const hold_rows = [&](std::int32_t first_walker, std::int32_t count) {
        if constexpr (How == scorer::antidiagonal)  // one walker
            hold_single_rows<T, HeadDim>(shared, queries, set, 0, set.padded());
        else
            hold_query_rows<T, HeadDim, Unit>(shared, queries, set, first_walker, 0, count * set.padded());
    };
    if (early) hold_rows(0, smaller(walkers_held, set.walkers));
    ptx::wait_for_earlier_grids();
    if (t == 0) find_candidates(a, shared.place);
    __syncthreads();
    if (tile > 0 && first_chunk >= place.candidates) return;  // tile 0 writes a list that is empty
    // A stage that keeps all its candidates needs no scores.
    if (place.candidates <= stage.keep) {
        if (a.arrived != nullptr && tile == 0 && unit % a.groups.units == 0)
            writer_of<prune_place const&>(a, place, a.groups.copies).put_all();
        return;
    }
    std::int32_t const chunks = smaller(a.chunks_per_block, place.candidates - first_chunk);
    std::int32_t const tiles = ceil_div(chunks, per_tile);
    prune_turning<Unit> turning;
    if constexpr (Unit == product_unit::turned) {
        auto* const turns = reinterpret_cast<std::uint64_t*>(raw + prune_rows_offset<HeadDim>);
        turning = {queries, turns, slices == 1 ? walkers_held * set.padded() : held, place.candidates, 0, 0};
        fill_turns<T, HeadDim>(a, turns);
        __syncthreads();
    }
    float const key_scale = Unit == product_unit::widened ? a.params.scales.of_keys(kv_head) : 1.0f;
    key_finder<stored_key<T, Unit>> const key_at = finder_of<Unit>(a, b, kv_head);
    std::uint32_t* const scores = a.scores + a.score_row(b, unit, index) * a.score_width + first_chunk;
    // Only a list's last chunk can be cut short. Warps that probe in step have to know; others ask each time.
    bool const whole_chunks =
        slices > 1 && (first_chunk + chunks < place.candidates ||
                       place.left(place.candidates - 1, m.window.sinks, stage.chunk) + stage.chunk <= place.eligible);
    bool const all_visible =
        place.eligible <= looking_position(a.params.mask.kind, place.span.first, place.request.keys) + 1;

#pragma unroll 1
    for (std::int32_t first_walker = 0; first_walker < set.walkers; first_walker += walkers_held) {
        std::int32_t const walkers = smaller(walkers_held, set.walkers - first_walker);
        if (slices == 1 && (first_walker > 0 || !early)) {
            if (first_walker > 0) __syncthreads();
            if constexpr (Unit == product_unit::turned)
                hold_turned_rows<T, HeadDim>(shared, a, turning, set, first_walker, 0, walkers * set.padded());
            else
                hold_rows(first_walker, walkers);
            __syncthreads();
        }
        // Where warps probe in step, all take equally many tiles, the last ones perhaps empty.
        bool const in_step = slices > 1;
        std::int32_t const items = in_step ? round_up<std::int32_t>(tiles, tuning.warps) : tiles * walkers;
#pragma unroll 1
        for (std::int32_t item = warp; item < items; item += tuning.warps) {
            std::int32_t const walker = item % walkers, from = item / walkers * per_tile;
            std::int32_t const row = walker * set.padded();
            if constexpr (Unit == product_unit::turned) {
                turning.first_chunk = first_chunk + from;
                turning.first_walker = first_walker;
            }
            auto chunk = chunks_from<slots>(place, first_chunk + from, m.window.sinks, stage.chunk);
            prune_prober<T, HeadDim, Unit> prober{
                a,
                shared,
                queries,
                set,
                b,
                kv_head,
                key_at,
                {queries + row * HeadDim * 2, shared.looking + row, set.padded() / prune_row_tile, all_visible},
                slices,
                whole_chunks,
                turning};
            if constexpr (How == scorer::antidiagonal)
                score_antidiagonals<tuning.key_tiles>(prober, chunk, stage.chunk);
            else
                score_chunks<How, tuning.key_tiles>(prober, chunk, stage.chunk);
            WINNOW_UNROLL
            for (int s = 0; s < slots; ++s) {
                std::int32_t const c = from + 8 * s + t % 32 / 4;
                if (t % 4 != 0 || c >= chunks) continue;
                if constexpr (Unit == product_unit::widened) chunk.score[s] *= key_scale;
                if (set.walkers > 1)
                    atomicMax(&shared.best[c], ordered_key(chunk.score[s]));  // exact in any order
                else
                    scores[c] = ordered_key(chunk.score[s]);
            }
        }
    }
    if (set.walkers > 1) {
        __syncthreads();
        for (std::int32_t c = t; c < chunks; c += tuning.warps * 32) scores[c] = shared.best[c];
    }
    if (a.arrived == nullptr) return;
    auto& room = *reinterpret_cast<prune_in_place_storage<tuning.warps * 32>*>(queries);
    auto* const parents = reinterpret_cast<std::int32_t*>(room.word + round_up(place.candidates, 4));
    bool const last = arrives_last(shared.last, a, shared.group, place.candidates, [&](int thread, int threads) {
        clear_top_k(room.top_k, thread, threads);
        if (place.parents == nullptr) return;  // else a warp that finds a candidate to keep would wait for its parent
        std::int32_t const count = ((place.candidates - 1) >> place.pieces_log2) + 1;
#pragma unroll 4
        for (std::int32_t i = thread; i < count; i += threads) parents[i] = place.parents[i];
    });
    if (!last) return;
    constexpr int runs_at_a_time = 2, rows_at_a_time = 8;  // scores of 1024 candidates and eight KV heads in one trip
    auto writer = writer_of<prune_place>(a, place, a.groups.copies);
    if (place.parents != nullptr) writer.place.parents = parents;
    unit_scores const rows{a.scores + shared.group * a.groups.units * a.score_width, a.score_width, a.groups.units};
    select_best<runs_at_a_time, rows_at_a_time>(room.top_k, tuning.warps * 32,
                                                shared_keys{ptx::pinned_address(room.word)}, rows, writer);
}

}  // namespace winnow
