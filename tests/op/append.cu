// append against the oracle: every byte of rows and caches after a launch, for all orders of memory, page sizes and
// head sizes; rotations within their derived bound; slots that lead astray; graphs; refused calls.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/append_input.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/gpu_device.hpp"

using namespace winnow;
using testing::append_input;
using testing::append_shape;
using testing::cache_order;
using testing::device_memory;

namespace {

constexpr cache_order orders[] = {cache_order::token_major, cache_order::head_major, cache_order::combined,
                                  cache_order::interleaved};
constexpr std::int32_t positions[] = {0, 1, 131071, 3000000, std::numeric_limits<std::int32_t>::max(), -5};

// The input's memory on the device, with guard bytes behind it.
template <class T>
class device_input {
public:
    explicit device_input(append_input<T>& in) : in_(in), memory_(in.memory().size(), 4096) { refresh(); }
    void refresh() { memory_.upload(in_.memory().base(), in_.memory().size()); }
    append_params<T> params() const { return in_.params(memory_.data()); }
    std::vector<char> download() const {
        CHECK(memory_.guard_intact());
        return memory_.template download<char>();
    }
    bool unchanged() const {
        auto const now = download();
        return std::memcmp(now.data(), in_.memory().base(), now.size()) == 0;
    }

private:
    append_input<T>& in_;
    device_memory memory_;
};

template <class T>
void check(append_shape const& shape) {
    append_input<T> in(shape);
    device_input<T> memory(in);
    testing::run_on_device(memory.params());
    std::string const wrong = in.mismatch(memory.download().data());
    auto const& r = shape.rotation;
    INFO(shape.rows << " rows, " << shape.heads << "/" << shape.kv_heads << " heads, " << shape.head_dim << "/"
                    << in.shape().value_dim << " channels, pages of " << shape.page_size << ", order "
                    << static_cast<int>(shape.order) << ", fused " << shape.fused << ", theta " << r.theta
                    << ", rotary " << r.rotary_dim << ", pairing " << static_cast<int>(r.pairing) << ", table "
                    << shape.table << ", seed " << shape.seed);
    CHECK(wrong == "");
}

// A tensor with the extents of `like` whose indices on one axis are `stride` elements apart.
tensor_view<bf16, 3> spread(tensor_view<bf16 const, 3> const& like, bf16* data, int axis, std::int64_t stride) {
    tensor_view<bf16, 3> view = packed_view(data, {like.extent[0], like.extent[1], like.extent[2]});
    view.stride[0] = axis == 0 ? stride : like.extent[2];
    view.stride[1] = axis == 1 ? stride : like.extent[2];
    return view;
}

}  // namespace

TEMPLATE_TEST_CASE("append: copies are exact, and nothing else is written", "[gpu]", bf16, fp16) {
    std::uint64_t seed = 1;
    for (cache_order const order : orders)
        for (std::int64_t const page_size : {1, 3, 16, 64})
            for (std::int64_t const head_dim : {8, 24, 64, 72, 128, 192, 256, 576, 1024})
                for (std::int64_t const rows : {1, 3, 4, 5, 37})
                    check<TestType>({.rows = rows,
                                     .kv_heads = 1 + static_cast<std::int64_t>(seed % 9),
                                     .head_dim = head_dim,
                                     .value_dim = seed % 5 == 0   ? 0
                                                  : seed % 5 == 1 ? 512
                                                                  : -1,
                                     .page_size = page_size,
                                     .order = order,
                                     .fused = seed % 2 == 0,
                                     .astray = seed % 3 == 0,
                                     .seed = seed++});
}

