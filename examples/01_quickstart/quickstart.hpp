// The quickstart without the device: options, methods, measures, table and picture. quickstart_host.cpp and
// quickstart_gpu.cu supply the two calls that compute.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <winnow/reference/quality.hpp>
#include <winnow/reference/sparse.hpp>
#include <winnow/winnow.hpp>

#include "picture.hpp"
#include "progress.hpp"
#include "recording.hpp"

namespace quickstart {

using element = winnow::bf16;

/// What computes. Both calls take host pointers, write `output`, and give the seconds that the computation took; a slow
/// one reports to `stage`.
struct backend {
    virtual ~backend() = default;
    [[nodiscard]] virtual std::string device() const = 0;
    virtual winnow::status attend(winnow::attend_params<element> const& p, progress& stage, double& time) = 0;
    /// Also writes the lists that pruning found to `chosen`.
    virtual winnow::status sparse_prefill(winnow::sparse_prefill_params<element> const& p,
                                          winnow::block_selection_buffer const& chosen, progress& stage,
                                          double& time) = 0;
};

struct options {
    std::string data, output = "quickstart.svg";
    int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    int kv_head = 1;
};

/// The part that never moves: 32 sinks and the last 128 keys.
inline constexpr winnow::attention_window window{.sinks = 32, .recent = 128};

/// Pruning to `selected` keys: chunks of 64 keys, then 32, then blocks of 8; each stage keeps half of the keys of the
/// one before. Short blocks of 32 queries suit a short context. Heads with lists of their own search by themselves:
/// together they would find equal lists.
constexpr winnow::prune_method pruning(std::int32_t selected, winnow::sharing sharing) {
    return {.stages = {{32, 1, 64, selected * 4 / 64}, {32, 1, 32, selected * 2 / 32}, {32, 1, 8, selected / 8}},
            .stage_count = 3,
            .window = window,
            .path =
                sharing == winnow::sharing::per_head ? winnow::probe_path::per_head : winnow::probe_path::per_kv_group,
            .sharing = sharing};
}

/// One line of the table.
struct method {
    std::string name;
    winnow::attention_window window;
    std::int32_t selected = 0;  ///< keys that pruning selects; 0: no pruning
    winnow::sharing sharing = winnow::sharing::per_kv_group;
};

struct measured {
    winnow::reference::attention_quality quality;
    double error = 0, time = 0;
    winnow::reference::selection_storage chosen;
};

/// Prints what went wrong; returns main's result.
inline int failed(std::string const& what) {
    std::fprintf(stderr, "quickstart: %s\n", what.c_str());
    return 1;
}

inline int failed(char const* call, winnow::status const& s) {
    return failed(std::string(call) + ": " + s.field + " " + s.rule + ", found " + std::to_string(s.value) + " (" +
                  winnow::name(s.code) + ")");
}

/// False: the program ends with `code`.
inline bool parse(int count, char** words, options& o, int& code) {
#ifdef WINNOW_EXAMPLES_DATA
    o.data = WINNOW_EXAMPLES_DATA;
#endif
    auto const usage = [&](std::FILE* to) {
        std::fprintf(to,
                     "usage: %s [--data DIR] [--output FILE.svg] [--threads N] [--kv-head N] [--help]\n"
                     "Runs sparse attention next to dense attention on recorded queries, keys and values.\n"
                     "  --data DIR         directory of recording.txt and its .bf16 files\n"
                     "                     (%s)\n"
                     "  --output FILE.svg  picture to write (%s)\n"
                     "  --threads N        threads of the reference computation (%d)\n"
                     "  --kv-head N        key/value head to draw (%d)\n",
                     words[0], o.data.c_str(), o.output.c_str(), o.threads, o.kv_head);
    };
    auto const bad = [&](std::string const& what) {
        code = failed(what);
        usage(stderr);
        return false;
    };
    for (int i = 1; i < count; ++i) {
        std::string const word = words[i];
        if (word == "--help" || word == "-h") return usage(stdout), code = 0, false;
        bool const text = word == "--data" || word == "--output", number = word == "--threads" || word == "--kv-head";
        if (!text && !number) return bad("unknown option " + word);
        if (++i == count) return bad(word + " needs a value");
        if (text) {
            (word == "--data" ? o.data : o.output) = words[i];
            continue;
        }
        char* end = nullptr;
        long const value = std::strtol(words[i], &end, 10);
        int const least = word == "--threads" ? 1 : 0;
        if (*end != 0 || end == words[i] || value < least || value > 4096)
            return bad(word + " must be a number from " + std::to_string(least) + " to 4096, not " + words[i]);
        (word == "--threads" ? o.threads : o.kv_head) = static_cast<int>(value);
    }
    return true;
}

inline std::string percent(double part, int digits = 1) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*f %%", digits, 100 * part);
    return text;
}

