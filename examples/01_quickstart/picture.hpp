// Draws a selection over the attention map as SVG: blocks that were read in blue, blocks that were left out in orange,
// the darker the more attention mass they hold; beside it, the mass that each query block kept.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace quickstart {

/// What is drawn. Cells are [query block][key block], row by row.
struct picture {
    std::string title;
    std::vector<std::string> subtitles;                                             ///< at most two lines
    std::int32_t query_blocks = 0, key_blocks = 0, query_block = 0, key_block = 0;  ///< cells, and tokens in a cell
    std::vector<double> mass;        ///< of each query block over key blocks, sum 1; negative: no row may see the cell
    std::vector<std::uint8_t> read;  ///< 1: attention reads the cell for some row
    /// Part of the attention mass that each query block kept, and a name for it.
    struct curve {
        std::string name;
        std::vector<double> kept;
    };
    std::vector<curve> curves;  ///< at most two: the method, and one to compare with
};

namespace svg {

using colour = std::array<int, 3>;

/// Sequential palettes, light to dark: single hue, even steps of lightness, and distinct for colour-blind readers.
inline constexpr std::array<colour, 6> blues{
    {{226, 238, 248}, {173, 207, 233}, {110, 170, 214}, {49, 128, 189}, {14, 84, 150}, {5, 38, 86}}};
inline constexpr std::array<colour, 6> oranges{
    {{255, 250, 243}, {254, 230, 201}, {253, 190, 128}, {246, 138, 56}, {214, 84, 10}, {127, 39, 4}}};
inline constexpr int steps = 12;                    ///< colours of a scale
inline constexpr double lowest = -3, highest = -1;  ///< log10 of the mass at the ends of the scale

inline std::string shade(std::array<colour, 6> const& palette, int step) {
    double const at = static_cast<double>(step) / (steps - 1) * (palette.size() - 1);
    auto const i = std::min(static_cast<std::size_t>(at), palette.size() - 2);
    double const part = at - static_cast<double>(i);
    char text[8];
    int rgb[3];
    for (std::size_t c = 0; c < 3; ++c)
        rgb[c] = static_cast<int>(std::lround(palette[i][c] + part * (palette[i + 1][c] - palette[i][c])));
    std::snprintf(text, sizeof text, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
    return text;
}

inline int step_of(double mass) {
    if (!(mass > 0)) return 0;
    double const part = (std::log10(mass) - lowest) / (highest - lowest);
    return static_cast<int>(std::lround(std::clamp(part, 0.0, 1.0) * (steps - 1)));
}

[[gnu::format(printf, 2, 3)]] inline void add(std::string& out, char const* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    out += text;
}

inline std::string escaped(std::string const& text) {
    std::string out;
    for (char const c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
    return out;
}

/// Cells of one shade as one path of horizontal strokes; neighbours become one stroke.
inline void add_cells(std::string& out, picture const& p, bool read, int step, std::string const& fill) {
    std::string path;
    for (std::int32_t m = 0; m < p.query_blocks; ++m) {
        auto const wanted = [&](std::int32_t k) {
            auto const at =
                static_cast<std::size_t>(m) * static_cast<std::size_t>(p.key_blocks) + static_cast<std::size_t>(k);
            return k < p.key_blocks && p.mass[at] >= 0 && (p.read[at] != 0) == read && step_of(p.mass[at]) == step;
        };
        for (std::int32_t k = 0; k < p.key_blocks; ++k) {
            if (!wanted(k)) continue;
            std::int32_t const first = k;
            while (wanted(k)) ++k;
            add(path, "M%d %dh%d", first, m, k - first);
        }
    }
    if (path.empty()) return;
    add(out, "<path stroke=\"%s\" d=\"", fill.c_str());
    out += path;
    out += "\"/>\n";
}

}  // namespace svg

inline std::string draw(picture const& p) {
    using svg::add;
    constexpr double left = 84, top = 118, width = 768, height = 576, side = 900, side_width = 180;
    constexpr double right = left + width, bottom = top + height;
    double const tokens_down = static_cast<double>(p.query_blocks) * p.query_block;
    double const tokens_across = static_cast<double>(p.key_blocks) * p.key_block;
    std::string out;
    add(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1110 770\" width=\"1110\" height=\"770\" "
             "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"14\" fill=\"#222\">\n");
    out += "<title>" + svg::escaped(p.title) + "</title>\n<rect width=\"1110\" height=\"770\" fill=\"#fff\"/>\n";
    add(out, "<text x=\"%g\" y=\"38\" font-size=\"22\" font-weight=\"bold\">%s</text>\n", left,
        svg::escaped(p.title).c_str());
    for (std::size_t i = 0; i < p.subtitles.size() && i < 2; ++i)
        add(out, "<text x=\"%g\" y=\"%g\" fill=\"#555\">%s</text>\n", left, 64 + 20 * static_cast<double>(i),
            svg::escaped(p.subtitles[i]).c_str());

    // The map. Strokes are one unit thick and run along the middle of a row of cells.
    add(out,
        "<g transform=\"translate(%g %g) scale(%g %g) translate(0 .5)\" fill=\"none\" stroke-width=\"1\" "
        "shape-rendering=\"crispEdges\">\n",
        left, top, width / p.key_blocks, height / p.query_blocks);
    for (int step = 0; step < svg::steps; ++step) {
        svg::add_cells(out, p, false, step, svg::shade(svg::oranges, step));
        svg::add_cells(out, p, true, step, svg::shade(svg::blues, step));
    }
    out += "</g>\n";

    // Axes of the map, with ticks at multiples of a power of two.
    int tick_step = 64;
    while (tick_step * 8 < tokens_across) tick_step *= 2;
    add(out, "<path d=\"M%g %gV%gH%g\" fill=\"none\" stroke=\"#222\"/>\n", left, top, bottom, right);
    for (int tick = 0; tick <= tokens_across; tick += tick_step) {
        double const x = left + width * tick / tokens_across;
        add(out, "<path d=\"M%g %gv6\" stroke=\"#222\"/><text x=\"%g\" y=\"%g\" text-anchor=\"middle\">%d</text>\n", x,
            bottom, x, bottom + 22, tick);
    }
    for (int tick = 0; tick <= tokens_down; tick += tick_step) {
        double const y = top + height * tick / tokens_down;
        add(out, "<path d=\"M%g %gh-6\" stroke=\"#222\"/><text x=\"%g\" y=\"%g\" text-anchor=\"end\">%d</text>\n", left,
            y, left - 10, y + 5, tick);
    }
    add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">key position (blocks of %d)</text>\n", left + width / 2,
        bottom + 46, p.key_block);
    add(out,
        "<text transform=\"translate(26 %g) rotate(-90)\" text-anchor=\"middle\">query position (blocks of "
        "%d)</text>\n",
        top + height / 2, p.query_block);

    // Legend, in the corner that a causal mask leaves empty.
    constexpr double box = 26, legend = right - box * svg::steps;
    struct {
        char const* text;
        std::array<svg::colour, 6> const* palette;
    } const scales[] = {{"key blocks that attention reads", &svg::blues},
                        {"key blocks that it leaves out", &svg::oranges}};
    double y = top + 22;
    for (auto const& scale : scales) {
        add(out, "<text x=\"%g\" y=\"%g\">%s</text>\n", legend, y - 8, scale.text);
        for (int step = 0; step < svg::steps; ++step)
            add(out, "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"14\" fill=\"%s\"/>\n", legend + box * step, y,
                box + .5, svg::shade(*scale.palette, step).c_str());
        y += 48;
    }
    y -= 48;
    for (int decade = 0; decade <= 2; ++decade) {
        static char const* const labels[] = {"&#8804; 0.1 %", "1 %", "&#8805; 10 %"};
        double const x = legend + box * svg::steps * decade / 2.0;
        add(out,
            "<path d=\"M%g %gv5\" stroke=\"#222\"/><text x=\"%g\" y=\"%g\" text-anchor=\"%s\" "
            "font-size=\"12\">%s</text>\n",
            x, y + 14, x, y + 32,
            decade == 0   ? "start"
            : decade == 2 ? "end"
                          : "middle",
            labels[decade]);
    }
    add(out,
        "<text x=\"%g\" y=\"%g\" font-size=\"12\" fill=\"#555\">share of the query block's attention mass</text>\n",
        legend, y + 50);

    // Mass kept, beside the rows it belongs to.
    add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">attention mass kept</text>\n", side + side_width / 2,
        bottom + 46);
    for (int tick = 0; tick <= 4; ++tick) {
        double const x = side + side_width * tick / 4.0;
        add(out, "<path d=\"M%g %gV%g\" stroke=\"#ddd\"/>", x, top, bottom);
        if (tick % 2 == 0)
            add(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">%d %%</text>\n", x, bottom + 22, tick * 25);
    }
    add(out, "<path d=\"M%g %gV%gH%g\" fill=\"none\" stroke=\"#222\"/>\n", side, top, bottom, side + side_width);
    static char const* const line_colours[] = {"#0e5496", "#8a8a8a"};
    for (std::size_t c = 0; c < p.curves.size() && c < 2; ++c) {
        std::string points;
        for (std::size_t m = 0; m < p.curves[c].kept.size(); ++m)
            add(points, "%.1f,%.1f ", side + side_width * p.curves[c].kept[m],
                top + height * (static_cast<double>(m) + .5) / p.query_blocks);
        add(out, "<polyline points=\"");
        out += points;
        add(out, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\"/>\n", line_colours[c]);
        add(out,
            "<path d=\"M%g %gh20\" stroke=\"%s\" stroke-width=\"2\"/><text x=\"%g\" y=\"%g\" "
            "font-size=\"13\">%s</text>\n",
            side, top - 27 + 18 * static_cast<double>(c), line_colours[c], side + 27,
            top - 22 + 18 * static_cast<double>(c), svg::escaped(p.curves[c].name).c_str());
    }
    out += "</svg>\n";
    return out;
}

}  // namespace quickstart