TEMPLATE_TEST_CASE("append: rotations stay within their bound", "[gpu]", bf16, fp16) {
    std::uint64_t seed = 1;
    for (rope_pairing const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int64_t const head_dim : {16, 64, 80, 96, 128, 256, 1024})
            for (std::int32_t const rotary : {0, 16, 32, 64})
                for (float const theta : {1e4f, 5e5f, 0.0f}) {
                    if (rotary > head_dim) continue;
                    check<TestType>({.rows = 23,
                                     .kv_heads = 1 + static_cast<std::int64_t>(seed % 8),
                                     .head_dim = head_dim,
                                     .heads = seed % 3 == 0 ? 0 : 1 + static_cast<std::int64_t>(seed % 40),
                                     .order = orders[seed % 4],
                                     .fused = seed % 2 == 0,
                                     .astray = seed % 4 != 0,
                                     .rotation = {.theta = theta, .rotary_dim = rotary, .pairing = pairing},
                                     .table = theta == 0,
                                     .positions = {std::begin(positions), std::end(positions)},
                                     .seed = seed});
                    ++seed;
                }
}

TEMPLATE_TEST_CASE("append: small", "[gpu][small]", bf16, fp16) {
    check<TestType>({.rows = 7, .kv_heads = 3, .head_dim = 72, .value_dim = 40, .page_size = 3, .astray = true});
    for (rope_pairing const pairing : {rope_pairing::halves, rope_pairing::adjacent})
        for (std::int64_t const head_dim : {96, 1024})
            check<TestType>({.rows = 6,
                             .kv_heads = 2,
                             .head_dim = head_dim,
                             .heads = 5,
                             .order = cache_order::head_major,
                             .fused = true,
                             .astray = true,
                             .rotation = {.theta = 1e4f, .pairing = pairing},
                             .positions = {std::begin(positions), std::end(positions)}});
    check<TestType>({.rows = 5, .heads = 2, .rotation = {.rotary_dim = 32}, .table = true});
    check<TestType>({.rows = 2051, .head_dim = 32, .heads = 2, .rotation = {.theta = 1e4f}});  // four rows a block
}

TEST_CASE("append: many rows, many heads, none", "[gpu]") {
    check<bf16>({.rows = 8192, .kv_heads = 8, .head_dim = 128, .astray = true});
    check<bf16>({.rows = 5000, .kv_heads = 8, .head_dim = 128, .heads = 32, .rotation = {.theta = 5e5f}});
    for (std::int64_t const rows : {1023, 1024, 2051, 4097})
        for (std::int64_t const head_dim : {128, 256, 1024})
            check<fp16>({.rows = rows, .head_dim = head_dim, .heads = 2, .astray = true, .rotation = {.theta = 1e4f}});
    check<fp16>({.rows = 300000, .head_dim = 8, .page_size = 64});
    check<fp16>({.rows = 2, .kv_heads = 65535, .head_dim = 8});
    check<bf16>({.rows = 0, .heads = 2, .rotation = {.theta = 1e4f}});
}

TEST_CASE("append: position 0 leaves every number as it is", "[gpu][small]") {
    append_input<bf16> in({.rows = 9, .kv_heads = 2, .heads = 3, .rotation = {.theta = 1e4f}, .positions = {0}});
    device_input<bf16> memory(in);
    testing::run_on_device(memory.params());
    auto bytes = memory.download();
    auto const found = in.params(bytes.data()), before = in.params();
    for (std::int64_t row = 0; row < 9; ++row)
        for (std::int64_t c = 0; c < 64; ++c) {
            auto const at = place_of(in.slots()[row], found.key_cache.extent[0], found.key_cache.extent[1]);
            for (std::int64_t h = 0; h < 2; ++h)
                REQUIRE(to_float(found.key_cache(at.page, at.token, h, c)) == to_float(before.keys(row, h, c)));
            for (std::int64_t h = 0; h < 3; ++h)
                REQUIRE(to_float(found.queries(row, h, c)) == to_float(before.queries(row, h, c)));
        }
}

TEST_CASE("append: NaN and infinity reach their own pair alone", "[gpu][small]") {
    append_input<fp16> in({.rows = 1, .rotation = {.theta = 1e4f}, .positions = {3}});
    in.first_key()[5] = fp16{0x7e00}, in.first_key()[40] = fp16{0x7c00};
    device_input<fp16> memory(in);
    testing::run_on_device(memory.params());
    auto bytes = memory.download();
    auto const p = in.params(bytes.data());
    auto const at = place_of(in.slots()[0], p.key_cache.extent[0], p.key_cache.extent[1]);
    for (std::int32_t c = 0; c < 64; ++c) {
        float const x = to_float(p.key_cache(at.page, at.token, 0, c));
        INFO("channel " << c << ": " << x);
        if (c % 32 == 5)
            CHECK(std::isnan(x));
        else
            CHECK(std::isinf(x) == (c % 32 == 8));
    }
}

