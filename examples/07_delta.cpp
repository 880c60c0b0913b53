// What delta correction brings back: a recorded attention input through a sliding window with and without it, by the
// reference, as a table and a picture of the error along the text.
//
//   ./example_delta [DIR] [PICTURE.svg]     examples/data by default; a minute on two cores
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <winnow/reference/delta.hpp>

#include "01_quickstart/picture.hpp"
#include "01_quickstart/recording.hpp"

namespace {

using winnow::bf16;

constexpr std::int32_t bin = 128;

struct call {
    quickstart::recording r;
    std::vector<bf16> output;
    winnow::reference::run_options run{.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};

    winnow::attend_params<bf16> params(winnow::attention_window window) {
        output.resize(r.queries.data.size());
        return {.queries = r.queries.view(),
                .keys = r.keys.view(),
                .values = r.values.view(),
                .window = window,
                .output =
                    winnow::packed_view(output.data(), {1, r.queries.tokens, r.queries.heads, r.queries.head_dim}),
                .scale = 0.125f};
    }
    // Unrounded output of the window alone, or corrected.
    std::vector<double> sparse(winnow::attention_window window) {
        winnow::reference::attend_result exact;
        if (!winnow::reference::attend(params(window), &exact, run)) return {};
        return exact.output;
    }
    std::vector<double> corrected(winnow::attention_window window, winnow::delta_form form, std::int32_t spacing) {
        // [delta]
        winnow::delta_params<bf16> const p{
            .base = params(window),  // sinks and window, a selection, or both
            .options = {.gamma = spacing,
                        .dense_tail = 128,
                        .form = form,
                        .last_chunk = false}};  // true where the rows end the prompt: its tail is dense then
        // [/delta]
        winnow::reference::attend_result exact;
        if (!winnow::reference::delta(p, &exact, run)) return {};
        return exact.output;
    }
    // Keys that a row reads on average.
    double keys_of(winnow::attention_window w) const {
        double sum = 0;
        for (std::int64_t p = 0; p < r.queries.tokens; ++p)
            sum += static_cast<double>(std::min<std::int64_t>(p + 1, w.sinks + w.recent));
        return sum / static_cast<double>(r.queries.tokens);
    }
};

// Root mean square of the difference over that of dense attention, for rows [first, end) without anchors.
double error(std::vector<double> const& found, std::vector<double> const& dense, std::int64_t width,
             std::int32_t spacing, std::int64_t first, std::int64_t end) {
    double off = 0, all = 0;
    for (std::int64_t row = first; row < end; ++row) {
        if (row % spacing == 0) continue;
        for (std::int64_t i = row * width; i < (row + 1) * width; ++i) {
            auto const at = static_cast<std::size_t>(i);
            off += (found[at] - dense[at]) * (found[at] - dense[at]);
            all += dense[at] * dense[at];
        }
    }
    return std::sqrt(off / all);
}

// Mean cosine, over rows that are not anchors and heads, between what a row's window misses and what its anchor's misses.
double likeness(std::vector<double> const& sparse, std::vector<double> const& dense, quickstart::tensor const& q,
                std::int32_t spacing) {
    double sum = 0, count = 0;
    for (std::int64_t row = 0; row < q.tokens; ++row)
        for (std::int64_t h = 0; h < q.heads && row % spacing != 0; ++h) {
            double both = 0, mine = 0, other = 0;
            for (std::int64_t c = 0; c < q.head_dim; ++c) {
                auto const i = static_cast<std::size_t>((row * q.heads + h) * q.head_dim + c);
                auto const a = i - static_cast<std::size_t>(row % spacing * q.heads * q.head_dim);
                double const x = dense[i] - sparse[i], y = dense[a] - sparse[a];
                both += x * y, mine += x * x, other += y * y;
            }
            if (mine > 0 && other > 0) sum += both / std::sqrt(mine * other), ++count;
        }
    return sum / count;
}

struct line {
    std::string name;
    char const* colour;
    std::vector<double> errors;  // of each bin of rows
};

std::string draw(std::vector<line> const& lines, std::string const& title, std::string const& subtitle) {
    using quickstart::svg::add;
    constexpr double left = 84, top = 96, width = 940, height = 380, most = 1.0;
    std::string out;
    add(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1110 570\" width=\"1110\" height=\"570\" "
             "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"14\" fill=\"#222\">\n");
    out +=
        "<title>" + quickstart::svg::escaped(title) + "</title>\n<rect width=\"1110\" height=\"570\" fill=\"#fff\"/>\n";
    add(out, "<text x=\"%g\" y=\"38\" font-size=\"22\" font-weight=\"bold\">%s</text>\n", left,
        quickstart::svg::escaped(title).c_str());
    add(out, "<text x=\"%g\" y=\"64\" fill=\"#555\">%s</text>\n", left, quickstart::svg::escaped(subtitle).c_str());
    std::size_t const bins = lines[0].errors.size();
    double const step = width / static_cast<double>(bins);
    for (int tick = 0; tick <= 5; ++tick) {
        double const y = top + height * (1 - tick / 5.0);
        add(out, "<path d=\"M%g %gh%g\" stroke=\"#ddd\"/><text x=\"%g\" y=\"%g\" text-anchor=\"end\">%.1f</text>\n",
            left, y, width, left - 10, y + 5, most * tick / 5.0);
    }
    for (std::size_t i = 0; i <= bins; i += 4)
        add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">%zu</text>\n", left + step * static_cast<double>(i),
            top + height + 22, i * bin);
    add(out, "<path d=\"M%g %gv%gh%g\" fill=\"none\" stroke=\"#222\"/>\n", left, top, height, width);
    add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">query position</text>\n", left + width / 2,
        top + height + 46);
    add(out,
        "<text transform=\"translate(26 %g) rotate(-90)\" text-anchor=\"middle\">error, relative to dense</text>\n",
        top + height / 2);
    for (std::size_t n = 0; n < lines.size(); ++n) {
        out += "<polyline points=\"";
        for (std::size_t i = 0; i < bins; ++i)
            add(out, "%.1f,%.1f ", left + step * (static_cast<double>(i) + .5),
                top + height * (1 - std::min(lines[n].errors[i], most) / most));
        add(out, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\"/>\n", lines[n].colour);
        double const y = top + 16 + 20 * static_cast<double>(n);
        add(out, "<path d=\"M%g %gh24\" stroke=\"%s\" stroke-width=\"3\"/><text x=\"%g\" y=\"%g\">%s</text>\n",
            left + 16, y, lines[n].colour, left + 48, y + 5, quickstart::svg::escaped(lines[n].name).c_str());
    }
    out += "</svg>\n";
    return out;
}

}  // namespace

