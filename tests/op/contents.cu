// The debug check of device-side contents: each rule is found, with its place and value, and the first one is reported.
#include <cstdint>
#include <functional>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"

using namespace winnow;
using testing::attend_input;
using testing::device_copy;

namespace {

attend_input<bf16> paged_input() {
    attend_input<bf16> in({.queries = {40, 40},
                           .keys = {400, 390},
                           .heads = 4,
                           .kv_heads = 2,
                           .layout = kv_layout::block_table,
                           .page_size = 16,
                           .seed = 7});
    in.add_selection(16, 32, sharing::per_kv_group, 12, 0.4);
    return in;
}

contents_fault fault_of(attend_input<bf16>& in) {
    device_copy<bf16> memory(in);
    testing::device_memory fault(sizeof(contents_fault));
    status const s = testing::gpu_contents_check(memory.params(), fault.as<contents_fault>(), nullptr);
    INFO(s.field << " " << s.rule << " " << s.value);
    REQUIRE(s.ok());
    testing::require_cuda(cudaDeviceSynchronize());
    return fault.download<contents_fault>().front();
}

}  // namespace

TEST_CASE("contents: nothing wrong", "[gpu][small]") {
    attend_input<bf16> in = paged_input();
    CHECK(fault_of(in).rule == contents_rule::none);
    CHECK(status_of(fault_of(in)).ok());
    attend_input<bf16> dense({.queries = {3}, .keys = {20}, .heads = 2, .kv_heads = 1});
    CHECK(fault_of(dense).rule == contents_rule::none);
}

TEST_CASE("contents: every rule, with place and value", "[gpu][small]") {
    struct bad_case {
        char const* name;
        std::function<void(attend_input<bf16>&)> spoil;
        contents_fault expected;
    };
    auto const list = [](attend_input<bf16>& in, int request, int head, int block) {
        auto const s = in.selection_buffer();
        return s.blocks.data + s.blocks.offset(request, head, block);
    };
    bad_case const cases[] = {
        {"a negative length",
         [](auto& in) { in.key_lengths()[1] = -1; },
         {0, contents_rule::key_length, 1, 0, 0, 0, -1}},
        {"a length beyond the bound",
         [](auto& in) { in.key_lengths()[0] = 401; },
         {0, contents_rule::key_length, 0, 0, 0, 0, 401}},
        {"a negative page", [](auto& in) { in.pages()[2] = -7; }, {0, contents_rule::page_id, 0, 0, 0, 2, -7}},
        {"a page beyond the pool",
         [](auto& in) { in.pages()[1] = 1 << 20; },
         {0, contents_rule::page_id, 0, 0, 0, 1, 1 << 20}},
        {"a count beyond the capacity",
         [](auto& in) { in.selection_buffer().counts.data[in.selection_buffer().counts.offset(1, 1, 0)] = 13; },
         {0, contents_rule::list_count, 1, 1, 0, 0, 13}},
        {"a block beyond the keys",
         [&](auto& in) { list(in, 0, 1, 1)[0] = 25; },
         {0, contents_rule::block_id, 0, 1, 1, 0, 25}},
        {"a negative block",
         [&](auto& in) { list(in, 1, 0, 0)[1] = -3; },
         {0, contents_rule::block_id, 1, 0, 0, 1, -3}},
        {"a repeated block",
         [&](auto& in) { list(in, 1, 0, 1)[2] = list(in, 1, 0, 1)[1]; },
         {0, contents_rule::ascending, 1, 0, 1, 2, 0}},
    };
    for (auto const& c : cases) {
        INFO(c.name);
        attend_input<bf16> in = paged_input();
        c.spoil(in);
        contents_fault const fault = fault_of(in);
        CHECK(fault.rule == c.expected.rule);
        CHECK(fault.request == c.expected.request);
        CHECK(fault.list_head == c.expected.list_head);
        CHECK(fault.query_block == c.expected.query_block);
        CHECK(fault.entry == c.expected.entry);
        if (fault.rule != contents_rule::ascending) CHECK(fault.value == c.expected.value);
        CHECK_FALSE(status_of(fault).ok());
    }
}