TEST_CASE("append: two rows with one slot leave pieces of either", "[gpu]") {
    append_input<bf16> in({.rows = 64, .kv_heads = 4, .head_dim = 128});
    for (int row = 0; row < 64; ++row) in.slots()[row] = 5;
    device_input<bf16> memory(in);
    testing::run_on_device(memory.params());
    auto bytes = memory.download();
    auto const found = in.params(bytes.data()), before = in.params();
    for (std::int64_t h = 0; h < 4; ++h)
        for (std::int64_t c = 0; c < 128; c += 8) {
            bool some = false;
            for (std::int64_t row = 0; row < 64 && !some; ++row)
                some = std::memcmp(&found.key_cache(0, 5, h, c), &before.keys(row, h, c), 16) == 0;
            CHECK(some);
        }
    // All the rest of the memory is as it was.
    auto const view = in.params();
    for (std::int64_t h = 0; h < 4; ++h)
        std::memcpy(&found.key_cache(0, 5, h, 0), &view.key_cache(0, 5, h, 0), 256),
            std::memcpy(&found.value_cache(0, 5, h, 0), &view.value_cache(0, 5, h, 0), 256);
    CHECK(std::memcmp(bytes.data(), in.memory().base(), bytes.size()) == 0);
}

TEST_CASE("append: the same bits with other rows beside it", "[gpu]") {
    append_input<bf16> in({.rows = 101,
                           .kv_heads = 3,
                           .head_dim = 128,
                           .heads = 6,
                           .rotation = {.theta = 1e4f},
                           .positions = {std::begin(positions), std::end(positions)}});
    device_input<bf16> memory(in);
    testing::run_on_device(memory.params());
    auto const at_once = memory.download();
    memory.refresh();
    auto const all = memory.params();
    for (std::int64_t begin = 0, count = 1; begin < 101; begin += count, count = count % 7 + 2) {
        auto p = all;
        std::int64_t const rows = std::min<std::int64_t>(count, 101 - begin);
        p.keys.data += p.keys.offset(begin), p.values.data += p.values.offset(begin);
        p.queries.data += p.queries.offset(begin), p.slot += begin, p.position += begin;
        p.keys.extent[0] = p.values.extent[0] = p.queries.extent[0] = rows;
        testing::run_on_device(p);
    }
    CHECK((memory.download() == at_once));
}

TEST_CASE("append: slots beyond 2^31", "[gpu]") {
    // 2^32 slots in little memory: pages and tokens overlap, at 8 elements from one to the next.
    std::int64_t const pages = std::int64_t{1} << 20, page_size = 4096, step = 8;
    device_memory cache(static_cast<std::size_t>((pages + page_size) * step) * 2), keys(3 * 8 * 2), slots(3 * 8);
    std::vector<std::uint16_t> row;
    for (std::uint16_t i = 0; i < 24; ++i) row.push_back(i);
    std::vector<std::int64_t> const slot{pages * page_size - 1, (pages - 2) * page_size + 7, pages * page_size};
    keys.upload(row.data(), keys.size()), slots.upload(slot.data(), slots.size());
    append_params<bf16> p;
    p.keys = packed_view<bf16 const>(keys.as<bf16>(), {3, 1, 8});
    p.key_cache = packed_view(cache.as<bf16>(), {pages, page_size, 1, 8});
    p.key_cache.stride[0] = p.key_cache.stride[1] = step;
    p.slot = slots.as<std::int64_t>();
    testing::run_on_device(p);
    auto expected = std::vector<std::uint16_t>(cache.size() / 2, 0xffff);
    std::copy_n(row.begin(), 8, expected.begin() + (pages - 1 + page_size - 1) * step);
    std::copy_n(row.begin() + 8, 8, expected.begin() + (pages - 2 + 7) * step);
    CHECK((cache.download<std::uint16_t>() == expected));
}

