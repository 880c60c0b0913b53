// Attention for Hopper (sm_90a): one warpgroup copies keys and values by TMA, the others multiply by wgmma; persistent.
//
// Two multiplying warpgroups share a block, so one's softmax hides behind the other's products. With 128 rows each has 64
// of them and both read every step (with 192 there are three); with 64 rows they take steps in turn and add their results
// at the end.
#pragma once

#include <cstdint>
#include <type_traits>

#include "winnow/core/config.hpp"
#include "winnow/policy/attend_tile.hpp"
#include "winnow/ptx/barrier.cuh"
#include "winnow/ptx/bulk_copy.cuh"
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

/// Copying warps for the keys, and as many for the values. By TMA one is enough, and the two others draw tasks, note what
/// steps hold and bring queries; single rows are so much work that all four copy.
WINNOW_HOST_DEVICE constexpr int copying_warps(key_loader loader) { return loader == key_loader::rows ? 2 : 1; }

template <class T, int HeadDim, attend_rows Rows, key_loader Loader>
WINNOW_DEVICE void init_barriers(hopper_storage<T, HeadDim, Rows>& s) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    constexpr hopper_tile tile = storage::tile;
    constexpr int warps = copying_warps(Loader);
    for (int i = 0; i < storage::tasks; ++i) {
        ptx::barrier_init(&s.task_full[i], 1);
        ptx::barrier_init(&s.task_empty[i], 4 * tile.warpgroups() + 3);  // all warps but the one that draws
    }
    for (int i = 0; i < tile.query_stages(); ++i) {
        ptx::barrier_init(&s.query_full[i], 1);
        ptx::barrier_init(&s.query_empty[i], 4 * tile.warpgroups());
    }
    for (int i = 0; i < tile.key_stages; ++i) {
        ptx::barrier_init(&s.key_full[i],
                          Loader == key_loader::rows ? warps + 31
                                                     : warps + 32);   // all lanes of the warp that notes steps
        ptx::barrier_init(&s.key_empty[i], 4 * tile.row_warpgroups);  // one arrival a warp that reads it
    }
    for (int i = 0; i < tile.value_stages; ++i) {
        ptx::barrier_init(&s.value_full[i], warps);
        ptx::barrier_init(&s.value_empty[i], 4 * tile.row_warpgroups);
    }
    ptx::barrier_init_fence();
}

/// Draws the block's tasks, one thread's work. Tickets are asked for a task ahead, since an answer takes a microsecond.
template <class T, int HeadDim, attend_rows Rows>
struct task_drawer {
    hopper_arguments<T> const& a;
    std::int32_t ticket;

    WINNOW_DEVICE explicit task_drawer(hopper_arguments<T> const& arguments)
        : a(arguments), ticket(static_cast<std::int32_t>(blockIdx.x)) {}

    WINNOW_DEVICE std::int32_t next_ticket() const {
        return static_cast<std::int32_t>(gridDim.x) + atomicAdd(a.next_tile, 1);
    }
    /// Describes the next tile that has rows.
    WINNOW_DEVICE void draw(hopper_task& task) {
        while (ticket < a.tiles) {
            std::int32_t const piece = a.request_tiles.quotient(ticket), batch = a.splits.quotient(piece);
            task.work =
                work_of(a.attend, ticket - piece * a.request_tiles.divisor, piece - batch * a.splits.divisor, batch);
            ticket = next_ticket();
            if (task.work.rows.count <= 0) continue;
            begin_walk(task.walk, a.attend, task.work);
            task.steps = steps_of(a.attend.schedule, task.walk, task.work.split, hopper_tile_of({HeadDim, Rows}).keys);
            task.last = false;
            return;
        }
        task.last = true;
    }
};

/// Starts copying the queries of task `t`. Rows that do not exist get those of others: they are not written. A whole warp
/// calls.
template <class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void copy_queries(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a, attend_work const& w,
                                std::uint32_t t) {
    constexpr hopper_tile tile = hopper_tile_of({HeadDim, Rows});
    typename hopper_storage<T, HeadDim, Rows>::query_ring const at{t};
    std::uint64_t* const full = &s.query_full[at.stage()];
    ptx::barrier_wait(&s.query_empty[at.stage()], at.free_parity());
    if (threadIdx.x % 32 == 0) {
        ptx::barrier_arrive_expect(full, tile.warpgroups() * 64 * HeadDim * sizeof(T));
#pragma unroll 1
        for (int i = 0; i < tile.warpgroups() * (HeadDim / panel_channels); ++i) {
            int const group = i % tile.warpgroups(), panel = i / tile.warpgroups();
            std::int32_t const first_row = group * hopper_query_rows % tile.rows;
            ptx::copy_box(ptx::shared_address(s.query[at.stage()][group]) + panel_offset<64>(0, 8 * panel), a.queries,
                          panel * panel_channels, w.first_head,
                          w.request.first_row + w.rows.first + a.attend.tile_heads.quotient(first_row), w.request.outer,
                          full);
        }
    }
    __syncwarp();
}

