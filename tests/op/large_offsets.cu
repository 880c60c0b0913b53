// Offsets beyond 2^31 elements: the same bits as the same call in little memory.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"
#include "support/gpu_prune.hpp"

using namespace winnow;
using testing::attend_input;
using testing::device_memory;

namespace {

constexpr std::int64_t pool_elements = (std::int64_t{1} << 31) + (std::int64_t{1} << 27);

bool enough_memory() {
    std::size_t available = 0, total = 0;
    testing::require_cuda(cudaMemGetInfo(&available, &total));
    if (available > static_cast<std::size_t>(pool_elements) * 2 + (std::size_t{1} << 30)) return true;
    std::puts("large offsets: not enough free device memory, nothing tested");
    return false;
}

}  // namespace

TEST_CASE("large offsets: pages, rows and heads far into a pool", "[gpu][big]") {
    if (!enough_memory()) return;
    // One pool, NaN throughout: pages hold 16 keys, then their 16 values, of 2 KV heads; queries, output between.
    std::int64_t const page = 16 * 2 * 64, pages = pool_elements / (2 * page);
    device_memory pool(static_cast<std::size_t>(pool_elements) * 2);
    for (std::int32_t const rows : {1, 20, 150}) {
        attend_input<bf16> in({.queries = {rows},
                               .keys = {300},
                               .heads = 4,
                               .kv_heads = 2,
                               .layout = kv_layout::block_table,
                               .page_size = 16});
        auto const near = testing::run_attend(in, [](auto&) {});
        prune_method const& method = hip_tiny;
        auto const near_lists = testing::run_prune(in, method, [](auto&) {});

        // The last pages of the pool, but for one that is the first.
        auto const host = in.params();
        std::int32_t const used = ceil_div(300, 16);
        std::vector<std::int32_t> table;
        for (std::int32_t i = 0; i < used; ++i)
            table.push_back(i == 5 ? 0 : static_cast<std::int32_t>(pages - 1 - 2 * i));
        for (std::int32_t i = 0; i < used; ++i) {
            auto const from = static_cast<std::size_t>(in.pages()[i] * page);
            auto const to =
                static_cast<std::size_t>(table[static_cast<std::size_t>(i)]) * static_cast<std::size_t>(2 * page);
            pool.upload(host.keys.data + from, static_cast<std::size_t>(page) * 2, to * 2);
            pool.upload(host.values.data + from, static_cast<std::size_t>(page) * 2,
                        (to + static_cast<std::size_t>(page)) * 2);
        }
        REQUIRE(static_cast<std::int64_t>(table[0]) * 2 * page > (std::int64_t{1} << 31));
        device_memory device_table(table.size() * 4);
        device_table.upload(table.data(), device_table.size());
        testing::device_copy<bf16> memory(in);
        auto p = memory.params();
        auto const widen = [&](auto& view, std::int64_t offset) {
            view.data = pool.as<bf16>() + offset;
            view.extent[0] = pages, view.stride[0] = 2 * page;
        };
        widen(p.keys, 0), widen(p.values, page);
        p.kv.pages = device_table.as<std::int32_t>();
        testing::run_on_device(p);
        auto bytes = memory.download();
        INFO(rows << " rows");
        CHECK((in.output(bytes.data()) == near.output));
        CHECK((in.lse(bytes.data()) == near.lse));

        auto q = testing::prune_params_of(p, method);
        testing::device_selection const selection(method, q.shape());
        q.selection = selection.view();
        testing::run_on_device(q);
        auto const lists = selection.download();
        CHECK((lists.counts == near_lists.counts));
        for (std::int32_t m = 0; m < lists.view.blocks.extent[2]; ++m)
            CHECK(testing::list_of(lists, 0, 0, m) == testing::list_of(near_lists, 0, 0, m));

        // Queries and output with their last row or their last head beyond 2^31. (Row stride 2^31 / 16 and more.)
        for (bool const by_head : {false, true}) {
            std::int32_t const outer = by_head ? 4 : rows;
            if (outer == 1) continue;
            std::int64_t const stride = (pool_elements - (std::int64_t{1} << 22)) / (outer - 1) / 1024 * 1024 - 2048;
            REQUIRE(stride * (outer - 1) > (std::int64_t{1} << 31));
            auto far = memory.params();
            auto const move = [&](auto& view, std::int64_t offset) {
                view.data = pool.as<bf16>() + offset;
                view.stride[1] = by_head ? 64 : stride;
                view.stride[2] = by_head ? stride : 64;
            };
            std::int64_t const queries_at = 1 << 20, output_at = queries_at + (1 << 16);
            move(far.queries, queries_at), move(far.output, output_at);
            for (std::int32_t i = 0; i < rows; ++i)
                for (std::int32_t h = 0; h < 4; ++h)
                    pool.upload(
                        &in.query(0, i, h, 0), 128,
                        static_cast<std::size_t>(queries_at + i * far.queries.stride[1] + h * far.queries.stride[2]) *
                            2);
            testing::run_on_device(far);
            std::vector<double> found;
            for (std::int32_t i = 0; i < rows; ++i)
                for (std::int32_t h = 0; h < 4; ++h) {
                    bf16 row[64];
                    testing::require_cuda(cudaMemcpy(row, far.output.data + far.output.offset(0, i, h), sizeof row,
                                                     cudaMemcpyDeviceToHost));
                    for (bf16 const x : row) found.push_back(to_float(x));
                }
            INFO("by head " << by_head);
            CHECK((found == near.output));
        }
    }
}
