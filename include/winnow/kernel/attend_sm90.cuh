// Attention for Hopper (sm_90a): one warpgroup copies keys and values by TMA, the others multiply by wgmma; persistent.
//
// Two multiplying warpgroups share a block, so one's softmax hides behind the other's products. With 128 rows each has 64
// of them and both read every step; with 64 rows they take steps in turn and add their results at the end.
#pragma once

#include <cstdint>

#include "winnow/core/config.hpp"
#include "winnow/policy/attend_tile.hpp"
#include "winnow/ptx/barrier.cuh"
#include "winnow/ptx/registers.cuh"
#include "winnow/stage/attend_work.cuh"
#include "winnow/stage/hopper_rows.cuh"
#include "winnow/stage/hopper_storage.cuh"
#include "winnow/stage/key_boxes.cuh"
#include "winnow/stage/key_rows.cuh"
#include "winnow/stage/key_walk.cuh"

namespace winnow {

/// Launch bounds as plain integers, as for the portable kernel.
template <int HeadDim, attend_rows Rows>
struct hopper_bounds {
    static constexpr int threads = hopper_tile_of({HeadDim, Rows}).threads();
};

/// How the copying warpgroup divides its work: `warps` warps for the keys and as many for the values.
template <int HeadDim, key_loader Loader>
struct copying_warps {
    static constexpr int panels = HeadDim / panel_channels;
    static constexpr int warps = Loader == key_loader::boxes && panels < 2 ? 1 : 2;
    /// On a `full` barrier: one of each warp that copies boxes, one of each thread that copies rows.
    static constexpr int arrivals = Loader == key_loader::boxes ? warps : 32 * warps;
};

template <class T, int HeadDim, attend_rows Rows, key_loader Loader>
WINNOW_DEVICE void init_barriers(hopper_storage<T, HeadDim, Rows>& s) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    using copying = copying_warps<HeadDim, Loader>;
    constexpr hopper_tile tile = storage::tile;
    for (int i = 0; i < storage::tasks; ++i) {
        ptx::barrier_init(&s.task_full[i], 1);
        ptx::barrier_init(&s.task_empty[i], 4 * tile.warpgroups() + 2 * copying::warps - 1);
    }
    for (int i = 0; i < tile.stages; ++i) {
        ptx::barrier_init(&s.key_full[i], copying::arrivals);
        ptx::barrier_init(&s.value_full[i], copying::arrivals);
        ptx::barrier_init(&s.key_empty[i], 4 * tile.row_warpgroups);  // one arrival a warp that reads it
        ptx::barrier_init(&s.value_empty[i], 4 * tile.row_warpgroups);
    }
    ptx::barrier_init_fence();
}

/// Draws tiles from `ticket` on until one has rows, and describes it. One thread calls; `ticket` is left at the tile.
template <class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void draw_task(hopper_task& task, hopper_arguments<T> const& a, std::int32_t& ticket) {
    for (; ticket < a.tiles; ticket = static_cast<std::int32_t>(gridDim.x) + atomicAdd(a.next_tile, 1)) {
        std::int32_t const piece = a.request_tiles.quotient(ticket);
        std::int32_t const batch = a.splits.quotient(piece);
        attend_work const work =
            work_of(a.attend, ticket - piece * a.request_tiles.divisor, piece - batch * a.splits.divisor, batch);
        if (work.rows.count <= 0) continue;
        key_walk const walk = walk_of(a.attend, work);
        task.work = work;
        task.walk = walk;
        task.steps = steps_of(a.attend.schedule, walk, work.split, hopper_tile_of({HeadDim, Rows}).keys);
        task.last = false;
        return;
    }
    task.last = true;
}

/// Notes for the masking warps what step `index` holds; lane l has granule l. A whole warp calls.
template <int Keys>
WINNOW_DEVICE void note_step(hopper_step<Keys>& note, key_walk const& walk, granule g) {
    constexpr int granules = Keys / granule_keys;
    int const lane = threadIdx.x % 32;
    bool const masked = !__all_sync(~0u, lane >= granules || seen_by_all(walk, g));
    if (lane < granules) note.granule[lane] = g.first | static_cast<std::int32_t>(g.part);
    if (lane == 0) note.masked = masked;
    __syncwarp();
}