TEST_CASE("append: offsets beyond 2^31", "[gpu][big]") {
    std::int64_t const elements = (std::int64_t{1} << 31) + (std::int64_t{1} << 27);
    std::size_t available = 0, total = 0;
    testing::require_cuda(cudaMemGetInfo(&available, &total));
    if (available <= static_cast<std::size_t>(elements) * 2 + (std::size_t{1} << 30)) {
        std::puts("append, offsets beyond 2^31: not enough free device memory, nothing tested");
        return;
    }
    // Rows, pages, tokens or heads far apart in one pool: the last of each begins beyond 2^31.
    append_input<bf16> in({.rows = 3,
                           .kv_heads = 2,
                           .heads = 2,
                           .page_size = 2,
                           .rotation = {.theta = 1e4f},
                           .positions = {9, 100, 3000000}});
    device_memory pool(static_cast<std::size_t>(elements) * 2);
    device_input<bf16> memory(in);
    testing::run_on_device(memory.params());
    auto bytes = memory.download();
    auto const near = in.params(bytes.data()), host = in.params();
    std::int64_t const far = (std::int64_t{1} << 31) + 1024;
    for (int const axis : {0, 1, 2}) {  // of the cache
        INFO("cache axis " << axis);
        auto p = memory.params();
        p.key_cache.data = pool.as<bf16>();
        std::int64_t const extent = p.key_cache.extent[axis],
                           stride = round_up(ceil_div(far, extent - 1), std::int64_t{8});
        for (int other = 2, next = 64; other >= 0; --other)
            if (other != axis) p.key_cache.stride[other] = next, next *= static_cast<int>(p.key_cache.extent[other]);
        p.key_cache.stride[axis] = stride;
        REQUIRE(stride * (extent - 1) > (std::int64_t{1} << 31));
        REQUIRE(stride * (extent - 1) + 4096 < elements);
        // Every row to a place at the far end of the axis.
        std::vector<std::int64_t> slot{0, 1, p.key_cache.extent[0] * 2 - 1};
        if (axis == 0) slot = {p.key_cache.extent[0] * 2 - 2, p.key_cache.extent[0] * 2 - 1, 0};
        memory.refresh();
        device_memory slots(slot.size() * 8);
        slots.upload(slot.data(), slots.size());
        p.slot = slots.as<std::int64_t>();
        testing::run_on_device(p);
        for (std::int64_t row = 0; row < 3; ++row)
            for (std::int64_t h = 0; h < 2; ++h) {
                auto const at = place_of(slot[static_cast<std::size_t>(row)], p.key_cache.extent[0], 2);
                auto const was = place_of(in.slots()[row], near.key_cache.extent[0], 2);
                bf16 found[64];
                testing::require_cuda(cudaMemcpy(found, p.key_cache.data + p.key_cache.offset(at.page, at.token, h),
                                                 sizeof found, cudaMemcpyDeviceToHost));
                CHECK(std::memcmp(found, &near.key_cache(was.page, was.token, h, 0), sizeof found) == 0);
            }
    }
    for (int const axis : {0, 1}) {  // of keys and queries, which are rotated in place
        INFO("row axis " << axis);
        memory.refresh();
        auto p = memory.params();
        std::int64_t const extent = p.keys.extent[axis], stride = round_up(ceil_div(far, extent - 1), std::int64_t{8});
        auto keys = spread(p.keys, pool.as<bf16>(), axis, stride);
        auto queries = spread(p.queries, pool.as<bf16>() + 512, axis, stride);
        for (std::int64_t row = 0; row < 3; ++row)
            for (std::int64_t h = 0; h < 2; ++h) {
                testing::require_cuda(cudaMemcpy(&keys(row, h, 0), &host.keys(row, h, 0), 128, cudaMemcpyHostToDevice));
                testing::require_cuda(
                    cudaMemcpy(&queries(row, h, 0), &host.queries(row, h, 0), 128, cudaMemcpyHostToDevice));
            }
        p.keys = keys, p.queries = queries;
        testing::run_on_device(p);
        auto after = memory.download();
        auto const found = in.params(after.data());
        for (std::int64_t row = 0; row < 3; ++row)
            for (std::int64_t h = 0; h < 2; ++h) {
                auto const at = place_of(in.slots()[row], found.key_cache.extent[0], 2);
                CHECK(std::memcmp(&found.key_cache(at.page, at.token, h, 0), &near.key_cache(at.page, at.token, h, 0),
                                  128) == 0);
                bf16 query[64];
                testing::require_cuda(cudaMemcpy(query, &queries(row, h, 0), 128, cudaMemcpyDeviceToHost));
                CHECK(std::memcmp(query, &near.queries(row, h, 0), 128) == 0);
            }
    }
}

