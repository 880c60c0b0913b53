// Conversions on the device give the bytes that they give on the host: every format both ways, order, duplicates and bad
// ids, overflow, long contexts, many lists, page tables, and graphs.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/gpu_device.hpp"
#include "support/random_input.hpp"
#include "support/stored_lists.hpp"
#include "winnow/reference/convert.hpp"

using namespace winnow;
using testing::arena;
using testing::block_sets;
using testing::device_memory;
using testing::disorder;
using testing::random_sets;
using testing::random_source;
using testing::stored_selection;

namespace {

template <class From, class To>
status on_host(convert_params<From, To> const& p) {
    return reference::convert(p);
}
status on_host(pack_pages_params const& p) { return reference::pack_pages(p); }

// Index of the first byte that differs, or -1.
std::int64_t first_difference(arena& memory, device_memory const& device) {
    auto const found = device.download<char>();
    auto const at = std::mismatch(found.begin(), found.end(), memory.base()).first;
    return at == found.end() ? -1 : at - found.begin();
}

// `params(base)` on a copy of the memory on the device and on the memory itself: every byte must be the same, those of
// the inputs, of what is left alone, and of `needed` included.
template <class Params>
void compare_with_host(arena& memory, Params const& params) {
    device_memory device(memory.size(), 4096);
    device.upload(memory.base(), memory.size());
    testing::run_on_device(params(device.data()));
    status const s = on_host(params(memory.base()));
    INFO("host: " << s.field << " " << s.rule << " " << s.value);
    CHECK((s.ok() || s.code == errc::out_of_range));  // too small is reported by both, the device in `needed`
    CHECK(device.guard_intact());
    CHECK(first_difference(memory, device) == -1);
}

enum class room : std::int32_t { exact, spare, short_by_some };

template <class Stored>
void both_ways(list_axes axes, std::int32_t key_blocks, double density, std::uint64_t seed, disorder how,
               room capacity = room::exact) {
    INFO(axes.batch << " x " << axes.heads << " x " << axes.query_blocks << " lists of " << key_blocks
                    << " blocks, density " << density << ", seed " << seed << ", disorder " << static_cast<int>(how)
                    << ", room " << static_cast<int>(capacity));
    block_sets const sets = random_sets(axes, key_blocks, density, seed);
    auto const sized = [&](std::int64_t exact) {
        return capacity == room::exact   ? exact
               : capacity == room::spare ? exact + 5
                                         : std::max<std::int64_t>(exact - 1 - exact / 4, 0);
    };
    random_source random(seed);
    arena memory;
    stored_selection const lists(memory, axes, key_blocks, stored_selection::room_for(sets));
    stored_selection const back(memory, axes, key_blocks, sized(sets.longest()));
    Stored const format(memory, axes, key_blocks, sized(Stored::capacity_for(sets)));
    Stored const given(memory, axes, key_blocks, Stored::room_for(sets));
    std::size_t const needed = memory.take<std::int64_t>(1);
    std::size_t const lengths = memory.take<std::int32_t>(static_cast<std::size_t>(axes.batch) + 1);
    testing::poison(memory);
    lists.write(memory.base(), sets, how, random);
    given.write(memory.base(), sets, how, random);
    for (std::int32_t b = 0; b < axes.batch; ++b)
        memory.at<std::int32_t>(lengths)[b] = random.between(-1, key_blocks * 16 + 40);
    bool const bounded = seed % 2 == 0;
    auto const length_at = [&](char* base) {
        return bounded ? reinterpret_cast<std::int32_t const*>(base + lengths) : nullptr;
    };
    auto const needed_at = [&](char* base) { return reinterpret_cast<std::int64_t*>(base + needed); };
    compare_with_host(memory, [&](char* base) {
        return convert_params<block_selection, typename Stored::buffer>{lists.view(base), format.view(base), key_blocks,
                                                                        length_at(base), needed_at(base)};
    });
    compare_with_host(memory, [&](char* base) {
        return convert_params<typename Stored::reading, block_selection_buffer>{
            given.view(base), back.view(base), key_blocks, length_at(base), needed_at(base)};
    });
}

}  // namespace