/// The copying warpgroup: the steps of all tasks. Its first warps bring keys, the others values; the very first also draws
/// the tasks and notes what each step holds.
template <class T, int HeadDim, attend_rows Rows, key_loader Loader>
WINNOW_DEVICE void produce(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    using copying = copying_warps<HeadDim, Loader>;
    constexpr hopper_tile tile = storage::tile;
    constexpr int granules = tile.keys / granule_keys;
    int const warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp >= 2 * copying::warps) return;
    bool const draws = warp == 0, of_keys = warp < copying::warps;
    int const part = warp % copying::warps;
    std::uint32_t const tiles = ptx::shared_address(of_keys ? s.key[0] : s.value[0]);
    std::uint64_t* const full = of_keys ? s.key_full : s.value_full;
    std::uint64_t* const empty = of_keys ? s.key_empty : s.value_empty;
    std::int32_t ticket = blockIdx.x;
    auto const draw = [&](std::uint32_t index) {
        typename storage::task_ring const at{index};
        ptx::barrier_wait(&s.task_empty[at.stage()], at.free_parity());
        if (lane == 0) {
            if (index > 0) ticket = static_cast<std::int32_t>(gridDim.x) + atomicAdd(a.next_tile, 1);
            draw_task<T, HeadDim, Rows>(s.task[at.stage()], a, ticket);
            ptx::barrier_arrive(&s.task_full[at.stage()]);
        }
        __syncwarp();
    };
    if (draws) draw(0);
    std::uint32_t index = 0;  // of the step, over all tasks
    for (std::uint32_t t = 0;; ++t) {
        typename storage::task_ring const at{t};
        hopper_task const& task = s.task[at.stage()];
        if (!draws) ptx::barrier_wait(&s.task_full[at.stage()], at.parity());
        if (task.last) return;
        if (draws) draw(t + 1);
        // Where the next step lies is looked up while this warp waits for a free slot.
        if constexpr (Loader == key_loader::boxes) {
            constexpr int panels = copying::panels / copying::warps;
            key_maps const& maps = of_keys ? a.keys : a.values;
            granule_place next = place_of(a.attend, task.walk, task.steps.begin * granules + lane);
#pragma unroll 1
            for (std::int32_t step = task.steps.begin; step < task.steps.end; ++step, ++index) {
                typename storage::ring const slot{index};
                granule_place const now = next;
                ptx::barrier_wait(&empty[slot.stage()], slot.free_parity());
                if (draws) note_step(s.step[typename storage::step_ring{index}.stage()], task.walk, now.what);
                if (lane == 0) ptx::barrier_arrive_expect(&full[slot.stage()], panels * tile.keys * panel_row_bytes);
                __syncwarp();
                copy_step<tile.keys, panels>(tiles + slot.stage() * static_cast<std::uint32_t>(tile.keys * HeadDim * 2),
                                             part * panels, maps, now, task.work.kv_head, &full[slot.stage()]);
                next = place_of(a.attend, task.walk, (step + 1) * granules + lane);
            }
        } else {
            constexpr int rows = tile.keys / copying::warps;
            tensor_view<T const, 4> const& view = of_keys ? a.attend.params.keys : a.attend.params.values;
            T const* const base = view.data + task.work.kv_head * view.stride[2];
            key_row_offsets<rows> next;
            next.find(a.attend, task.walk, task.steps.begin * tile.keys + part * rows, view);
#pragma unroll 1
            for (std::int32_t step = task.steps.begin; step < task.steps.end; ++step, ++index) {
                typename storage::ring const slot{index};
                ptx::barrier_wait(&empty[slot.stage()], slot.free_parity());
                if (draws)
                    note_step(s.step[typename storage::step_ring{index}.stage()], task.walk,
                              granule_at(task.walk, step * granules + lane));
                next.template copy<tile.keys, HeadDim>(
                    tiles + slot.stage() * static_cast<std::uint32_t>(tile.keys * HeadDim * 2), part * rows, base);
                ptx::barrier_arrive_on_copies(&full[slot.stage()]);
                next.find(a.attend, task.walk, (step + 1) * tile.keys + part * rows, view);
            }
        }
        __syncwarp();
        if (!draws && lane == 0) ptx::barrier_arrive(&s.task_empty[at.stage()]);
    }
}

/// The multiplying warpgroups: all tasks, one after the other.
template <class T, int HeadDim, attend_rows Rows, key_loader Loader>
WINNOW_DEVICE void consume(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    using rows_type = hopper_rows<T, HeadDim, Rows, Loader>;
    rows_type rows(s, a.attend);
    std::uint32_t first = 0;  // index of the task's first step, over all tasks
    // Each round finishes task t - 1 and works on task t, whose queries are fetched while results leave: one copy of the
    // code for the first tile and all others, which is also what registers allow.
    for (std::uint32_t t = 0;; ++t) {
        typename storage::task_ring const slot{t}, last_slot{t - 1};
        ptx::barrier_wait(&s.task_full[slot.stage()], slot.parity());
        hopper_task const& task = s.task[slot.stage()];
        auto const load = [&] {
            if (!task.last) rows.load_queries(task.work);
        };
        if constexpr (!rows_type::in_turn) {
            if constexpr (!rows_type::in_registers) rows.synchronize();  // the last scores have read the queries
            load();
        }
        if (t > 0) {
            bool writes = true;
            if constexpr (rows_type::in_turn) writes = rows.exchange();
            if (writes) rows.write(s.task[last_slot.stage()].work);
            __syncwarp();
            rows.release(&s.task_empty[last_slot.stage()]);
        }
        if constexpr (rows_type::in_turn) load();  // the exchange took the queries' place
        if (task.last) return;
        std::uint32_t const end = first + larger(task.steps.end - task.steps.begin, 0);
        rows.begin(task.work);
        rows.attend(first, end);
        first = end;
    }
}

template <class T, int HeadDim, attend_rows Rows, key_loader Loader>
__global__ void __launch_bounds__(hopper_bounds<HeadDim, Rows>::threads, 1)
    attend_sm90(hopper_arguments<T> const __grid_constant__ a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) unsigned char raw[];
    auto& shared = *reinterpret_cast<hopper_storage<T, HeadDim, Rows>*>(raw);
    constexpr hopper_tile tile = hopper_tile_of({HeadDim, Rows});
    if (threadIdx.x == 0) init_barriers<T, HeadDim, Rows, Loader>(shared);
    __syncthreads();
    if (__shfl_sync(~0u, threadIdx.x / 128, 0) == 0) {
        ptx::release_registers<tile.producer_registers>();
        produce<T, HeadDim, Rows, Loader>(shared, a);
    } else {
        ptx::acquire_registers<tile.consumer_registers>();
        consume<T, HeadDim, Rows, Loader>(shared, a);
    }
#endif
}

}  // namespace winnow
