#!/usr/bin/env python3
"""Joins quality and time of the scorers, and draws the frontier as SVG.

    bench_frontier_quality > quality.json
    bench_frontier_time --benchmark_out=time.json --benchmark_out_format=json
    plot.py quality.json --time time.json --json bench/frontier/frontier.json --svg docs/pictures/frontier.svg

The joined file can take quality.json's place: its times stay where --time gives no others. Without any times the picture's
x axis is the budget of selected keys; with them, scorers without a time are left out. Times are those of the preset with
the same share of its budget (see choices.hpp): quality comes from short contexts, which the reference can compute.
"""
import argparse
import json
import math

COLOURS = {"tree_probe": "#1b6ca8", "tree_probe_path_per_head": "#6baed6", "tree_probe_first": "#2a9d5c",
           "centre_probe": "#c77d0a", "mean_key": "#a83232", "min_max_bound": "#7a4fa3",
           "antidiagonal": "#d0548f"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 330, 60, 16, 34, 48


def times_of(path):
    """{(scorer, budget, what): ms} of a Google Benchmark file; medians where there are repetitions."""
    times = {}
    with open(path, encoding="utf-8") as file:
        for entry in json.load(file)["benchmarks"]:
            if entry.get("run_type") == "aggregate" and entry.get("aggregate_name") != "median":
                continue
            parts = entry.get("run_name", entry["name"]).split("/")
            if "frontier" not in parts or entry.get("error_occurred"):
                continue
            at = parts.index("frontier")
            unit = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[entry["time_unit"]]
            times[parts[at + 1], int(parts[at + 2].split(":")[1]), parts[at + 3]] = entry["real_time"] * unit
    return times


def join(quality, times):
    """Every row of quality with its times; budgets of the short contexts are a quarter of the preset's."""
    for row in quality:
        for what in ("prune", "prune_and_attend"):
            found = times.get((row["scorer"], 4 * row["budget"], what))
            if found is not None:
                row[what + "_ms"] = round(found, 3)
    return quality


def ticks(low, high, logarithmic):
    if logarithmic:
        steps = [m * 10 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
                 for m in (1, 2, 5)]
        return [s for s in steps if low <= s <= high]
    step = 10 ** math.floor(math.log10((high - low) or 1))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 7)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def panel(rows, x_name, y_name, title, x_label, y_label, left, width):
    """One diagram: a line for each scorer, a dot for each budget."""
    points = [(row[x_name], 100 * row[y_name], row["scorer"]) for row in rows if x_name in row and y_name in row]
    if not points:
        return []
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x_low, x_high = min(xs) / 1.1, max(xs) * 1.1
    y_low, y_high = min(ys), max(ys)
    y_low, y_high = y_low - 0.05 * (y_high - y_low or 1), y_high + 0.05 * (y_high - y_low or 1)

    def x_of(x):
        return left + width * math.log(x / x_low) / math.log(x_high / x_low)

    def y_of(y):
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - y_low) / (y_high - y_low)

    out = [f'<text x="{left}" y="20" font-weight="bold">{title}</text>',
           f'<text x="{left + width / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{x_label}</text>',
           f'<text x="{left - 44}" y="{(TOP + HEIGHT - BOTTOM) / 2:.0f}" text-anchor="middle" '
           f'transform="rotate(-90 {left - 44} {(TOP + HEIGHT - BOTTOM) / 2:.0f})">{y_label}</text>',
           f'<rect x="{left}" y="{TOP}" width="{width}" height="{HEIGHT - BOTTOM - TOP}" fill="none" stroke="#999"/>']
    for x in ticks(x_low, x_high, True):
        out.append(f'<line x1="{x_of(x):.1f}" y1="{TOP}" x2="{x_of(x):.1f}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
                   f'<text x="{x_of(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>')
    for y in ticks(y_low, y_high, False):
        out.append(f'<line x1="{left}" y1="{y_of(y):.1f}" x2="{left + width}" y2="{y_of(y):.1f}" stroke="#eee"/>'
                   f'<text x="{left - 6}" y="{y_of(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for scorer, colour in COLOURS.items():
        line = sorted((x, y) for x, y, of in points if of == scorer)
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>' for x, y in line]
    return out


def draw(rows):
    timed = any("prune_and_attend_ms" in row for row in rows)
    x_name, x_label = (("prune_and_attend_ms", "pruning and attention, ms, last 32k rows of 128k") if timed
                       else ("budget", "selected keys"))
    drawn = [scorer for scorer in COLOURS if any(row["scorer"] == scorer and x_name in row for row in rows)]
    width = (WIDTH - 2 * (LEFT + RIGHT)) / 2
    body = panel([r for r in rows if r["input"] == "recording"], x_name, "mass_kept", "Recorded layer", x_label,
                 "attention mass kept, %", LEFT, width)
    body += panel([r for r in rows if r["input"] == "needles"], x_name, "needles_found", "Planted needles", x_label,
                  "found, %", 2 * LEFT + RIGHT + width, width)
    for i, scorer in enumerate(drawn):
        x, y = LEFT + 10 + i % 3 * 190, HEIGHT + 14 + i // 3 * 18
        body.append(f'<rect x="{x}" y="{y - 9}" width="12" height="10" fill="{COLOURS[scorer]}"/>'
                    f'<text x="{x + 18}" y="{y}">{scorer}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 8 + 18 * math.ceil(len(drawn) / 3)}" font-family="sans-serif" '
            'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quality")
    parser.add_argument("--time")
    parser.add_argument("--json")
    parser.add_argument("--svg")
    options = parser.parse_args()
    with open(options.quality, encoding="utf-8") as file:
        rows = join(json.load(file), times_of(options.time) if options.time else {})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]\n")
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(draw(rows))


if __name__ == "__main__":
    main()
