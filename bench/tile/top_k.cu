// Benchmarks of selection alone: rows of scores in memory, the best of each row as ascending indices.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "support/harness.cuh"
#include "support/machine.cuh"
#include "winnow/op/launch_kernel.cuh"
#include "winnow/policy/prune_policy.hpp"
#include "winnow/tile/top_k.cuh"

namespace winnow::bench {

struct selection_case {
    std::uint32_t const* scores;  // [row, candidate]
    std::int32_t* chosen;         // [row, keep]
    std::int32_t candidates, keep;
};

__global__ void __launch_bounds__(prune_select_threads, prune_select_blocks)
    select_rows(selection_case const __grid_constant__ a) {
    extern __shared__ __align__(16) std::uint32_t cached[];
    __shared__ top_k_storage<prune_select_threads> storage;
    constexpr int runs_at_a_time = 2;
    std::uint32_t const* const row = a.scores + static_cast<std::int64_t>(blockIdx.x) * a.candidates;
    std::int32_t* const chosen = a.chosen + static_cast<std::int64_t>(blockIdx.x) * a.keep;
    clear_top_k(storage, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
    select_top_k<runs_at_a_time>(
        storage, static_cast<int>(blockDim.x), shared_keys{ptx::pinned_address(cached)}, a.candidates, a.keep,
        [&](uint4(&x)[runs_at_a_time], std::int32_t c, std::int32_t end) {
            WINNOW_UNROLL
            for (int j = 0; j < runs_at_a_time; ++j)
                x[j] = *reinterpret_cast<uint4 const*>(row + smaller(c + j * top_k_run, (end - 1) & ~3));
        },
        [&](std::int32_t at, std::int32_t c) { chosen[at] = c; });
}

}  // namespace winnow::bench

using namespace winnow;
using namespace winnow::bench;

namespace {

std::vector<std::uint32_t> draw_scores(std::size_t count) {
    std::vector<std::uint32_t> keys(count);
    std::uint64_t state = 1;
    for (auto& key : keys) {
        float sum = -6.0f;  // of twelve uniform numbers: close to normal
        for (int i = 0; i < 12; ++i) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += static_cast<float>(state >> 40) * 0x1p-24f;
        }
        key = ordered_key(sum);
    }
    return keys;
}

prepared selection(std::int32_t rows, std::int32_t candidates, std::int32_t keep) {
    struct owned {
        device_array<std::uint32_t> scores;
        device_array<std::int32_t> chosen;
    };
    auto const keys = draw_scores(static_cast<std::size_t>(rows) * candidates);
    auto const memory = std::make_shared<owned>(
        owned{device_array<std::uint32_t>(keys), device_array<std::int32_t>(static_cast<std::size_t>(rows) * keep)});
    selection_case const a{memory->scores.data(), memory->chosen.data(), candidates, keep};
    auto const launch = [memory, a, rows](cudaStream_t stream) {
        return launch_kernel(select_rows, dim3(static_cast<unsigned>(rows)),
                             prune_select_threads_of(a.candidates, rows),
                             static_cast<std::size_t>(a.candidates) * sizeof(std::uint32_t), stream, a);
    };
    require(launch(this_machine().stream));
    require(cudaStreamSynchronize(this_machine().stream), "select_rows");
    auto const found = memory->chosen.download();
    for (std::int32_t const row : {0, rows - 1}) {
        auto const* const own = keys.data() + static_cast<std::size_t>(row) * candidates;
        std::vector<std::int32_t> order(static_cast<std::size_t>(candidates));
        for (std::int32_t c = 0; c < candidates; ++c) order[static_cast<std::size_t>(c)] = c;
        std::stable_sort(order.begin(), order.end(), [&](std::int32_t x, std::int32_t y) { return own[x] > own[y]; });
        order.resize(static_cast<std::size_t>(keep));
        std::sort(order.begin(), order.end());
        if (!std::equal(order.begin(), order.end(), found.begin() + static_cast<std::ptrdiff_t>(row) * keep))
            throw std::runtime_error("wrong selection in row " + std::to_string(row));
    }
    return {launch, {.bytes = 4.0 * rows * (candidates + keep)}};
}

void add_all() {
    for (std::int32_t const rows : {1, 512, 2048})
        for (std::int32_t const candidates : {512, 1024, 4096, 16384})
            for (std::int32_t const keep : {128, 256}) {
                bool const quick = rows == 2048 && candidates == 4096 && keep == 128;
                add((quick ? "quick/top_k/" : "full/top_k/") + std::to_string(rows) + "_rows/" +
                        std::to_string(candidates) + "/keep:" + std::to_string(keep),
                    benchmark::kMicrosecond, [=] { return selection(rows, candidates, keep); });
            }
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