inline std::string duration(double time) {
    char text[32];
    if (time >= 1)
        std::snprintf(text, sizeof text, "%.2f s", time);
    else
        std::snprintf(text, sizeof text, time < 0.01 ? "%.3f ms" : "%.0f ms", 1000 * time);
    return text;
}

/// Length as a terminal shows it: bytes that start a UTF-8 character.
inline std::size_t columns(std::string const& text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

/// Aligned columns: text to the left, numbers (all but the first and last column) to the right.
inline void print_table(std::vector<std::vector<std::string>> const& rows) {
    std::vector<std::size_t> width(rows[0].size(), 0);
    for (auto const& row : rows)
        for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], columns(row[c]));
    for (std::size_t r = 0; r < rows.size(); ++r) {
        std::string line;
        for (std::size_t c = 0; c < width.size(); ++c) {
            std::string const space(width[c] - columns(rows[r][c]), ' ');
            bool const leading = c == 0 || c + 1 == width.size();
            line += (c ? "  " : "") + (leading ? rows[r][c] + space : space + rows[r][c]);
        }
        std::printf("%s\n", line.substr(0, line.find_last_not_of(' ') + 1).c_str());
        if (r == 0) std::printf("%s\n", std::string(columns(line), '-').c_str());
    }
}

/// Everything between the recording and the results.
class comparison {
public:
    comparison(options const& o, recording const& r, backend& b)
        : options_(o), recording_(r), backend_(b), output_(r.queries.data.size()) {}

    /// main's result.
    int run() {
        dense_ = {.queries = recording_.queries.view(),
                  .keys = recording_.keys.view(),
                  .values = recording_.values.view(),
                  .output = winnow::packed_view(output_.data(), {1, recording_.queries.tokens, recording_.queries.heads,
                                                                 recording_.queries.head_dim}),
                  .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(recording_.queries.head_dim)))};
        {
            progress stage("dense attention in double precision");
            if (auto s = winnow::reference::attend(dense_, &exact_, stage.options(options_.threads)); !s)
                return failed("reference::attend", s);
        }
        std::vector<method> const methods{
            {"dense", {}},
            {"sinks 32 + window 128", window},
            {"  + 128 selected", window, 128},
            {"  + 256 selected", window, 256},
            {"  + 512 selected", window, 512},
            {"  + 1024 selected", window, 1024},
            {"  + 512, one list for all heads", window, 512, winnow::sharing::per_batch},
            {"  + 512, one list per query head", window, 512, winnow::sharing::per_head},
            {"sinks 32 + window 640", {.sinks = 32, .recent = 640}},
        };
        std::vector<std::vector<std::string>> rows{
            {"method", "keys per query", "mass kept", "output error", "time", "device"}};
        std::vector<measured> results;
        for (auto const& m : methods) {
            measured result;
            if (int const code = measure(m, result); code != 0) return code;
            char keys[64];
            std::snprintf(keys, sizeof keys, "%.0f (%.0f %%)", result.quality.keys_per_query,
                          100 * result.quality.keys_per_query / result.quality.keys_allowed);
            rows.push_back({m.name, keys, percent(result.quality.mass_kept), percent(result.error, 2),
                            duration(result.time), backend_.device()});
            results.push_back(std::move(result));
        }
        print_table(rows);
        std::printf(
            "\nkeys per query: mean number of keys that a query reads, and its part of what the causal mask allows."
            "\nmass kept: part of dense attention's softmax weights that falls on those keys, mean over queries and"
            "\n  heads. output error: ||output - dense|| / ||dense||, dense in double precision."
            "\nselected: one list per key/value head and block of 32 queries, in blocks of 8 keys, unless the line"
            "\n  says otherwise. sinks: the first keys; window: the query's own position and those just before."
            "\nA context of %lld tokens is short: times say little here about long ones.\n",
            static_cast<long long>(recording_.keys.tokens));
        return write_picture(methods[3], results[3], results[1]);
    }