TEST_CASE("contents: offsets and lengths of ragged rows, ragged keys and page lists", "[gpu][small]") {
    auto const input_of = [](kv_layout layout, bool lengths) {
        return attend_input<bf16>({.queries = {9, 0, 12},
                                   .keys = {70, 33, 48},
                                   .layout = layout,
                                   .page_size = 16,
                                   .ragged_queries = true,
                                   .lengths = lengths});
    };
    using params = attend_params<bf16>;
    auto const writable = [](std::int32_t const* p) { return const_cast<std::int32_t*>(p); };
    struct bad_case {
        char const* name;
        kv_layout layout;
        bool lengths;
        std::function<void(params const&)> spoil;
        contents_fault expected;
    };
    bad_case const cases[] = {
        {"rows that go back",
         kv_layout::ragged,
         true,
         [&](params const& p) { writable(p.rows.start)[2] = 8; },
         {0, contents_rule::row_start, 1, 0, 0, 1, 8}},
        {"rows beyond the tensor",
         kv_layout::ragged,
         true,
         [&](params const& p) { writable(p.rows.start)[3] = 27; },
         {0, contents_rule::row_start, 2, 0, 0, 1, 27}},
        {"more rows than rows.max_length",
         kv_layout::ragged,
         true,
         [&](params const& p) { writable(p.rows.start)[1] = writable(p.rows.start)[2] = 15; },
         {0, contents_rule::row_start, 0, 0, 0, 1, 15}},
        {"a negative first row",
         kv_layout::ragged,
         true,
         [&](params const& p) { writable(p.rows.start)[0] = -1; },
         {0, contents_rule::row_start, 0, 0, 0, 0, -1}},
        {"keys beyond the tensor",
         kv_layout::ragged,
         true,
         [&](params const& p) { writable(p.kv.start)[3] = 1 << 20; },
         {0, contents_rule::key_start, 2, 0, 0, 1, 1 << 20}},
        {"pages that go back",
         kv_layout::page_list,
         true,
         [&](params const& p) { writable(p.kv.start)[2] = -5; },
         {0, contents_rule::key_start, 1, 0, 0, 1, -5}},
        {"a length beyond its ragged keys",
         kv_layout::ragged,
         true,
         [&](params const& p) { writable(p.kv.length)[1] = 34; },
         {0, contents_rule::key_length, 1, 0, 0, 0, 34}},
        {"a length beyond its pages",
         kv_layout::page_list,
         true,
         [&](params const& p) { writable(p.kv.length)[2] = 49; },
         {0, contents_rule::key_length, 2, 0, 0, 0, 49}},
        {"more tokens than a page holds",
         kv_layout::page_list,
         false,
         [&](params const& p) { writable(p.kv.last_page_length)[1] = 17; },
         {0, contents_rule::last_page_length, 1, 0, 0, 0, 17}},
        {"an empty last page",
         kv_layout::page_list,
         false,
         [&](params const& p) { writable(p.kv.last_page_length)[0] = 0; },
         {0, contents_rule::last_page_length, 0, 0, 0, 0, 0}},
    };
    for (auto const layout : {kv_layout::ragged, kv_layout::page_list})
        for (bool const lengths : {false, true}) {
            auto in = input_of(layout, lengths);
            INFO("layout " << static_cast<int>(layout) << ", lengths " << lengths);
            CHECK(fault_of(in).rule == contents_rule::none);
        }
    for (auto const& c : cases) {
        INFO(c.name);
        auto in = input_of(c.layout, c.lengths);
        c.spoil(in.params());
        contents_fault const fault = fault_of(in);
        CHECK(fault.rule == c.expected.rule);
        CHECK(fault.request == c.expected.request);
        CHECK(fault.entry == c.expected.entry);
        CHECK(fault.value == c.expected.value);
        CHECK_FALSE(status_of(fault).ok());
    }
}

TEST_CASE("contents: the first fault is reported", "[gpu][small]") {
    attend_input<bf16> in = paged_input();
    in.selection_buffer().counts.data[in.selection_buffer().counts.offset(0, 0, 0)] = -1;
    in.pages()[4] = -2;
    in.pages()[3] = -1;
    contents_fault const fault = fault_of(in);
    CHECK(fault.rule == contents_rule::page_id);
    CHECK(fault.entry == 3);
    CHECK(fault.value == -1);
}