int main(int argc, char** argv) {
    call c;
    std::string problem;
    if (!quickstart::read_recording(argc > 1 ? argv[1] : WINNOW_EXAMPLES_DATA, c.r, problem)) {
        std::fprintf(stderr, "%s\n", problem.c_str());
        return 1;
    }
    std::int64_t const tokens = c.r.queries.tokens, width = c.r.queries.heads * c.r.queries.head_dim;
    std::vector<double> const dense = c.sparse({});
    std::printf("%s, layer %s, %lld tokens, 4 sinks; error of rows that are not anchors, relative to dense\n\n",
                c.r.note("model", " (").c_str(), c.r.note("layer", " of").c_str(), static_cast<long long>(tokens));
    std::printf(
        "| window | gamma | keys a row | window alone | as many keys as delta | recompute | delta | mass preserving "
        "| likeness of anchor |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    std::vector<line> lines;
    for (std::int32_t const recent : {64, 256, 1024})
        for (std::int32_t const spacing : {2, 8, 64}) {
            winnow::attention_window const window{.sinks = 4, .recent = recent};
            // Anchors read everything before them, where they would have read the window.
            double extra = 0;
            for (std::int64_t p = 0; p < tokens; p += spacing)
                extra += static_cast<double>(std::max<std::int64_t>(p + 1 - window.sinks - window.recent, 0));
            double const keys = c.keys_of(window) + extra / static_cast<double>(tokens);
            winnow::attention_window wider = window;
            while (c.keys_of(wider) < keys) ++wider.recent;
            struct {
                std::string name;
                char const* colour;
                std::vector<double> output;
            } const results[] = {
                {"window", "#8a8a8a", c.sparse(window)},
                {"window of as many keys as delta reads", "#222222", c.sparse(wider)},
                {"recompute", "#e08214", c.corrected(window, winnow::delta_form::recompute, spacing)},
                {"delta", "#31689e", c.corrected(window, winnow::delta_form::complement, spacing)},
                {"mass preserving", "#4d9a47", c.corrected(window, winnow::delta_form::mass_preserving, spacing)}};
            std::printf("| %d | %d | %.0f |", recent, spacing, keys);
            for (auto const& r : results) {
                if (r.output.empty()) return 1;
                std::printf(" %.3f |", error(r.output, dense, width, spacing, 0, tokens));
                if (recent != 256 || spacing != 8 || r.name == "recompute") continue;  // whose error is the window's
                lines.push_back({r.name, r.colour, {}});
                for (std::int64_t first = 0; first + bin <= tokens; first += bin)
                    lines.back().errors.push_back(error(r.output, dense, width, spacing, first, first + bin));
            }
            std::printf(" %.2f |\n", likeness(results[0].output, dense, c.r.queries, spacing));
            std::fflush(stdout);
        }
    if (argc > 2) {
        std::ofstream(argv[2]) << draw(
            lines, "Error of windowed attention along a text, with and without delta correction",
            "Sinks 4, window 256, gamma 8; " + c.r.note("model", " (") + ", layer " + c.r.note("layer", " of") +
                ", all heads; root mean square over " + std::to_string(bin) + " rows");
    }
    return 0;
}