private:
    /// Runs a method into output_; `p` becomes the attention call that it amounts to.
    int compute(method const& m, std::string const& name, winnow::attend_params<element>& p, measured& result) {
        progress stage(name);
        p.window = m.window;
        if (m.selected == 0) {
            auto const s = backend_.attend(p, stage, result.time);
            return s ? 0 : failed("attend", s);
        }
        winnow::sparse_prefill_params<element> const sparse{.queries = p.queries,
                                                            .keys = p.keys,
                                                            .values = p.values,
                                                            .method = pruning(m.selected, m.sharing),
                                                            .output = p.output,
                                                            .scale = p.scale};
        result.chosen = {sparse.method, sparse.shape()};
        if (auto s = backend_.sparse_prefill(sparse, result.chosen.view, stage, result.time); !s)
            return failed("sparse_prefill", s);
        p.selection = result.chosen.view;
        auto const s = winnow::check_contents(p.selection, static_cast<std::int32_t>(recording_.keys.tokens));
        return s ? 0 : failed("the selection", s);
    }

    int measure(method const& m, measured& result) {
        std::string const name = m.name.substr(m.name.find_first_not_of(" +"));
        winnow::attend_params<element> p = dense_;
        if (int const code = compute(m, name, p, result); code != 0) return code;
        progress stage(name + ", measuring");
        std::vector<double> output;
        for (element const x : output_) output.push_back(winnow::to_float(x));
        result.error = winnow::reference::relative_error(output, exact_.output);
        auto const s = winnow::reference::measure(p, result.quality, stage.options(options_.threads));
        return s ? 0 : failed("reference::measure", s);
    }

    /// Mass kept by each query block, mean over its rows and the heads [first, first + count).
    std::vector<double> kept_by_block(measured const& result, std::int32_t query_block, std::int32_t blocks,
                                      std::int32_t first, std::int32_t count) const {
        std::vector<double> sum(static_cast<std::size_t>(blocks), 0.0), rows(sum.size(), 0.0);
        for (std::int64_t token = 0; token < recording_.queries.tokens; ++token)
            for (std::int32_t h = first; h < first + count; ++h) {
                auto const m = static_cast<std::size_t>(token / query_block);
                sum[m] += result.quality.row_mass[static_cast<std::size_t>(token * recording_.queries.heads + h)];
                rows[m] += 1;
            }
        for (std::size_t m = 0; m < sum.size(); ++m) sum[m] /= rows[m];
        return sum;
    }

    int write_picture(method const& m, measured const& result, measured const& other) const {
        winnow::block_selection const chosen = result.chosen.view;
        auto const keys = static_cast<std::int32_t>(recording_.keys.tokens);
        std::int32_t const group = dense_.shape().group(), first_head = options_.kv_head * group;
        winnow::reference::attention_map map;
        {
            progress stage("attention map for the picture");
            if (auto s = winnow::reference::map_attention(dense_, chosen.query_block, chosen.block_size, map,
                                                          stage.options(options_.threads));
                !s)
                return failed("reference::map_attention", s);
        }
        picture p;
        p.query_blocks =
            winnow::ceil_div(keys, chosen.query_block);  // aligned: the last list of the worst case is empty
        p.key_blocks = map.key_blocks;
        p.query_block = chosen.query_block;
        p.key_block = chosen.block_size;
        for (std::int32_t q = 0; q < p.query_blocks; ++q) {
            std::int32_t const first = q * p.query_block, last = std::min(first + p.query_block, keys) - 1;
            std::vector<std::uint8_t> listed(static_cast<std::size_t>(map.key_blocks), 0);
            for (std::int32_t i = 0; i < chosen.counts(0, options_.kv_head, q); ++i)
                listed[static_cast<std::size_t>(chosen.blocks(0, options_.kv_head, q, i))] = 1;
            for (std::int32_t k = 0; k < map.key_blocks; ++k) {
                std::int32_t const begin = k * p.key_block, end = begin + p.key_block;
                double mass = 0;
                for (std::int32_t h = first_head; h < first_head + group; ++h) mass += map.at(0, h, q, k) / group;
                p.mass.push_back(begin <= last ? mass : -1);
                bool const in_window = end > first - m.window.recent + 1;
                p.read.push_back(begin < m.window.sinks || in_window || listed[static_cast<std::size_t>(k)]);
            }
        }
        p.curves = {{"with " + std::to_string(m.selected) + " selected keys",
                     kept_by_block(result, p.query_block, p.query_blocks, first_head, group)},
                    {"sinks and window alone", kept_by_block(other, p.query_block, p.query_blocks, first_head, group)}};
        double kept[2] = {};
        for (int c = 0; c < 2; ++c)
            for (double const x : p.curves[c].kept) kept[c] += x / p.query_blocks;
        p.title = "Where attention goes, and which key blocks pruning kept";
        char text[160];
        std::snprintf(text, sizeof text, ", layer %s, query heads %d to %d (mean), reading %lld tokens",
                      recording_.note("layer", " ").c_str(), first_head, first_head + group - 1,
                      static_cast<long long>(recording_.queries.tokens));
        p.subtitles.push_back(recording_.note("model", " (") + text);
        std::snprintf(text, sizeof text,
                      "%d sinks + window of %d + %d selected keys: %s of the attention mass; without the selection %s",
                      m.window.sinks, m.window.recent, m.selected, percent(kept[0], 0).c_str(),
                      percent(kept[1], 0).c_str());
        p.subtitles.push_back(text);
        std::string const drawing = draw(p);
        std::ofstream file(options_.output, std::ios::binary);
        file << drawing;
        file.close();
        if (!file) return failed(options_.output + ": cannot be written");
        return 0;
    }

    options const& options_;
    recording const& recording_;
    backend& backend_;
    std::vector<element> output_;
    winnow::attend_params<element> dense_;
    winnow::reference::attend_result exact_;
};

/// The program, given what computes: `make_backend(options)` is called once the input is known to be good.
template <class MakeBackend>
int run(int count, char** words, MakeBackend const& make_backend) {
    options o;
    int code = 0;
    if (!parse(count, words, o, code)) return code;
    recording r;
    std::string problem;
    if (!read_recording(o.data, r, problem)) return failed(problem);
    if (o.kv_head >= r.keys.heads)
        return failed("--kv-head must be below " + std::to_string(r.keys.heads) + ", the number of key/value heads");
    if (!std::ofstream(o.output, std::ios::app)) return failed(o.output + ": cannot be written");  // before the work
    auto const computes = make_backend(o);
    if (!computes) return 1;
    std::printf("%s, layer %s: %lld tokens, %lld query heads, %lld key/value heads, head_dim %lld\n%s\n\n",
                r.note("model", " (").c_str(), r.note("layer", ",").c_str(), static_cast<long long>(r.queries.tokens),
                static_cast<long long>(r.queries.heads), static_cast<long long>(r.keys.heads),
                static_cast<long long>(r.queries.head_dim), r.note("text", ":").c_str());
    return comparison(o, r, *computes).run();
}

}  // namespace quickstart