TEMPLATE_TEST_CASE("convert: the bytes of the host, every format both ways", "[gpu]", testing::stored_bsr,
                   testing::stored_block_lists, testing::stored_padded_lists, testing::stored_bits,
                   testing::stored_flags, testing::stored_selection) {
    std::uint64_t seed = 1;
    for (std::int32_t const key_blocks : {1, 7, 8, 31, 32, 33, 100, 1000, 4096, 4097})
        for (double const density : {0.0, 0.05, 0.7, 1.0})
            for (disorder const how : {disorder::none, disorder::mixed})
                for (room const capacity : {room::exact, room::spare, room::short_by_some})
                    both_ways<TestType>({1 + static_cast<std::int32_t>(seed % 3),
                                         1 + static_cast<std::int32_t>(seed % 2),
                                         1 + static_cast<std::int32_t>(seed % 4)},
                                        key_blocks, density, seed++, how, capacity);
}

TEMPLATE_TEST_CASE("convert: small", "[gpu][small]", testing::stored_bsr, testing::stored_block_lists,
                   testing::stored_padded_lists, testing::stored_bits, testing::stored_flags,
                   testing::stored_selection) {
    for (room const capacity : {room::exact, room::short_by_some}) {
        both_ways<TestType>({2, 2, 3}, 45, 0.4, 3, disorder::mixed, capacity);
        both_ways<TestType>({1, 1, 1}, 1, 1.0, 4, disorder::mixed, capacity);
    }
}

TEMPLATE_TEST_CASE("convert: no lists, and no key blocks", "[gpu][small]", testing::stored_bsr,
                   testing::stored_block_lists, testing::stored_bits, testing::stored_flags) {
    both_ways<TestType>({0, 1, 3}, 10, 0.5, 3, disorder::none);
    both_ways<TestType>({2, 2, 0}, 10, 0.5, 3, disorder::none);
    both_ways<TestType>({2, 2, 2}, 0, 0.5, 3, disorder::none);
}

TEMPLATE_TEST_CASE("convert: contexts of several windows", "[gpu]", testing::stored_bsr, testing::stored_block_lists,
                   testing::stored_bits, testing::stored_flags) {
    // A window holds 65536 ids: a list that ends at, before and behind its end, and one of three windows.
    for (std::int32_t const key_blocks : {65535, 65536, 65537, 150001})
        both_ways<TestType>({1, 2, 3}, key_blocks, 0.01, 5, disorder::mixed);
}

TEST_CASE("convert: many lists of a BSR matrix", "[gpu]") {
    // 4096 rows are summed at a time.
    for (std::int32_t const query_blocks : {1023, 1024, 1025, 4095, 4096, 4097, 20000})
        both_ways<testing::stored_bsr>({1, 2, query_blocks}, 40, 0.2, 7, disorder::none,
                                       query_blocks == 4097 ? room::short_by_some : room::exact);
}

TEST_CASE("convert: fewer query blocks, more heads, slots, and columns of each request", "[gpu][small]") {
    list_axes const axes{3, 2, 4};
    block_sets const sets = random_sets(axes, 37, 0.3, 13);
    random_source random(13);
    arena memory;
    stored_selection const lists(memory, axes, 37, sets.longest()), back(memory, axes, 37, sets.longest());
    testing::stored_bsr matrix(memory, {3, 2, 3}, 37, sets.entries());
    testing::stored_flags const flags(memory, {5, 8, 3}, 37, 0);
    matrix.column_stride = 40;
    std::size_t const slots = memory.take<std::int32_t>(5), needed = memory.take<std::int64_t>(1);
    testing::poison(memory);
    lists.write(memory.base(), sets, disorder::none, random);
    std::int32_t const slot[5] = {2, -1, 0, 3, 1};
    std::copy(slot, slot + 5, memory.at<std::int32_t>(slots));
    auto const needed_at = [&](char* base) { return reinterpret_cast<std::int64_t*>(base + needed); };
    compare_with_host(memory, [&](char* base) {
        return convert_params<block_selection, bsr_buffer>{lists.view(base), matrix.view(base), 37, nullptr,
                                                           needed_at(base)};
    });
    compare_with_host(memory, [&](char* base) {
        return convert_params<bsr, block_selection_buffer>{matrix.view(base), back.view(base), 37, nullptr, nullptr};
    });
    compare_with_host(memory, [&](char* base) {
        auto from = lists.view(base);
        from.list_row = reinterpret_cast<std::int32_t const*>(base + slots);
        return convert_params<block_selection, block_flags_buffer>{from, flags.view(base), 37, nullptr, nullptr};
    });
    // Into slots: axis 0 of the lists has three, of which a batch of five uses what exists.
    testing::stored_block_lists const given(memory, {5, 1, 4}, 37, 37);
    block_sets const more = random_sets({5, 1, 4}, 37, 0.3, 14);
    given.write(memory.base(), more, disorder::none, random);
    compare_with_host(memory, [&](char* base) {
        auto to = back.view(base);
        to.list_row = reinterpret_cast<std::int32_t const*>(base + slots);
        return convert_params<block_lists, block_selection_buffer>{given.view(base), to, 37, nullptr, needed_at(base)};
    });
}