/// Notes for the masking warps what a step holds; lane l has granule l. A whole warp calls.
template <int Keys>
WINNOW_DEVICE void note_step(hopper_step<Keys>& note, key_walk const& walk, granule g) {
    constexpr int granules = Keys / granule_keys;
    int const lane = threadIdx.x % 32;
    bool const masked = !__all_sync(~0u, lane >= granules || seen_by_all(walk, g));
    std::int32_t const packed = g.first | static_cast<std::int32_t>(g.part);
    if (lane < granules) note.granule[lane] = packed;
    if (masked) {
        // What is hidden behind the window's last granule counts as its neighbour: no row sees so far.
        std::int32_t const first = __shfl_sync(~0u, packed, 0);
        bool const in_window = first >= 0 && (first & 7) == static_cast<std::int32_t>(key_part::window);
        bool const behind = in_window && g.first < 0 && g.part == key_part::window;
        bool const next = behind || (g.first >= 0 && packed == first + lane * granule_keys);
        bool const run = __all_sync(~0u, lane >= granules || next);
        if (lane == 0) note.mask = run ? step_mask::run : step_mask::mixed;
    } else if (lane == 0) {
        note.mask = step_mask::none;
    }
    __syncwarp();
}

/// Calls `work(t, task)` for all tasks, with the whole warp, and hands each back.
template <class T, int HeadDim, attend_rows Rows, class Work>
WINNOW_DEVICE void for_each_task(hopper_storage<T, HeadDim, Rows>& s, Work const& work) {
    for (std::uint32_t t = 0;; ++t) {
        typename hopper_storage<T, HeadDim, Rows>::task_ring const now{t};
        ptx::barrier_wait(&s.task_full[now.stage()], now.parity());
        hopper_task const& task = s.task[now.stage()];
        if (task.last) return;
        work(t, task);
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::barrier_arrive(&s.task_empty[now.stage()]);
    }
}

/// The warp that draws the tasks: the next one as soon as the last but one is done, and no earlier, since a block that
/// draws ahead may sit on work that others could do. Whoever handed the last but one back has done with the one before it,
/// whose place the next one takes.
template <class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void draw_tasks(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a) {
    if (threadIdx.x % 32 != 0) return;
    task_drawer<T, HeadDim, Rows> drawer(a);
    for (std::uint32_t t = 0;; ++t) {
        typename hopper_storage<T, HeadDim, Rows>::task_ring const now{t}, done{t - 2};
        hopper_task& task = s.task[now.stage()];
        if (t >= 2) ptx::barrier_wait(&s.task_empty[done.stage()], done.parity());
        drawer.draw(task);
        bool const last = task.last;
        ptx::barrier_arrive(&s.task_full[now.stage()]);
        if (last) return;
    }
}

/// The warp that notes what steps hold, and brings queries where they come by TMA.
template <class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void note_steps(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    constexpr int granules = storage::tile.keys / granule_keys;
    std::uint32_t index = 0;  // of the step, over all tasks
    for_each_task(s, [&](std::uint32_t t, hopper_task const& task) {
        if (a.boxes_in) copy_queries(s, a, task.work, t);
        for (std::int32_t step = task.steps.begin; step < task.steps.end; ++step, ++index) {
            granule const g = granule_at(task.walk, step * granules + static_cast<int>(threadIdx.x % 32));
            typename storage::key_ring const at{index};
            ptx::barrier_wait(&s.key_empty[at.stage()], at.free_parity());
            note_step(s.step[typename storage::step_ring{index}.stage()], task.walk, g);
            ptx::barrier_arrive(&s.key_full[at.stage()]);
        }
    });
}

