// The rows of one multiplying warpgroup: scores, softmax and output of 64 query rows, in registers from first to last key.
//
// One step: start the scores of these keys and, beside them, the last keys' output | softmax while the output still runs |
// round, rescale.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/policy/attend_tile.hpp"
#include "winnow/ptx/async_copy.cuh"
#include "winnow/ptx/barrier.cuh"
#include "winnow/ptx/bulk_copy.cuh"
#include "winnow/ptx/convert.cuh"
#include "winnow/ptx/matrix_move.cuh"
#include "winnow/ptx/registers.cuh"
#include "winnow/ptx/wgmma.cuh"
#include "winnow/stage/hopper_storage.cuh"
#include "winnow/tile/online_softmax.cuh"
#include "winnow/tile/panel.hpp"

namespace winnow {

/// A thread's share of the rows. Thread 128 + t of the block is thread t % 128 of warpgroup t / 128. Warpgroups that take
/// keys in turn (medium tiles) hold the same rows.
template <class T, int HeadDim, attend_rows Rows, atom_order Order>
struct hopper_rows {
    using storage = hopper_storage<T, HeadDim, Rows>;
    using key_ring = typename storage::key_ring;
    using value_ring = typename storage::value_ring;
    static constexpr hopper_tile tile = storage::tile;
    using layout = key_tile<tile.keys, HeadDim, Order>;
    using query_ring = typename storage::query_ring;
    using query_layout = key_tile<64, HeadDim, atom_order::panels>;
    static constexpr int score_tiles = tile.keys / 8, key_steps = tile.keys / 16, channel_steps = HeadDim / 16;
    static constexpr int parts = HeadDim > 128 ? 2 : 1;  ///< a product is at most 128 channels wide here
    static constexpr int part_tiles = HeadDim / 8 / parts;
    static constexpr bool in_registers = tile.query == query_place::registers;
    static constexpr bool in_results = tile.query == query_place::results;
    static constexpr bool in_turn = tile.key_warpgroups > 1;
    static constexpr std::uint32_t stage_step = tile.keys * HeadDim * 2 / 16;  ///< of a descriptor

    storage& s;
    hopper_arguments<T> const& arguments;
    attend_arguments<T> const& a;
    int group;                            ///< warpgroup
    float c;                              ///< scale * log2(e) of what softmax sees
    std::uint64_t queries, keys, values;  ///< descriptors
    softmax_rows state;
    float sum[2], rescale[2];
    float score[score_tiles][4], output[parts][part_tiles][4];
    std::uint32_t probability[key_steps][4], query[in_registers ? channel_steps : 1][4];

    WINNOW_DEVICE hopper_rows(storage& shared, hopper_arguments<T> const& all)
        : s(shared), arguments(all), a(all.attend), group(__shfl_sync(~0u, threadIdx.x / 128, 0) - 1),
          c(a.params.soft_cap > 0.0f ? log2_e : a.params.scale * log2_e),
          queries(query_layout::key_descriptor(ptx::shared_address(s.query[0][group]))),
          keys(layout::key_descriptor(ptx::shared_address(s.key[0]))),
          values(layout::value_descriptor(ptx::shared_address(s.value[0]))) {}

    /// Where this thread stands, derived anew where registers are short and time is not.
    struct place {
        int thread = static_cast<int>(ptx::opaque(threadIdx.x)) - 128;
        int lane = thread % 32;
        int warp = thread / 32 % 4;                           ///< in its warpgroup
        int first_row = 16 * (in_turn ? warp : thread / 32);  ///< of the warp, in the tile
    };