// --- Page tables ---

namespace {

// Lists, lengths, block table and packed tables of a decode batch in one arena.
struct page_case {
    std::int32_t batch, kv_heads, page_size, block_size, max_length, capacity;
    attention_window window;
    arena memory;
    stored_selection lists;
    std::size_t table, start, length, pages, lengths, needed;
    std::int32_t stride;

    page_case(std::int32_t b, std::int32_t h, std::int32_t page, std::int32_t block, std::int32_t most,
              attention_window w, double density, std::uint64_t seed, std::int32_t entries = -1)
        : batch(b), kv_heads(h), page_size(page), block_size(block), max_length(most), window(w),
          lists(memory, {b, seed % 2 ? h : 1, 2}, (most + block - 1) / block, (most + block - 1) / block * 2 + 10) {
        random_source random(seed);
        stride = (most + page - 1) / page + 2;
        std::int32_t const bound = packed_pages_bound(selection(memory.base()), w, page, most);
        capacity = entries < 0 ? bound : entries;
        auto const n = static_cast<std::size_t>(batch);
        table = memory.take<std::int32_t>(n * static_cast<std::size_t>(stride));
        start = memory.take<std::int32_t>(n + 1), length = memory.take<std::int32_t>(n);
        pages = memory.take<std::int32_t>(static_cast<std::size_t>(kv_heads * batch * (capacity + 1)));
        lengths = memory.take<std::int32_t>(static_cast<std::size_t>(kv_heads * batch));
        needed = memory.take<std::int64_t>(1);
        testing::poison(memory);
        for (std::int32_t i = 0; i < batch * stride; ++i) memory.at<std::int32_t>(table)[i] = random.below(1 << 20);
        for (std::int32_t i = 0; i <= batch; ++i) memory.at<std::int32_t>(start)[i] = i * stride;
        for (std::int32_t i = 0; i < batch; ++i)
            memory.at<std::int32_t>(length)[i] = i == 0 ? most : random.between(-1, most);
        block_sets const sets = random_sets(lists.axes, lists.key_blocks, density, seed);
        lists.write(memory.base(), sets, seed % 3 == 0 ? disorder::mixed : disorder::none, random);
    }
    block_selection selection(void* base) const {
        auto s = lists.view(base);
        s.block_size = block_size;
        return s;
    }
    pack_pages_params params(char* base, kv_layout layout) const {
        pack_pages_params p;
        p.selection = selection(base);
        p.window = window;
        p.kv.layout = layout;
        p.kv.length = reinterpret_cast<std::int32_t const*>(base + length);
        p.kv.pages = reinterpret_cast<std::int32_t const*>(base + table);
        if (layout == kv_layout::page_list) p.kv.start = reinterpret_cast<std::int32_t const*>(base + start);
        p.kv.table_stride = stride;
        p.kv.max_length = max_length;
        p.page_size = page_size;
        p.pages = packed_view(reinterpret_cast<std::int32_t*>(base + pages), {kv_heads, batch, capacity});
        p.lengths = packed_view(reinterpret_cast<std::int32_t*>(base + lengths), {kv_heads, batch});
        p.needed = reinterpret_cast<std::int64_t*>(base + needed);
        return p;
    }
};

void check_pages(page_case& c) {
    INFO("page " << c.page_size << ", block " << c.block_size << ", " << c.max_length << " keys, sinks "
                 << c.window.sinks << ", window " << c.window.recent << ", capacity " << c.capacity);
    for (kv_layout const layout : {kv_layout::block_table, kv_layout::page_list})
        compare_with_host(c.memory, [&](char* base) { return c.params(base, layout); });
}

}  // namespace

TEST_CASE("pack pages: the bytes of the host", "[gpu]") {
    std::uint64_t seed = 1;
    for (std::int32_t const page : {1, 8, 16, 48, 64, 128})
        for (std::int32_t const block : {8, 16, 64, 128})
            for (attention_window const window :
                 {attention_window{0, 0}, attention_window{4, 100}, attention_window{300, 1}, attention_window{}}) {
                if (page % block != 0 && block % page != 0) continue;
                for (std::int32_t const most : {1, 15, 16, 17, 3000}) {
                    page_case c(3, 2, page, block, most, window, 0.1, seed++);
                    check_pages(c);
                }
                page_case small(2, 1, page, block, 700, window, 0.3, seed++, 3);
                check_pages(small);
            }
}

