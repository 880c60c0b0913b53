// How far a fixed budget reaches: a recorded attention input through cascading caches of several shapes, by the
// reference, as a table; and a picture of which tokens sit in which sub-cache while the text is read.
//
//   ./example_cascade [DIR] [PICTURE.svg]     examples/data by default; a minute on two cores
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <winnow/reference/cascade.hpp>

#include "01_quickstart/picture.hpp"
#include "01_quickstart/recording.hpp"

namespace {

using winnow::bf16;

constexpr std::int32_t heads = 9, kv_heads = 3, head_dim = 64, chunk = 64, sinks = 4;
constexpr winnow::rope rotation{.theta = 100000};

int failed(char const* what, winnow::status const& s) {
    std::fprintf(stderr, "%s: %s %s, found %lld\n", what, s.field, s.rule, static_cast<long long>(s.value));
    return 1;
}

// The recorded queries are rotated; caches want them as they were before.
void turn_back(quickstart::tensor& t) {
    for (std::int64_t token = 0; token < t.tokens; ++token)
        for (std::int64_t head = 0; head < t.heads; ++head) {
            bf16* const channels = t.data.data() + (token * t.heads + head) * t.head_dim;
            std::vector<double> row;
            for (std::int64_t c = 0; c < t.head_dim; ++c) row.push_back(winnow::to_float(channels[c]));
            winnow::reference::rotate(rotation, static_cast<std::int32_t>(-token), row);
            for (std::size_t c = 0; c < row.size(); ++c)
                channels[c] = winnow::from_float<bf16>(static_cast<float>(row[c]));
        }
}

// Caches of one sequence, empty.
class cache_memory {
public:
    explicit cache_memory(winnow::cascade_layout const& layout) {
        // [cache]
        cache.layout = layout;  // even_cascade(sinks, slots, sub-caches), or sliding_window(sinks, slots)
        cache.sequences = 1, cache.kv_heads = kv_heads, cache.head_dim = head_dim;
        memory_.resize(winnow::cascade_bytes(cache) / sizeof(line));  // exact; zero bytes are an empty cache
        cache.memory = memory_.data();
        // [/cache]
    }
    winnow::cascade_cache<bf16> cache;

private:
    struct alignas(winnow::workspace_alignment) line {
        char bytes[winnow::workspace_alignment] = {};
    };
    std::vector<line> memory_;
};

// Output and log-sum-exp of all rows.
struct result {
    std::vector<bf16> output;
    std::vector<float> lse;
};

// The whole text, chunk by chunk; `watch(tokens read)` after each chunk.
template <class Watch>
winnow::status read_text(quickstart::recording const& r, cache_memory& memory, result& found, Watch const& watch) {
    std::int64_t const tokens = r.queries.tokens;
    found.output.resize(r.queries.data.size());
    found.lse.resize(static_cast<std::size_t>(tokens * heads));
    winnow::reference::run_options const run{.threads =
                                                 static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
    std::vector<float> scores(chunk * kv_heads);
    for (std::int64_t first = 0; first < tokens; first += chunk) {
        auto const rows = [&](auto* data, std::int64_t count) {
            return winnow::packed_view(data + first * count * head_dim, {1, chunk, count, head_dim});
        };
        // [step]
        winnow::cascade_attend_params<bf16> p{
            .queries = rows(r.queries.data.data(), heads),
            .keys = rows(r.keys.data.data(), kv_heads),  // not rotated
            .values = rows(r.values.data.data(), kv_heads),
            .cache = memory.cache,
            .output = rows(found.output.data(), heads),
            .lse = winnow::natural_lse{winnow::packed_view(found.lse.data() + first * heads, {1, chunk, heads})},
            .scale = 0.125f,
            .rotation = rotation,
            .positions = winnow::cascade_positions::original,  // so that it can be compared with dense attention
            .scores = winnow::packed_view(scores.data(), {1, chunk, kv_heads}),
            .scorer = {winnow::all_queries{}, 0.9999}};
        if (auto s = winnow::reference::cascade_attend(p, nullptr, run); !s) return s;
        if (auto s = winnow::reference::cascade_insert(winnow::insert_part(p)); !s) return s;
        // [/step]
        watch(first + chunk);
    }
    return {};
}

std::vector<std::int32_t> tokens_of(winnow::cascade_cache<bf16> const& cache, std::int32_t kv_head,
                                    std::int32_t level) {
    std::int32_t const* const first = cache.origins(0, kv_head) + cache.layout.slots_before(level);
    std::vector<std::int32_t> tokens(first, first + cache.counters(0)->count[level]);
    std::sort(tokens.begin(), tokens.end());
    return tokens;
}

// One row of cells per chunk; runs of neighbouring tokens become one stroke.
struct timeline {
    std::vector<std::string> paths = std::vector<std::string>(winnow::max_cascade_levels + 1);
    int rows = 0;

    void add_row(winnow::cascade_cache<bf16> const& cache, std::int32_t kv_head) {
        quickstart::svg::add(paths.back(), "M0 %dh%d", rows, sinks);
        for (std::int32_t level = 0; level < cache.layout.levels; ++level) {
            auto const tokens = tokens_of(cache, kv_head, level);
            for (std::size_t i = 0; i < tokens.size();) {
                std::size_t end = i + 1;
                while (end < tokens.size() && tokens[end] == tokens[end - 1] + 1) ++end;
                quickstart::svg::add(paths[static_cast<std::size_t>(level)], "M%d %dh%d", tokens[i], rows,
                                     static_cast<int>(end - i));
                i = end;
            }
        }
        ++rows;
    }
    std::string draw(std::int64_t tokens, std::string const& title, std::string const& subtitle,
                     std::int32_t levels) const {
        using quickstart::svg::add;
        constexpr double left = 84, top = 96, width = 980, height = 480;
        static char const* const colours[] = {"#31689e", "#e08214", "#4d9a47", "#9a3b8f"};
        std::string out;
        add(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1110 680\" width=\"1110\" height=\"680\" "
                 "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"14\" fill=\"#222\">\n");
        out += "<title>" + title + "</title>\n<rect width=\"1110\" height=\"680\" fill=\"#fff\"/>\n";
        add(out, "<text x=\"%g\" y=\"38\" font-size=\"22\" font-weight=\"bold\">%s</text>\n", left, title.c_str());
        add(out, "<text x=\"%g\" y=\"64\" fill=\"#555\">%s</text>\n", left, subtitle.c_str());
        add(out,
            "<g transform=\"translate(%g %g) scale(%g %g) translate(0 .5)\" fill=\"none\" stroke-width=\".8\" "
            "shape-rendering=\"crispEdges\">\n",
            left, top, width / static_cast<double>(tokens), height / rows);
        auto const path = [&](char const* colour, std::string const& d) {
            add(out, "<path stroke=\"%s\" d=\"", colour);
            out += d + "\"/>\n";
        };
        path("#222", paths.back());
        for (std::int32_t level = 0; level < levels; ++level)
            path(colours[level % 4], paths[static_cast<std::size_t>(level)]);
        out += "</g>\n";
        add(out, "<path d=\"M%g %gV%gH%g\" fill=\"none\" stroke=\"#222\"/>\n", left, top, top + height, left + width);
        for (std::int64_t tick = 0; tick <= tokens; tick += 512) {
            double const at = static_cast<double>(tick) / static_cast<double>(tokens);
            add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">%d</text>\n", left + width * at, top + height + 20,
                static_cast<int>(tick));
            add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%d</text>\n", left - 8, top + height * at + 5,
                static_cast<int>(tick));
        }
        add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">token in the cache</text>\n", left + width / 2,
            top + height + 44);
        add(out, "<text transform=\"translate(24 %g) rotate(-90)\" text-anchor=\"middle\">tokens read</text>\n",
            top + height / 2);
        for (std::int32_t level = -1; level < levels; ++level) {
            double const x = left + 130.0 * (level + 1);
            std::string const name = level < 0 ? "sinks" : "sub-cache " + std::to_string(level);
            add(out, "<rect x=\"%g\" y=\"650\" width=\"14\" height=\"14\" fill=\"%s\"/>", x,
                level < 0 ? "#222" : colours[level % 4]);
            add(out, "<text x=\"%g\" y=\"662\">%s</text>\n", x + 20, name.c_str());
        }
        return out + "</svg>\n";
    }
};

}  // namespace