    /// Copies a task's queries where they do not come by TMA, each warp its own 16 rows. Rows that do not exist become
    /// zeros.
    WINNOW_DEVICE void load_queries(attend_work const& w, query_ring at) {
        place const me;
        if constexpr (in_results) ready_results();
        constexpr int chunks = HeadDim / 8;
        std::uint32_t const target = ptx::shared_address(s.query[at.stage()][me.thread / 128]);
        tensor_view<T const, 4> const& q = a.params.queries;
        T const* const base = q.data + q.offset(w.request.outer, w.request.first_row, w.first_head);
#pragma unroll 2
        for (int i = me.lane; i < 16 * chunks; i += 32) {
            int const row = i / chunks, chunk = i % chunks, in_tile = me.first_row + row;
            int const token = a.tile_heads.quotient(in_tile), head = in_tile - token * a.schedule.tile_heads;
            bool const exists = token < w.rows.count && head < w.heads;
            std::int64_t const offset =
                exists ? row_of(a.schedule, w, token) * q.stride[1] + head * q.stride[2] + chunk * 8 : 0;
            ptx::copy_async_16(target + panel_offset<64>(16 * me.warp + row, chunk), base + offset, exists);
        }
        ptx::copy_async_wait_all();
        __syncwarp();
    }

    /// Begins task `t`: takes the queries once they are there.
    WINNOW_DEVICE void begin(attend_work const& w, std::uint32_t t) {
        place const me;
        query_ring const at{t};
        if (!in_results && arguments.boxes_in) {
            ptx::barrier_wait(&s.query_full[at.stage()], at.parity());
        } else {
            // Who writes to a second place has met the others after the products that read it.
            load_queries(w, at);
            if constexpr (!in_registers) {
                ptx::async_proxy_fence();
                synchronize();
            }
        }
        if constexpr (in_registers) {
            std::uint32_t const query_tile = ptx::shared_address(s.query[0][me.thread / 128]);
            WINNOW_UNROLL
            for (int k = 0; k < channel_steps; ++k)
                ptx::load_matrices(query[k],
                                   query_tile + panel_offset<64>(16 * me.warp + me.lane % 16, 2 * k + me.lane / 16));
            ptx::pin(query);
            __syncwarp();
            release(&s.query_empty[0]);
        } else if constexpr (tile.query == query_place::shared) {
            queries = query_layout::key_descriptor(ptx::shared_address(s.query[at.stage()][group]));
        }
        state = {};
        sum[0] = sum[1] = 0.0f;
        WINNOW_UNROLL
        for (int part = 0; part < parts; ++part) WINNOW_UNROLL
        for (int d = 0; d < part_tiles; ++d) WINNOW_UNROLL
        for (int e = 0; e < 4; ++e) output[part][d][e] = 0.0f;
        pin_output();
    }

    /// Ends task `t`: hands queries back that products have read where they lie.
    WINNOW_DEVICE void end(std::uint32_t t) {
        if constexpr (tile.query == query_place::shared) release(&s.query_empty[query_ring{t}.stage()]);
    }

    /// Notes what each row sees; each warp for its own.
    WINNOW_DEVICE void note_limits(attend_work const& w) {
        place const me;
        if (me.lane < 16)
            s.limits[0][me.thread / 32 * 16 + me.lane] =
                limits_of(looking_of(a, w, me.first_row + me.lane), w.request.keys, a.params.window);
        __syncwarp();
    }

    /// All threads of this warpgroup.
    WINNOW_DEVICE void synchronize() {
        ptx::named_barrier_wait(static_cast<int>(hopper_barrier::warpgroup) + group, 128);
    }
    WINNOW_DEVICE void pin_output() {
        WINNOW_UNROLL
        for (int part = 0; part < parts; ++part) ptx::pin(output[part]);
    }
    /// One arrival for the warp, of all that its lanes have read.
    WINNOW_DEVICE static void release(std::uint64_t* barrier) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::barrier_arrive(barrier);
    }

    WINNOW_DEVICE void start_scores(key_ring at) {
        std::uint64_t const from = keys + at.stage() * stage_step;
        WINNOW_UNROLL
        for (int k = 0; k < channel_steps; ++k) {
            if constexpr (in_registers) {
                ptx::wgmma<T, ptx::major::k>(score, query[k], from + layout::channel_step(k), k != 0);
            } else {
                ptx::wgmma<T>(score, queries + query_layout::channel_step(k), from + layout::channel_step(k), k != 0);
            }
        }
        ptx::wgmma_commit();
    }
    WINNOW_DEVICE void start_output(value_ring at) {
        std::uint64_t const from = values + at.stage() * stage_step;
        WINNOW_UNROLL
        for (int k = 0; k < key_steps; ++k) WINNOW_UNROLL
        for (int part = 0; part < parts; ++part)
            ptx::wgmma<T, ptx::major::mn>(output[part], probability[k], from + layout::row_step(k, 2 * part), true);
        ptx::wgmma_commit();
    }

