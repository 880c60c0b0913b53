// Benchmarks of merge: partial results of split keys, bound by memory.
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../tests/support/tolerance.hpp"
#include "support/fill.cuh"
#include "support/harness.cuh"
#include "support/sample.hpp"
#include "winnow/op/merge.cuh"
#include "winnow/reference/merge.hpp"

using namespace winnow;
using namespace winnow::bench;

namespace {

struct merge_shape {
    std::int32_t parts, rows, heads = 32, channels = 128;
};

// T is the type of parts and result.
template <class T>
struct merge_case {
    explicit merge_case(merge_shape const& s)
        : shape(s), outputs(elements(s.parts)), output(elements(1)), lses(lists(s.parts)), lse(lists(1)) {
        fill(outputs, draw::normal, 1), fill(lses, draw::normal, 2);
    }
    std::size_t lists(std::int32_t parts) const {
        return static_cast<std::size_t>(parts) * static_cast<std::size_t>(shape.rows) *
               static_cast<std::size_t>(shape.heads);
    }
    std::size_t elements(std::int32_t parts) const { return lists(parts) * static_cast<std::size_t>(shape.channels); }

    merge_params<T> params() const {
        merge_params<T> p;
        p.outputs = packed_view<T const>(outputs.data(), {shape.parts, shape.rows, shape.heads, shape.channels});
        p.lses = packed_view<float const>(lses.data(), {shape.parts, shape.rows, shape.heads});
        p.output = packed_view(output.data(), {shape.rows, shape.heads, shape.channels});
        p.lse = packed_view(lse.data(), {shape.rows, shape.heads});
        return p;
    }
    status launch(cudaStream_t stream) const {
        auto const p = params();
        return winnow::launch(p, plan(p, this_machine().info), {}, stream);
    }

    merge_shape const shape;
    device_array<T> outputs, output;
    device_array<float> lses, lse;
};

// The first and the last row against the reference. Weights are fp32 here and there, so the rounded twin is the
// reference's result rounded to T.
template <class T>
void check_merge(merge_case<T> const& c) {
    merge_shape const& s = c.shape;
    std::size_t const row_lists = static_cast<std::size_t>(s.heads),
                      row = row_lists * static_cast<std::size_t>(s.channels);
    for (std::int32_t const at : {0, s.rows - 1}) {
        auto const index = static_cast<std::size_t>(at);
        std::vector<T> outputs, output(row);
        std::vector<float> lses, lse(row_lists);
        for (std::int32_t part = 0; part < s.parts; ++part) {
            std::size_t const first = static_cast<std::size_t>(part) * static_cast<std::size_t>(s.rows) + index;
            auto const values = c.outputs.download(first * row, row);
            auto const weights = c.lses.download(first * row_lists, row_lists);
            outputs.insert(outputs.end(), values.begin(), values.end());
            lses.insert(lses.end(), weights.begin(), weights.end());
        }
        merge_params<T> host;
        host.outputs = packed_view<T const>(outputs.data(), {s.parts, 1, s.heads, s.channels});
        host.lses = packed_view<float const>(lses.data(), {s.parts, 1, s.heads});
        host.output = packed_view(output.data(), {1, s.heads, s.channels});
        host.lse = packed_view(lse.data(), {1, s.heads});
        reference::merge_result exact;
        require(reference::merge(host, &exact));
        std::vector<double> found, rounded;
        for (T const x : c.output.download(index * row, row)) found.push_back(to_float(x));
        for (T const x : output) rounded.push_back(to_float(x));
        // Up to 64 products summed in fp32: some tens of ulps, the floor of a narrower type.
        auto const verdict = testing::compare<bf16>(found, exact.output, rounded);
        if (!verdict) throw std::runtime_error("wrong output, row " + std::to_string(at) + ": " + verdict.message);
    }
}

template <class T>
prepared merging(merge_shape const& s) {
    auto const c = std::make_shared<merge_case<T>>(s);
    require(c->launch(this_machine().stream));
    require(cudaStreamSynchronize(this_machine().stream), "merge");
    check_merge(*c);
    double const bytes = static_cast<double>(c->outputs.bytes()) + static_cast<double>(c->output.bytes()) +
                         static_cast<double>(c->lses.bytes()) + static_cast<double>(c->lse.bytes());
    return {[c](cudaStream_t stream) { return c->launch(stream); }, {.bytes = bytes}};
}

void add_all() {
    for (std::int32_t const parts : {2, 8, 64})
        for (std::int32_t const rows : {1, 8, 8 << 10}) {
            if (static_cast<std::int64_t>(parts) * rows > (64 << 10)) continue;  // 2 GB of fp32 parts are enough
            std::string const shape = std::to_string(parts) + "_parts/" + size_name(rows) + "_rows";
            bool const quick = parts == 8 || rows == 1;
            std::string const set = quick ? "quick/merge/" : "full/merge/";
            add(set + "bf16/" + shape, benchmark::kMicrosecond, [=] { return merging<bf16>({parts, rows}); });
            add(set + "fp32/" + shape, benchmark::kMicrosecond, [=] { return merging<float>({parts, rows}); });
        }
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, add_all); }
