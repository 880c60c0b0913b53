// Attention on the device against the oracle: one run compared, and random samples of everything a call can ask for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

#include "support/gpu_device.hpp"
#include "support/tolerance.hpp"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/rounded.hpp"

namespace winnow::testing {

/// What a launch left behind.
struct attend_outcome {
    attend_plan plan;
    std::vector<char> bytes;  ///< the whole memory
    std::vector<double> output, lse;
};

/// Launches what `set` makes of the input's params, and checks that only output and lse were written.
template <class T, class Set>
attend_outcome run_attend(attend_input<T>& in, Set const& set, device_info const& device = current_device()) {
    device_copy<T> memory(in);
    auto p = memory.params();
    set(p);
    attend_outcome r;
    r.plan = run_on_device(p, device);
    r.bytes = memory.download();
    CHECK(memory.stray_write(r.bytes, !p.lse.empty()) == -1);
    r.output = in.output(r.bytes.data());
    r.lse = in.lse(r.bytes.data());
    return r;
}

/// True if two results agree bit for bit, NaN included.
inline bool same_bits(std::vector<double> const& a, std::vector<double> const& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

/// Oracle and rounded twin of the same call, on the host.
struct attend_expectation {
    reference::attend_result exact, rounded;
};

template <class T, class Set>
attend_expectation expect_attend(attend_input<T>& in, Set const& set) {
    auto p = in.params();
    set(p);
    attend_expectation e;
    REQUIRE(reference::attend(p, &e.exact, all_threads()).ok());
    REQUIRE(reference::attend_rounded(p, e.rounded, all_threads()).ok());
    return e;
}

template <class T>
void check_close(std::vector<double> const& output, std::vector<double> const& lse, attend_expectation const& e) {
    auto const outputs = compare<T>(output, e.exact.output, e.rounded.output);
    auto const lses = compare_lse(lse, e.exact.lse, e.rounded.lse);
    INFO("output: " << outputs.message << "\n" << lses.message);
    CHECK(outputs.ok);
    CHECK(lses.ok);
}

template <class T, class Set>
attend_plan check_attend(attend_input<T>& in, Set const& set) {
    auto const expected = expect_attend(in, set);
    auto const found = run_attend(in, set);
    check_close<T>(found.output, found.lse, expected);
    if (found.plan.schedule.path != attend_path::sm80 && runs_tiles_in_turn()) {
        auto const one_by_one = run_attend(in, set, single_block_device());
        INFO("one tile after the other");
        CHECK(same_bits(one_by_one.output, found.output));
        CHECK(same_bits(one_by_one.lse, found.lse));
    }
    if (found.plan.schedule.path != attend_path::sm80) {  // the portable path serves other devices
        auto const portable = run_attend(in, set, portable_device());
        INFO("portable path");
        check_close<T>(portable.output, portable.lse, expected);
    }
    return found.plan;
}

/// The call for request `b` alone: the same memory, maxima and therefore plan geometry, without its neighbours.
template <class T>
attend_params<T> only_request(attend_params<T> p, std::int32_t b) {
    auto const narrow = [b](auto& view) {
        view.data += b * view.stride[0];
        view.extent[0] = 1;
    };
    if (p.rows.start != nullptr) {
        p.rows.start += b, p.rows.batch = 1;
    } else {
        narrow(p.queries), narrow(p.output);
        if (!p.lse.empty()) narrow(p.lse.values);
    }
    if (p.kv.layout == kv_layout::contiguous) narrow(p.keys), narrow(p.values);
    if (p.kv.layout == kv_layout::block_table) p.kv.pages += b * p.kv.table_stride;
    if (p.kv.start != nullptr) p.kv.start += b;
    if (p.kv.length != nullptr) p.kv.length += b;
    if (p.kv.last_page_length != nullptr) p.kv.last_page_length += b;
    if (!p.selection.empty()) narrow(p.selection.blocks), narrow(p.selection.counts);
    return p;
}

/// One combination of what attention supports.
struct attend_sample {
    input_shape shape;
    attention_mask mask = causal{};
    attention_window window = {};
    bool listed = false;
    std::int32_t block_size = 16, query_block = 1, capacity = 1;
    winnow::sharing sharing = winnow::sharing::per_batch;
    double density = 0;
    float scale_factor = 1, soft_cap = 0;
    lse_base base = lse_base::natural;
    row_range range = row_range::all;
    std::int32_t tail = 0;

    template <class T>
    attend_input<T> input() const {
        attend_input<T> in(shape);
        if (listed) in.add_selection(block_size, query_block, sharing, capacity, density);
        return in;
    }
    template <class T>
    void set(attend_params<T>& p) const {
        p.mask = mask, p.window = window, p.scale *= scale_factor, p.soft_cap = soft_cap;
        p.lse.base = base, p.range = range, p.tail = tail;
    }
};

inline std::string describe(attend_sample const& s) {
    std::ostringstream out;
    auto const list = [&](std::vector<std::int32_t> const& values) {
        for (auto const v : values) out << v << " ";
    };
    out << "seed " << s.shape.seed << ": head_dim " << s.shape.head_dim << ", heads " << s.shape.heads << "/"
        << s.shape.kv_heads << ", queries ";
    list(s.shape.queries);
    out << (s.shape.ragged_queries ? "(ragged), keys " : ", keys ");
    list(s.shape.keys);
    out << ", layout " << static_cast<int>(s.shape.layout) << " page " << s.shape.page_size
        << (s.shape.head_major ? " HND" : " NHD") << (s.shape.lengths ? "" : " without lengths") << ", spare "
        << s.shape.spare_keys << ", mask " << static_cast<int>(s.mask.kind) << " at " << s.mask.offset << ", sinks "
        << s.window.sinks << ", recent " << s.window.recent;
    if (s.listed)
        out << ", blocks of " << s.block_size << " for " << s.query_block << " rows, sharing "
            << static_cast<int>(s.sharing) << ", capacity " << s.capacity << ", density " << s.density;
    out << ", scale x" << s.scale_factor << ", cap " << s.soft_cap << ", base " << static_cast<int>(s.base)
        << ", range " << static_cast<int>(s.range) << " tail " << s.tail << ", sink logits " << s.shape.sink_logits;
    return out.str();
}

/// Draws sample `index`. Layout and row class go round; everything else is random. Numbers of rows and keys are limited
/// so that the oracle takes well under a second; `small` ones suit a sanitizer.
inline attend_sample draw_sample(std::int32_t head_dim, std::uint64_t seed, std::int32_t index, bool small = false) {
    std::uint64_t const own_seed =
        (seed * 1000 + static_cast<std::uint64_t>(head_dim)) * 1000 + static_cast<std::uint64_t>(index);
    random_source r(own_seed);
    auto const pick = [&](std::initializer_list<double> values) {
        return values.begin()[r.below(static_cast<std::int32_t>(values.size()))];
    };
    auto const number = [&](std::initializer_list<std::int32_t> values) {
        return values.begin()[r.below(static_cast<std::int32_t>(values.size()))];
    };
    auto const chance = [&](double p) { return r.uniform() < p; };
    attend_sample s;
    input_shape& shape = s.shape;
    shape.seed = own_seed;
    shape.head_dim = head_dim;
    shape.layout = static_cast<kv_layout>((index + index / 4) % 4);
    shape.kv_heads = number({1, 1, 2, 3});
    shape.heads = shape.kv_heads * number({1, 3, 4, 7, 8});
    shape.page_size = number({1, 3, 16, 64});
    shape.head_major = chance(0.4);
    shape.ragged_queries = chance(0.4);
    shape.lengths = chance(0.6);
    shape.spare_keys = chance(0.5) ? r.below(7) : 0;

    // Rows: one token, a few, a chunk, several tiles; keys: down to none, around pages and tiles, thousands.
    std::int32_t const page = shape.page_size;
    std::int32_t const row_class = index % 4, requests = r.between(1, 3);
    auto const draw_rows = [&]() -> std::int32_t {
        switch (row_class) {
        case 0:
            return 1;
        case 1:
            return r.between(2, 8);
        case 2:
            return r.between(9, small ? 33 : 80);
        default:
            return small ? r.between(110, 130) : number({128, 129, 150, 191, 257, 300});
        }
    };
    auto const draw_keys = [&]() -> std::int32_t {
        if (small) return number({0, 1, 5, page - 1, 63, 65, 97, 130});
        if (row_class >= 2) return number({0, 1, 7, 64, 127, 257, 4 * page - 1, 509, 700, 1021});
        return number({0, 1, 7, page - 1, 64, 127, 257, 509, 1021, 1024, 2053, 3001});
    };
    shape.queries.clear(), shape.keys.clear();
    std::int32_t const equal = draw_rows();
    for (std::int32_t b = 0; b < requests; ++b) {
        shape.queries.push_back(!shape.ragged_queries ? equal : chance(0.15) ? 0 : draw_rows());
        shape.keys.push_back(draw_keys());
    }
    // A ragged batch without any row has no tensor to check.
    if (shape.ragged_queries) shape.queries.back() = larger(shape.queries.back(), 1);
    std::int32_t const rows = *std::max_element(shape.queries.begin(), shape.queries.end());
    std::int32_t const keys = *std::max_element(shape.keys.begin(), shape.keys.end());

    switch (r.below(6)) {
    case 0:
        s.mask = causal{r.below(keys + 1)};
        break;
    case 1:
        s.mask = full{chance(0.5) ? end_aligned : r.below(keys + 1)};
        break;
    default:
        s.mask = causal{};
    }
    // Dense, nothing, or any of sinks, window and list.
    std::int32_t const parts = r.below(10);
    if (parts >= 2) {
        bool const all = parts >= 7;
        s.window.sinks = all || chance(0.5) ? number({1, 4, 13, 16, 64, 128}) : 0;
        s.window.recent = all || chance(0.5) ? number({1, 5, 32, 64, 100, 333}) : 0;
        s.listed = all || chance(0.6);
    } else if (parts == 1) {
        s.window = {0, 0};
        s.listed = chance(0.7);
    }
    s.block_size = number({8, 16, 32, 64, 128});
    s.query_block = number({1, 16, 32, 48, 64, 128});
    s.sharing = static_cast<winnow::sharing>(r.below(3));
    s.capacity = chance(0.3) ? r.between(1, 4) : ceil_div(larger(keys, 1), s.block_size);
    s.density = pick({0.1, 0.4, 0.8, 1.0});

    s.scale_factor = static_cast<float>(pick({1, 1, 4}));
    s.soft_cap = chance(0.25) ? static_cast<float>(pick({1, 5, 30})) : 0;
    s.base = chance(0.3) ? lse_base::two : lse_base::natural;
    if (chance(0.3)) {
        s.range = chance(0.5) ? row_range::without_tail : row_range::tail_only;
        s.tail = number({0, 1, 5, 64, rows});
    }
    shape.sink_logits = chance(0.3);
    return s;
}

/// Samples [first, first + count) of a head_dim, each against the oracle; every row class of the kernels must occur, and on
/// Hopper every loader.
template <class T>
void check_samples(std::int32_t head_dim, std::int32_t count, bool small = false) {
    std::vector<int> met(4, 0), loaders(3, 0);
    for (std::int32_t i = 0; i < count; ++i) {
        attend_sample const s = draw_sample(head_dim, small ? 7 : 1, i, small);
        INFO("sample " << i << ", " << describe(s));
        auto in = s.input<T>();
        auto const plan = check_attend(in, [&](attend_params<T>& p) { s.set(p); });
        ++met[static_cast<std::size_t>(plan.schedule.rows)];
        if (plan.schedule.path == attend_path::sm90) ++loaders[static_cast<std::size_t>(plan.schedule.loader)];
    }
    INFO("decode " << met[0] << ", medium " << met[1] << ", large " << met[2]);
    CHECK(met[0] > 0);
    CHECK(met[1] > 0);
    bool const hopper = current_device().compute_capability == 90 && current_device().instructions == 90;
    CHECK((met[2] > 0 || (head_dim == 256 && (small || !hopper))));
    INFO("atoms " << loaders[0] << ", boxes " << loaders[1] << ", rows " << loaders[2]);
    CHECK((!hopper || head_dim == 64 || small || loaders[0] > 0));
    CHECK((!hopper || small || (loaders[1] > 0 && loaders[2] > 0)));
}

}  // namespace winnow::testing