    /// Scores of a step to probabilities.
    WINNOW_DEVICE void softmax(std::uint32_t index) {
        hopper_step<tile.keys> const& step = s.step[typename storage::step_ring{index}.stage()];
        attend_params<T> const& p = a.params;
        if (p.soft_cap > 0.0f) {
            float const inverse_cap = __fdividef(1.0f, p.soft_cap);  // `/` would be a call
            WINNOW_UNROLL
            for (int n = 0; n < score_tiles; ++n) WINNOW_UNROLL
            for (int e = 0; e < 4; ++e) score[n][e] = soft_capped(score[n][e], p.scale, p.soft_cap, inverse_cap);
        }
        if (step.mask != step_mask::none) {
            place const me;
            row_limits const* const limits = s.limits[0] + me.thread / 32 * 16 + me.lane / 4;
            if (step.mask == step_mask::run) {
                mask_run(score, step.granule[0], limits[0], limits[8], p.window.sinks);
            } else {
                mask_scores(score, step.granule, limits[0], limits[8], p.window.sinks);
            }
        }
        float step_sum[2];
        softmax_scores(state, score, c, step_sum, rescale);
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) sum[h] = fmaf(sum[h], rescale[h], step_sum[h]);
    }
    /// An accumulator's fragments are a left operand's.
    WINNOW_DEVICE void round() {
        WINNOW_UNROLL
        for (int k = 0; k < key_steps; ++k) WINNOW_UNROLL
        for (int j = 0; j < 4; ++j) {
            float const(&pair)[4] = score[2 * k + j / 2];
            probability[k][j] = ptx::pack<T>(pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
        }
        ptx::pin(probability);
    }

    /// The steps with indices [first, end) of all tasks' steps, or every second of them. `meanwhile` is called while the
    /// first scores are on their way.
    template <class Meanwhile>
    WINNOW_DEVICE void attend(std::uint32_t first, std::uint32_t end, Meanwhile const& meanwhile) {
        std::uint32_t index = first + (in_turn ? group : 0);
        if (index >= end) {
            meanwhile();
            return;
        }
        wait_for_keys(index);
        ptx::wgmma_fence();
        start_scores(key_ring{index});
        meanwhile();
        ptx::wgmma_wait<0>();
        ptx::pin(score);
        release(&s.key_empty[key_ring{index}.stage()]);
        softmax(index);
        round();
#pragma unroll 1
        while (index + tile.key_warpgroups < end) {
            std::uint32_t const before = index;
            index += tile.key_warpgroups;
            wait_for_keys(index);
            ptx::wgmma_fence();
            start_scores(key_ring{index});
            wait_for_values(before);
            ptx::wgmma_fence();  // the wait in between ends the batch for ptxas (C7519)
            start_output(value_ring{before});
            ptx::wgmma_wait<1>();
            ptx::pin(score);
            release(&s.key_empty[key_ring{index}.stage()]);
            softmax(index);
            ptx::wgmma_wait<0>();
            pin_output();
            release(&s.value_empty[value_ring{before}.stage()]);
            round();
            WINNOW_UNROLL
            for (int part = 0; part < parts; ++part) rescale_rows(output[part], rescale);
            pin_output();
        }
        wait_for_values(index);
        ptx::wgmma_fence();
        start_output(value_ring{index});
        ptx::wgmma_wait<0>();
        pin_output();
        release(&s.value_empty[value_ring{index}.stage()]);
    }
    WINNOW_DEVICE void wait_for_keys(std::uint32_t index) {
        key_ring const at{index};
        ptx::barrier_wait(&s.key_full[at.stage()], at.parity());
    }
    WINNOW_DEVICE void wait_for_values(std::uint32_t index) {
        value_ring const at{index};
        ptx::barrier_wait(&s.value_full[at.stage()], at.parity());
    }

    /// Register e of channel tile d, of all threads side by side, where warpgroups that took turns meet.
    WINNOW_DEVICE float& exchanged(int part, int d, int e, int thread) {
        return reinterpret_cast<float*>(s.results())[((part * part_tiles + d) * 4 + e) * 128 + thread % 128];
    }
    /// Maximum and sum of one of the second warpgroup's rows, in the place of its limits, which it needs no more.
    WINNOW_DEVICE float2& statistics(int row) { return *reinterpret_cast<float2*>(&s.limits[1][row]); }
    /// Adds the second warpgroup's results to the first's. True for the first.
    WINNOW_DEVICE bool exchange() {
        place const me;
        constexpr int barrier = static_cast<int>(hopper_barrier::exchange), threads = 128 * tile.warpgroups();
        int const thread = me.thread % 128, first_row = me.first_row + me.lane / 4;
        bool const first_of_row = me.lane % 4 == 0;
        ready_results();
        ptx::named_barrier_wait(barrier, threads);
        if (group == 1) {
            WINNOW_UNROLL
            for (int part = 0; part < parts; ++part) WINNOW_UNROLL
            for (int d = 0; d < part_tiles; ++d) WINNOW_UNROLL
            for (int e = 0; e < 4; ++e) exchanged(part, d, e, thread) = output[part][d][e];
            WINNOW_UNROLL
            for (int h = 0; h < 2; ++h) {
                float const total = row_sum(sum[h]);
                if (first_of_row) statistics(first_row + 8 * h) = make_float2(state.maximum[h], total);
            }
        }
        ptx::named_barrier_wait(barrier, threads);
        if (group == 0) {
            WINNOW_UNROLL
            for (int h = 0; h < 2; ++h) {
                float2 const second = statistics(first_row + 8 * h);
                float const maximum = fmaxf(state.maximum[h], second.x);
                // Without a maximum nothing was seen, and sums are 0 (or NaN, which has to get through).
                bool const nothing = maximum == minus_infinity;
                float const mine = nothing ? 1.0f : ptx::exp2_fast((state.maximum[h] - maximum) * c);
                float const theirs = nothing ? 1.0f : ptx::exp2_fast((second.x - maximum) * c);
                state.maximum[h] = maximum;
                sum[h] = sum[h] * mine + (first_of_row ? second.y * theirs : 0.0f);
                WINNOW_UNROLL
                for (int part = 0; part < parts; ++part) WINNOW_UNROLL
                for (int d = 0; d < part_tiles; ++d) WINNOW_UNROLL
                for (int e = 2 * h; e < 2 * h + 2; ++e)
                    output[part][d][e] = output[part][d][e] * mine + exchanged(part, d, e, thread) * theirs;
            }
        }
        ptx::named_barrier_wait(barrier, threads);
        return group == 0;
    }

    /// Waits until this warp's last rows have left s.results().
    WINNOW_DEVICE static void ready_results() {
        if (threadIdx.x % 32 == 0) ptx::store_wait_read();
        __syncwarp();
    }

    /// What is left to write of two rows: LSE, base 2.
    struct row_results {
        float lse[2];
    };

    /// Writes the output of a task and returns what write_lse needs. Rows go through shared memory, so that each leaves in
    /// whole 16-byte pieces; a warp sees to its own 16.
    WINNOW_DEVICE row_results write(attend_work const& w) {
        place const me;
        attend_row_writer<T> writer{a, w};
        bool const split = a.partial();
        float inverse[2];
        row_results r;
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h) {
            float const total = row_sum(sum[h]);
            inverse[h] = total == 0.0f ? 0.0f : 1.0f / total;
            r.lse[h] = total == 0.0f ? minus_infinity : state.maximum[h] * c + ptx::log2_fast(total);
            if (a.params.sink_logits != nullptr && writer.select(me.first_row + me.lane / 4 + 8 * h))
                inverse[h] *= writer.add_sink(r.lse[h]);
            if (split && writer.select(me.first_row + me.lane / 4 + 8 * h)) {
                WINNOW_UNROLL
                for (int part = 0; part < parts; ++part) WINNOW_UNROLL
                for (int d = 0; d < part_tiles; ++d)
                    writer.channels(8 * (part * part_tiles + d) + 2 * (me.lane % 4),
                                    output[part][d][2 * h] * inverse[h], output[part][d][2 * h + 1] * inverse[h]);
            }
        }
        if (split) return r;
        if (writer.corrects()) {
            WINNOW_UNROLL
            for (int h = 0; h < 2; ++h) {
                if (!writer.select(me.first_row + me.lane / 4 + 8 * h)) continue;
                row_correction const to = writer.correction(inverse[h], r.lse[h]);
                WINNOW_UNROLL
                for (int part = 0; part < parts; ++part) WINNOW_UNROLL
                for (int d = 0; d < part_tiles; ++d)
                    to.apply(8 * (part * part_tiles + d) + 2 * (me.lane % 4), output[part][d][2 * h],
                             output[part][d][2 * h + 1]);
                inverse[h] = 1.0f;
            }
        }
        ready_results();
        std::uint32_t const tile_address =
            ptx::shared_address(s.results()) + me.thread / 128 * static_cast<std::uint32_t>(64 * HeadDim * sizeof(T));
        WINNOW_UNROLL
        for (int part = 0; part < parts; ++part) WINNOW_UNROLL
        for (int d = 0; d < part_tiles; d += 2) {  // 16 channels
            float(&o)[part_tiles][4] = output[part];
            std::uint32_t packed[4];
            WINNOW_UNROLL
            for (int j = 0; j < 4; ++j)
                packed[j] = ptx::pack<T>(o[d + j / 2][j % 2 * 2] * inverse[j % 2],
                                         o[d + j / 2][j % 2 * 2 + 1] * inverse[j % 2]);
            ptx::store_matrices(tile_address +
                                    panel_offset<64>(16 * me.warp + me.lane % 16, part * part_tiles + d + me.lane / 16),
                                packed);
        }
        // A warp whose 16 rows all exist sends them off as boxes and goes on.
        if (arguments.boxes_out && w.heads == a.schedule.tile_heads &&
            me.first_row + hopper_output_rows <= w.rows.count * a.schedule.tile_heads) {
            ptx::async_proxy_fence();
            __syncwarp();
            if (me.lane == 0) {
                std::int32_t const token = w.request.first_row + w.rows.first + a.tile_heads.quotient(me.first_row);
#pragma unroll 1
                for (int panel = 0; panel < HeadDim / panel_channels; ++panel)
                    ptx::store_box(arguments.output, panel * panel_channels, w.first_head, token, w.request.outer,
                                   tile_address + panel_offset<64>(16 * me.warp, 8 * panel));
                ptx::store_commit();
            }
            return r;
        }
        __syncwarp();
        constexpr int chunks = HeadDim / 8;
#pragma unroll 4
        for (int i = me.lane; i < 16 * chunks; i += 32) {
            int const row = i / chunks, chunk = i % chunks;
            uint4 const packed = ptx::load_shared(tile_address + panel_offset<64>(16 * me.warp + row, chunk));
            if (writer.select(me.first_row + row)) writer.chunk(8 * chunk, packed);
        }
        return r;
    }

    /// Writes the LSE of a task's rows.
    WINNOW_DEVICE void write_lse(attend_work const& w, row_results const& r) {
        place const me;
        attend_row_writer<T> writer{a, w};
        WINNOW_UNROLL
        for (int h = 0; h < 2; ++h)
            if (me.lane % 4 == 0 && writer.select(me.first_row + me.lane / 4 + 8 * h)) writer.log_sum_exp(r.lse[h]);
    }
};

}  // namespace winnow