/// A warp that brings keys or values by TMA; `tiles` is where their first stage lies.
template <class Ring, key_loader Loader, class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void copy_boxes(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a, key_maps const& maps,
                              T const* tiles, std::uint64_t* full, std::uint64_t* empty) {
    constexpr hopper_tile tile = hopper_tile_of({HeadDim, Rows});
    using layout = key_tile<tile.keys, HeadDim, order_of(Loader)>;
    using row_boxes = panel_boxes<layout, HeadDim / panel_channels>;
    using whole_boxes = std::conditional_t<Loader == key_loader::atoms, atom_boxes<layout>, row_boxes>;
    constexpr int granules = tile.keys / granule_keys, bytes = tile.keys * HeadDim * static_cast<int>(sizeof(T));
    int const lane = threadIdx.x % 32;
    std::uint32_t const first_stage = ptx::shared_address(tiles);
    std::uint32_t index = 0;  // of the step, over all tasks
    for_each_task(s, [&](std::uint32_t, hopper_task const& task) {
        auto const look_up = [&](std::int32_t step) {
            return boxes_of<granules, whole_boxes>(maps, place_of(a.attend, task.walk, step * granules + lane),
                                                   task.work.kv_head);
        };
        if (task.steps.begin >= task.steps.end) return;
        lane_boxes next = look_up(task.steps.begin);
#pragma unroll 1
        for (std::int32_t step = task.steps.begin; step < task.steps.end; ++step, ++index) {
            lane_boxes const mine = next;
            Ring const at{index};
            ptx::barrier_wait(&empty[at.stage()], at.free_parity());
            if (lane == 0) ptx::barrier_arrive_expect(&full[at.stage()], bytes);
            __syncwarp();
            std::uint32_t const target = first_stage + at.stage() * bytes;
            copy_granules(whole_boxes{target, &full[at.stage()]}, row_boxes{target, &full[at.stage()]}, maps, mine);
            __syncwarp();
            if (step + 1 < task.steps.end) next = look_up(step + 1);
        }
    });
}

/// Which tensor's rows a warp copies: a type, so that addresses are made from constants.
enum class row_tensor : std::int32_t { keys, values };

/// One of the copying warps where rows are copied one by one: two bring keys, two values, each its part of a step. The first
/// of all also draws the tasks and notes what each step holds, the last brings queries.
template <row_tensor Which, class T, int HeadDim, attend_rows Rows>
WINNOW_DEVICE void copy_rows(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a, int part) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    constexpr hopper_tile tile = storage::tile;
    constexpr int warps = copying_warps(key_loader::rows), rows = tile.keys / warps;
    constexpr int granules = tile.keys / granule_keys, bytes = tile.keys * HeadDim * static_cast<int>(sizeof(T));
    constexpr bool of_keys = Which == row_tensor::keys;
    using layout = key_tile<tile.keys, HeadDim, order_of(key_loader::rows)>;
    using ring = std::conditional_t<of_keys, typename storage::key_ring, typename storage::value_ring>;
    int const lane = threadIdx.x % 32;
    bool const draws = of_keys && part == 0;
    bool const brings_queries = !of_keys && a.boxes_in && part == warps - 1;
    std::uint64_t* const full = of_keys ? s.key_full : s.value_full;
    std::uint64_t* const empty = of_keys ? s.key_empty : s.value_empty;
    std::uint32_t const first_stage = ptx::shared_address(of_keys ? s.key[0] : s.value[0]);
    task_drawer<T, HeadDim, Rows> drawer(a);
    step_range steps{0, 0};   // of task t - 1
    std::uint32_t index = 0;  // of the step, over all tasks
    for (std::uint32_t t = 0;; ++t) {
        typename storage::task_ring const now{t}, before{t - 1};
        hopper_task const& task = s.task[before.stage()];
        // A task is drawn once the first steps of the one before are on their way.
        std::int32_t const drawing_step = larger(smaller(steps.begin + tile.value_stages, steps.end) - 1, steps.begin);
        std::int32_t step = steps.begin;
        bool loaded = !brings_queries;  // the queries of task t
        key_row_places<rows> places;    // of the step that comes next
        granule held{};                 // lane l: its granule l
        auto const look_up = [&](std::int32_t next) {
            places.find(a.attend, task.walk, next * tile.keys + part * rows);
            if (draws) held = granule_at(task.walk, next * granules + lane);
        };
        if (step < steps.end) {
            look_up(step);
            places.resolve(of_keys ? a.attend.params.keys : a.attend.params.values, task.work.kv_head);
        }
#pragma unroll 1
        do {
            if (step < steps.end) {
                ring const at{index};
                ptx::barrier_wait(&empty[at.stage()], at.free_parity());
                places.template copy<layout, HeadDim>(first_stage + at.stage() * bytes, part * rows);
                if (draws) note_step(s.step[typename storage::step_ring{index}.stage()], task.walk, held);
                // Places are looked up while rows are on their way. Rows are announced before anything else is waited
                // for, and as soon as they are there: products that wait for them are what this warp's next slot waits
                // for. The fence that shows them to wgmma stands here: on the other side it would hold up products that
                // are running.
                if (step + 1 < steps.end) look_up(step + 1);
                ptx::copy_async_wait_all();
                ptx::async_proxy_fence();
                __syncwarp();
                if (lane == 0 || draws) ptx::barrier_arrive(&full[at.stage()]);
                if (step + 1 < steps.end)
                    places.resolve(of_keys ? a.attend.params.keys : a.attend.params.values, task.work.kv_head);
                ++index;
            }
            if (draws && step == drawing_step) {
                ptx::barrier_wait(&s.task_empty[now.stage()], now.free_parity());
                if (lane == 0) {
                    drawer.draw(s.task[now.stage()]);
                    ptx::barrier_arrive(&s.task_full[now.stage()]);
                }
                __syncwarp();
            } else if (step > drawing_step && !loaded) {
                // A step later the task is drawn, and task t - 1 has taken its queries from where these go.
                ptx::barrier_wait(&s.task_full[now.stage()], now.parity());
                if (!s.task[now.stage()].last) copy_queries(s, a, s.task[now.stage()].work, t);
                loaded = true;
            }
        } while (++step < steps.end || !loaded);
        __syncwarp();
        if (!draws && lane == 0 && t > 0) ptx::barrier_arrive(&s.task_empty[before.stage()]);
        ptx::barrier_wait(&s.task_full[now.stage()], now.parity());
        if (s.task[now.stage()].last) return;
        steps = s.task[now.stage()].steps;
    }
}