TEST_CASE("pack pages: small", "[gpu][small]") {
    for (std::uint64_t const seed : {2, 3}) {
        page_case c(3, 2, 16, 32, 150, {8, 20}, 0.2, seed);
        check_pages(c);
    }
}

TEST_CASE("pack pages: more pages than a window holds", "[gpu]") {
    page_case sparse(2, 2, 1, 8, 200000, {64, 1000}, 0.05, 5);
    check_pages(sparse);
    page_case dense(1, 1, 1, 8, 140000, {}, 0.0, 6);
    check_pages(dense);
}

// --- Graphs ---

TEST_CASE("convert: captured once, replayed with other lists", "[gpu]") {
    list_axes const axes{2, 3, 5};
    random_source random(1);
    arena memory;
    stored_selection const lists(memory, axes, 200, 260), back(memory, axes, 200, 200);
    testing::stored_bsr const matrix(memory, axes, 200, 3000);
    page_case pages(2, 2, 16, 32, 900, {16, 100}, 0.2, 9);
    std::size_t const needed = memory.take<std::int64_t>(1);
    testing::poison(memory);
    device_memory device(memory.size()), page_device(pages.memory.size());
    auto const compress = [&](char* base) {
        return convert_params<block_selection, bsr_buffer>{lists.view(base), matrix.view(base), 200, nullptr,
                                                           reinterpret_cast<std::int64_t*>(base + needed)};
    };
    auto const expand = [&](char* base) {
        return convert_params<bsr, block_selection_buffer>{matrix.view(base), back.view(base), 200, nullptr, nullptr};
    };
    auto const pack = [&](char* base) { return pages.params(base, kv_layout::block_table); };
    auto const enqueue = [&](auto const& p, cudaStream_t stream) {
        auto const made = plan(p, testing::current_device());
        REQUIRE(made.why.ok());
        REQUIRE(testing::gpu_launch(p, made, {}, stream).ok());
    };
    // The poisoned bytes are no lists; kernels are loaded before the capture, as in any engine.
    lists.write(memory.base(), random_sets(axes, 200, 0.3, 100), disorder::none, random);
    device.upload(memory.base(), memory.size());
    page_device.upload(pages.memory.base(), pages.memory.size());
    auto const all = [&](cudaStream_t stream) {
        enqueue(compress(device.data()), stream);
        enqueue(expand(device.data()), stream);
        enqueue(pack(page_device.data()), stream);
    };
    all(nullptr);
    testing::captured_graph const graph(all);
    CHECK(graph.kernels_and_others() == std::pair<int, int>{5, 0});
    for (std::uint64_t const seed : {1, 2, 3}) {
        testing::poison(memory);
        lists.write(memory.base(), random_sets(axes, 200, 0.3 * static_cast<double>(seed), seed), disorder::mixed,
                    random);
        device.upload(memory.base(), memory.size());
        for (std::int32_t b = 0; b < 2; ++b) pages.memory.at<std::int32_t>(pages.length)[b] = random.between(0, 900);
        page_device.upload(pages.memory.base(), pages.memory.size());
        graph.replay();
        (void)reference::convert(compress(memory.base()));  // whether 3000 entries are enough is what `needed` says
        CHECK(reference::convert(expand(memory.base())).ok());
        CHECK(reference::pack_pages(pack(pages.memory.base())).ok());
        CHECK(first_difference(memory, device) == -1);
        CHECK(first_difference(pages.memory, page_device) == -1);
    }
}

TEST_CASE("convert: a failed launch writes nothing", "[gpu][small]") {
    page_case c(1, 1, 16, 32, 90, {16, 16}, 0.2, 9);
    device_memory device(c.memory.size());
    device.upload(c.memory.base(), c.memory.size());
    auto p = c.params(device.data(), kv_layout::block_table);
    auto const good = plan(p, testing::current_device());
    p.page_size = 24;
    CHECK_FALSE(testing::gpu_launch(p, good, {}, nullptr).ok());
    CHECK_FALSE(testing::gpu_launch(p, plan(p, testing::current_device()), {}, nullptr).ok());
    testing::require_cuda(cudaDeviceSynchronize());
    CHECK(first_difference(c.memory, device) == -1);
}
