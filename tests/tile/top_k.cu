// Selection against a stable sort: scores of any kind, ties, few and many keys, blocks of any size, keys in either memory.
#include "winnow/tile/top_k.cuh"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_device.hpp"

namespace winnow {

struct top_k_case {
    std::uint32_t* keys;      // [row, width]
    std::int32_t* chosen;     // [row, keep]
    std::int32_t candidates;  // of a row
    std::int32_t width;       // candidates in whole groups of four
    std::int32_t keep;
    bool in_place;  // keys stay in global memory
};

/// One row a block.
template <int Threads, int Runs>
__global__ void __launch_bounds__(Threads) choose_rows(top_k_case const a) {
    extern __shared__ __align__(16) std::uint32_t room[];
    __shared__ top_k_storage<Threads> storage;
    std::uint32_t* const row = a.keys + std::int64_t{blockIdx.x} * a.width;
    std::int32_t* const chosen = a.chosen + std::int64_t{blockIdx.x} * a.keep;
    auto const fetch = [&](uint4(&x)[Runs], std::int32_t c, std::int32_t end) {
        for (int j = 0; j < Runs; ++j)
            x[j] = *reinterpret_cast<uint4 const*>(row + smaller(c + j * top_k_run, (end - 1) & ~3));
    };
    auto const put = [&](std::int32_t at, std::int32_t c) { chosen[at] = c; };
    auto const threads = static_cast<int>(blockDim.x);
    clear_top_k(storage, static_cast<int>(threadIdx.x), threads);
    if (a.in_place)
        select_top_k<Runs>(storage, threads, global_keys{row}, a.candidates, a.keep, fetch, put);
    else
        select_top_k<Runs>(storage, threads, shared_keys{ptx::pinned_address(room)}, a.candidates, a.keep, fetch, put);
}

}  // namespace winnow

using namespace winnow;
using testing::device_memory;
using testing::require_cuda;

namespace {

enum class scores {
    normal,
    mostly_negative,
    nine_values,
    one_exponent,
    equal,
    few_finite,
    huge_and_tiny,
    any_bits,
    count
};

std::uint32_t draw_key(scores kind, std::mt19937& random) {
    float const x = std::normal_distribution<float>{}(random), infinity = std::numeric_limits<float>::infinity();
    switch (kind) {
    case scores::mostly_negative:
        return ordered_key(2.0f * x - 5.0f);
    case scores::nine_values:
        return ordered_key(std::round(x * 1.5f));
    case scores::one_exponent:
        return ordered_key(5.0f + 0.01f * x);
    case scores::equal:
        return ordered_key(3.0f);
    case scores::few_finite:
        return ordered_key(random() % 50 != 0 ? -infinity : x);
    case scores::huge_and_tiny:
        return ordered_key(random() % 2 != 0 ? x * 1e37f : x * 1e-38f);
    case scores::any_bits: {  // NaN and the highest key among them
        auto const bits = static_cast<std::uint32_t>(random());
        return bits % 5 == 0 ? ~0u : bits % 7 == 0 ? 1u : std::max(bits, 1u);
    }
    default:
        return ordered_key(x);
    }
}

template <int Runs>
void check_rows(scores kind, std::int32_t candidates, std::int32_t keep, int threads, bool in_place) {
    constexpr int rows = 3;
    std::mt19937 random(static_cast<unsigned>(candidates * 31 + keep));
    std::int32_t const width = round_up(candidates, 4);
    std::vector<std::uint32_t> keys(static_cast<std::size_t>(rows) * width,
                                    0xfffffff0u);  // behind a row: higher than all
    for (int row = 0; row < rows; ++row)
        for (std::int32_t c = 0; c < candidates; ++c)
            keys[static_cast<std::size_t>(row) * width + c] = draw_key(kind, random);
    device_memory on_device(keys.size() * sizeof(std::uint32_t)),
        chosen(std::size_t{rows} * keep * sizeof(std::int32_t), 64);
    on_device.upload(keys.data(), on_device.size());
    std::size_t const room = in_place ? 0 : static_cast<std::size_t>(width) * sizeof(std::uint32_t);
    top_k_case const a{on_device.as<std::uint32_t>(), chosen.as<std::int32_t>(), candidates, width, keep, in_place};
    choose_rows<512, Runs><<<rows, threads, room>>>(a);
    require_cuda(cudaGetLastError());
    require_cuda(cudaDeviceSynchronize());
    CHECK(chosen.guard_intact());
    auto const found = chosen.download<std::int32_t>();
    for (int row = 0; row < rows; ++row) {
        auto const* const own = keys.data() + static_cast<std::size_t>(row) * width;
        std::vector<std::int32_t> order(static_cast<std::size_t>(candidates));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int32_t x, std::int32_t y) { return own[x] > own[y]; });
        order.resize(static_cast<std::size_t>(keep));
        std::sort(order.begin(), order.end());
        INFO("scores " << static_cast<int>(kind) << ", " << keep << " of " << candidates << ", " << threads
                       << " threads, row " << row);
        CHECK(std::equal(order.begin(), order.end(), found.begin() + static_cast<std::ptrdiff_t>(row) * keep));
    }
}

}  // namespace

TEST_CASE("top_k: lists are those of a stable sort, by index", "[gpu][top_k]") {
    for (int kind = 0; kind < static_cast<int>(scores::count); ++kind)
        for (std::int32_t const candidates : {2, 33, 129, 1000, 2048, 4097})
            for (std::int32_t const keep : {1, candidates / 4, candidates / 2, candidates - 1, candidates}) {
                if (keep < 1) continue;
                for (int const threads : {32, 128, 512})
                    check_rows<2>(static_cast<scores>(kind), candidates, keep, threads, false);
                check_rows<1>(static_cast<scores>(kind), candidates, keep, 256, true);
            }
}