/// The copying warpgroup: all steps of all tasks.
template <class T, int HeadDim, attend_rows Rows, key_loader Loader>
WINNOW_DEVICE void produce(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    int const warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
    if constexpr (Loader == key_loader::rows) {
        constexpr int warps = copying_warps(Loader);
        if (warp < warps) {
            copy_rows<row_tensor::keys>(s, a, warp);
        } else {
            copy_rows<row_tensor::values>(s, a, warp - warps);
        }
    } else {
        switch (warp) {
        case 0:
            return copy_boxes<typename storage::key_ring, Loader>(s, a, a.keys, s.key[0], s.key_full, s.key_empty);
        case 1:
            return copy_boxes<typename storage::value_ring, Loader>(s, a, a.values, s.value[0], s.value_full,
                                                                    s.value_empty);
        case 2:
            return draw_tasks(s, a);
        case 3:
            return note_steps(s, a);
        }
    }
}

/// The multiplying warpgroups: all tasks, one after the other.
template <class T, int HeadDim, attend_rows Rows, key_loader Loader>
WINNOW_DEVICE void consume(hopper_storage<T, HeadDim, Rows>& s, hopper_arguments<T> const& a) {
    using storage = hopper_storage<T, HeadDim, Rows>;
    using rows_type = hopper_rows<T, HeadDim, Rows, order_of(Loader)>;
    rows_type rows(s, a);
    std::uint32_t first = 0;  // index of the task's first step, over all tasks
    // Each round finishes task t - 1 and works on task t.
    for (std::uint32_t t = 0;; ++t) {
        typename storage::task_ring const slot{t}, last_slot{t - 1};
        ptx::barrier_wait(&s.task_full[slot.stage()], slot.parity());
        hopper_task const& task = s.task[slot.stage()];
        bool writes = t > 0;
        if (t > 0) {
            if constexpr (rows_type::in_turn) {
                writes = rows.exchange();
            } else if constexpr (rows_type::in_results) {
                rows.synchronize();  // results take the queries' place, which all scores have read now
            }
        }
        typename rows_type::row_results results{};
        if (writes) results = rows.write(s.task[last_slot.stage()].work);
        auto const finish = [&] {
            if (writes) rows.write_lse(s.task[last_slot.stage()].work, results);
            __syncwarp();
            if (t > 0) rows.release(&s.task_empty[last_slot.stage()]);
        };
        if (task.last) {
            finish();
            break;
        }
        // The shuffle tells the compiler that the number is the same for all, and with it every descriptor.
        std::uint32_t const end = first + __shfl_sync(~0u, larger(task.steps.end - task.steps.begin, 0), 0);
        if constexpr (rows_type::in_results) finish();  // head_dim 256 has no registers to put it off with
        rows.begin(task.work, t);
        rows.attend(first, end, [&] {
            if constexpr (!rows_type::in_results) finish();
            rows.note_limits(task.work);
        });
        rows.end(t);
        first = end;
    }
    ptx::store_wait();  // shared memory lives as long as the block does
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