int main(int count, char** words) {
    std::filesystem::path const folder = count > 1 ? words[1] : WINNOW_EXAMPLES_DATA;
    quickstart::recording r;
    std::string problem;
    bool const read = quickstart::read_recording(folder, r, problem) &&
                      quickstart::read_tensor(folder / "keys_unrotated.bf16", r.keys, problem);
    if (!read || r.queries.heads != heads || r.keys.heads != kv_heads || r.queries.head_dim != head_dim) {
        std::fprintf(stderr, "%s\n", read ? "a recording of other extents" : problem.c_str());
        return 1;
    }
    turn_back(r.queries);

    std::int64_t const tokens = r.queries.tokens / chunk * chunk;
    r.queries.tokens = tokens;
    result dense, found;
    auto const nobody = [](std::int64_t) {};
    // A window that is never full: dense attention.
    cache_memory everything(winnow::sliding_window(sinks, static_cast<std::int32_t>(tokens)));
    if (auto s = read_text(r, everything, dense, nobody); !s) return failed("dense", s);

    std::printf("%lld tokens in chunks of %d, %d sinks; rows from token 1024 on\n\n", static_cast<long long>(tokens),
                chunk, sinks);
    std::printf("slots  sub-caches   span  oldest token kept  attention mass kept  output error\n");
    for (std::int32_t const slots : {128, 256, 512})
        for (std::int32_t const levels : {1, 2, 4}) {
            cache_memory memory(winnow::even_cascade(sinks, slots, levels));
            if (auto s = read_text(r, memory, found, nobody); !s) return failed("cascade", s);
            std::int32_t oldest = static_cast<std::int32_t>(tokens);
            for (std::int32_t h = 0; h < kv_heads; ++h)
                for (std::int32_t level = 0; level < levels; ++level)
                    oldest = std::min(oldest, tokens_of(memory.cache, h, level).front());
            // Both softmaxes have the same scores, so the part of the mass that is kept is a difference of lse.
            double mass = 0, off = 0, size = 0;
            std::size_t const first = 1024 * heads;
            for (std::size_t i = first; i < dense.lse.size(); ++i)
                mass += std::exp(static_cast<double>(found.lse[i]) - static_cast<double>(dense.lse[i]));
            for (std::size_t i = first * head_dim; i < dense.output.size(); ++i) {
                double const x = winnow::to_float(dense.output[i]), d = winnow::to_float(found.output[i]) - x;
                off += d * d, size += x * x;
            }
            std::printf("%5d  %10d  %5lld  %17d  %17.1f %%  %10.1f %%\n", slots, levels,
                        static_cast<long long>(memory.cache.layout.span()), oldest,
                        100 * mass / static_cast<double>(dense.lse.size() - first), 100 * std::sqrt(off / size));
            std::fflush(stdout);
        }

    if (count <= 2) return 0;
    constexpr std::int32_t slots = 512, levels = 4, kv_head = 1;
    cache_memory memory(winnow::even_cascade(sinks, slots, levels));
    timeline picture;
    auto const draw = [&](std::int64_t) { picture.add_row(memory.cache, kv_head); };
    if (auto s = read_text(r, memory, found, draw); !s) return failed("cascade", s);
    std::ofstream(words[2]) << picture.draw(
        tokens, "What a cascading cache holds while a text is read",
        "512 slots in 4 sub-caches of a recorded input, key/value head 1; one line per chunk of 64 tokens", levels);
    std::printf("\nwrote %s\n", words[2]);
    return 0;
}