TEST_CASE("append: in a graph, with slots, positions and rows that change in place", "[gpu]") {
    append_input<bf16> in({.rows = 21,
                           .kv_heads = 2,
                           .head_dim = 128,
                           .heads = 4,
                           .astray = true,
                           .rotation = {.theta = 5e5f},
                           .positions = {std::begin(positions), std::end(positions)}});
    device_input<bf16> memory(in);
    auto const p = memory.params();
    auto const plan = testing::run_on_device(p);
    testing::captured_graph const graph(
        [&](cudaStream_t stream) { REQUIRE(testing::gpu_launch(p, plan, {}, stream).ok()); });
    CHECK(graph.kernels_and_others() == std::pair{1, 0});
    for (int round = 0; round < 4; ++round) {
        if (round > 0) {
            in.draw_slots();
            for (int i = 0; i < 21; ++i) in.positions()[i] = round * 1000003 + i, in.first_key()[i * 11].bits ^= 0x55;
            if (round == 2) std::fill_n(in.slots(), 21, -1);  // an idle step: all padding
        }
        memory.refresh();
        graph.replay();
        INFO("round " << round);
        CHECK(in.mismatch(memory.download().data()) == "");
    }
}

TEST_CASE("append: bad params and plans write nothing", "[gpu]") {
    append_input<bf16> in({.rows = 5, .kv_heads = 2, .heads = 2, .rotation = {.theta = 1e4f}});
    device_input<bf16> memory(in);
    auto const valid = memory.params();
    auto const plan = winnow::plan(valid, testing::current_device());
    using p = append_params<bf16>;
    std::vector<testing::bad_input<p>> const table = {
        {[](p& a) { a.keys.data = nullptr; }, errc::null_pointer, "keys.data", 0},
        {[](p& a) { a.keys.data += 1; }, errc::misaligned, "keys.data", 2},
        {[](p& a) { a.key_cache.stride[1] += 4; }, errc::misaligned, "key_cache.stride", 2 * 64 + 4},
        {[](p& a) { a.value_cache.data = nullptr; }, errc::null_pointer, "value_cache.data", 0},
        {[](p& a) { a.slot = nullptr; }, errc::null_pointer, "slot", 0},
        {[](p& a) { a.position = nullptr; }, errc::null_pointer, "position", 0},
        {[](p& a) { a.rotation.rotary_dim = 8; }, errc::out_of_range, "rotation.rotary_dim", 8},
        {[](p& a) { a.queries.extent[0] = 4; }, errc::bad_extent, "queries.extent", 4},
    };
    int launches = 0;
    testing::require_statuses(valid, table, [&](p const& a) {
        auto const s = testing::gpu_launch(a, plan, {}, nullptr);
        testing::require_cuda(cudaDeviceSynchronize());
        if (launches++ > 0) CHECK(memory.unchanged());
        memory.refresh();  // the valid launch wrote
        return s;
    });
    // A plan that is none comes back with its own reason.
    auto bad = valid;
    bad.rotation.theta = -1;
    auto const s = testing::gpu_launch(valid, winnow::plan(bad, testing::current_device()), {}, nullptr);
    CHECK(std::string(s.field) == "rotation.theta");
    testing::require_cuda(cudaDeviceSynchronize());
    CHECK(memory.unchanged());
}
