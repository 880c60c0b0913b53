#!/usr/bin/env python3
"""Writes what was measured into README.md and docs/performance.md: tables from bench/results/*.json, and a line on the
last run of the GPU tests from tests/gpu_record.json.

    report.py            rewrites the blocks between '<!-- NAME:begin -->' and '<!-- NAME:end -->'
    report.py --check    exit 1 where a block is not what the results say
    report.py --self-test

bench/results/README.md documents what a result file holds.
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "gpu_record.json"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def shape(row):
    return f"{row['tokens'] // 1024}k, head_dim {row['head_dim']}, {row['heads']}/{row['kv_heads']} heads"


def cell(row, name, digits=2, unit="ms", rate=None):
    """Median, half the spread, and a rate in parentheses; a dash where the contender did not run."""
    found = row["contenders"].get(name)
    if found is None:
        return "-"
    text = f"{found['ms'] * (1000 if unit == 'us' else 1):.{digits}f}"
    if "spread_percent" in found:
        text += f" ±{found['spread_percent'] / 2:.1f} %"
    return text + (f" ({found[rate]:.{2 if rate == 'tb_per_s' else 0}f})" if rate in found else "")


def ratio(row, peer, own="winnow"):
    both = row["contenders"]
    return f"{both[peer]['ms'] / both[own]['ms']:.2f} x" if peer in both and own in both else "-"


def present(rows, names):
    """Of (contender, heading), those that ran in any row."""
    return [(name, heading) for name, heading in names if any(name in row["contenders"] for row in rows)]


DENSE_PEERS = (("flash_attention_2", "FlashAttention-2"), ("cudnn", "cuDNN"), ("flashinfer", "FlashInfer"))


def dense_table(rows, what="dense causal prefill"):
    peers = present(rows, DENSE_PEERS)
    header = ([what, "winnow, ms (TFLOP/s)"] + [heading for _, heading in peers] +
              [f"speed / {heading}" for _, heading in peers])
    return table(header, [[shape(r)] + [cell(r, name, rate="tflops") for name in ("winnow", *(n for n, _ in peers))] +
                          [ratio(r, name) for name, _ in peers] for r in rows])


def sparse_table(rows):
    def density(row, budget=256 + 1024 + 2048):
        """Keys that the hip_3k preset reads, of those that the causal mask allows."""
        tokens = row["tokens"]
        read = sum(min(position + 1, budget) for position in range(tokens))
        return f"{100 * read / (tokens * (tokens + 1) / 2):.0f} %"

    names = present(rows, (("winnow_sparse_per_batch", "winnow sparse, one list"),
                           ("winnow_sparse_per_kv_group", "winnow sparse, list per KV head"), ("hip_attn", "hip-attn"),
                           ("winnow", "winnow dense"), *DENSE_PEERS))
    return table(["causal prefill", "keys read"] + [heading for _, heading in names],
                 [[shape(r), density(r)] + [cell(r, name, 1) for name, _ in names] for r in rows])


def listed_table(rows):
    peers = present(rows, (("flex_attention", "FlexAttention"),))
    header = (["random lists", "keys a row", "winnow, ms (TFLOP/s on listed blocks)"] + [h for _, h in peers] +
              ["winnow dense"] + [f"speed / {h}" for _, h in peers])
    return table(header, [[f"{shape(r)}, blocks of {r['block']}", f"{r['keys_read']:.0f}",
                           cell(r, "winnow", rate="tflops_blocks")] +
                          [cell(r, name, rate="tflops_blocks") for name, _ in peers] + [cell(r, "winnow_dense", 1)] +
                          [ratio(r, name) for name, _ in peers] for r in rows])


def full_table(rows):
    return dense_table(rows, "dense prefill without a mask")


def forms_table(rows):
    """A line a form, a column a budget; the ratio is of rates, on listed blocks and on what a causal mask allows."""
    def rate(row, name):
        found = row["contenders"].get(name)
        if found is None:
            return "-"
        text = f"{found['ms']:.2f} ({found['tflops']:.0f})"
        dense = row["contenders"].get("winnow_dense")
        return text if name == "winnow_dense" or dense is None else f"{text}, {found['tflops'] / dense['tflops']:.2f} x"

    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    names.sort(key=lambda name: name != "winnow_dense")

    def heading(name):
        if name == "winnow_dense":
            return "dense"
        block, _, page = name.removeprefix("winnow/block:").partition("/page:")
        return f"blocks of {block}" + (f", pages of {page}" if page else "")

    return table(["winnow, ms (TFLOP/s), rate against dense"] +
                 [f"{row['tokens'] // 1024}k, {row['budget']} keys a row" for row in rows],
                 [[heading(name)] + [rate(row, name) for row in rows] for name in names])


def chunk_table(rows):
    names = present(rows, (("winnow_sparse_per_batch", "winnow sparse, one list"),
                           ("winnow_sparse_per_kv_group", "winnow sparse, list per KV head"), ("hip_attn", "hip-attn"),
                           ("winnow_dense", "winnow dense")))
    return table(["hip_3k preset, ms"] + [heading for _, heading in names],
                 [[f"last {r['queries'] // 1024}k rows of {shape(r)}"] + [cell(r, name, 1) for name, _ in names]
                  for r in rows])


def delta_table(rows):
    peers = present(rows, (("delta_attention", "released code"), ("cudnn", "cuDNN dense")))

    def more(row):
        both = row["contenders"]
        if not {"winnow_sparse_delta", "winnow_sparse_per_batch"} <= set(both):
            return "-"
        return f"{100 * (both['winnow_sparse_delta']['ms'] / both['winnow_sparse_per_batch']['ms'] - 1):.0f} %"

    names = (("winnow_window", "window and sinks"), ("winnow_delta", "corrected"), *peers,
             ("winnow_sparse_per_batch", "hip_3k"), ("winnow_sparse_delta", "corrected"))
    return table(["prefill, anchors every 64 rows, ms"] + [heading for _, heading in names] +
                 [f"speed / {heading}" for _, heading in peers] + ["correction of hip_3k"],
                 [[f"{shape(r)}, window {r['window']}, sinks {r['sinks']}"] + [cell(r, name) for name, _ in names] +
                  [ratio(r, name, "winnow_delta") for name, _ in peers] + [more(r)] for r in rows])


def cascade_table(rows):
    names = present(rows, (("winnow_cascade_4096", "chunks of 4096"), ("winnow_cascade_1024", "chunks of 1024"),
                           ("winnow", "winnow dense"), ("cudnn", "cuDNN dense")))
    peers = [name for name, _ in names if name in ("winnow", "cudnn")]
    return table(["cascade_prefill, 16448 rows, ms"] + [heading for _, heading in names] +
                 [f"speed / {heading}" for name, heading in names if name in peers],
                 [[shape(r)] + [cell(r, name, 1) for name, _ in names] +
                  [ratio(r, name, "winnow_cascade_4096") for name in peers] for r in rows])


def decode_shape(row):
    return f"{shape(row)}, batch {row['batch']}"


def dense_decode_table(rows):
    names = [("winnow_dense", "winnow, us (TB/s)"), *present(rows, DENSE_PEERS)]
    return table(["dense decode"] + [heading for _, heading in names],
                 [[decode_shape(r)] + [cell(r, name, 1, "us", "tb_per_s") for name, _ in names] for r in rows])


STEP_STATES = (("stages_cached:0", "no stage cached"), ("stages_cached:1", "stage 1"),
               ("stages_cached:2", "stages 1-2"), ("stages_cached:3", "all"), ("mean:16_8_4", "mean {16, 8, 4}"),
               ("mean:32_16_8", "mean {32, 16, 8}"), ("mean:96_24_8", "mean {96, 24, 8}"))


def sparse_decode_table(rows):
    kinds = [(kind, heading) for kind, heading in STEP_STATES if kind != "mean:16_8_4"]
    lines = []
    for row in rows:
        for name in ("winnow", "hip_attn"):
            if any(f"{name}/{kind}" in row["contenders"] for kind, _ in kinds):
                lines.append([f"{decode_shape(row)}: {name.replace('_', '-')}"] +
                             [cell(row, f"{name}/{kind}", 1, "us") for kind, _ in kinds])
    return table(["hip_3k decode step, us"] + [heading for _, heading in kinds], lines) if lines else ""


def benchmark_time(row):
    """Microseconds and the spread of the repetitions."""
    return f"{1000 * row['ms']:.1f} ±{row.get('cv_percent', 0):.1f} %" if "ms" in row else row.get("error", "-")


STEP = re.compile(r"\w+/sparse_decode/(\w+)/batch:(\d+)/([\w:]+)/hip_3k/(?:layers:(\d+)/)?((?:stages_cached|mean):\w+)")
DENSE_DECODE = re.compile(r"\w+/attend/dense_decode/(\w+)/batch:(\d+)/([\w:]+)(/fp8)?(?:/layers:(\d+))?")
RAGGED = re.compile(r"\w+/attend/ragged_decode/(\d+)x(\w+)_1x(\w+)/long_at:(\d+)/([\w:]+)")
EMPTY_GRAPH = re.compile(r"\w+/attend/empty_graph/kernels:(\d+)")
OWN_TABLES = (STEP, DENSE_DECODE, RAGGED, EMPTY_GRAPH)


def storage(text):
    return text.replace("page:", "pages of ")


def alone_or_layer(layers):
    return f"a layer of {layers} in one graph" if layers else "alone"


def step_table(rows):
    """Decode steps of the preset, alone and in a graph of many layers: one line a shape."""
    lines = {}
    for row in rows:
        if match := STEP.fullmatch(row["name"]):
            keys, batch, where, layers, state = match.groups()
            lines.setdefault(f"{keys}, batch {batch}, {storage(where)}; {alone_or_layer(layers)}", {})[state] = row
    states = [(state, heading) for state, heading in STEP_STATES if any(state in found for found in lines.values())]
    return table(["hip_3k decode step, us"] + [heading for _, heading in states] + ["dense"],
                 [[line] + [benchmark_time(found[state]) if state in found else "-" for state, _ in states] +
                  [next((f"{1000 * row['dense_ms']:.1f}" for row in found.values() if "dense_ms" in row), "-")]
                  for line, found in lines.items()])


def decode_rate_table(rows):
    """Dense decode, equal lengths and ragged, against the rate of a copy."""
    lines = []
    for row in rows:
        if match := DENSE_DECODE.fullmatch(row["name"]):
            keys, batch, where, fp8, layers = match.groups()
            line = f"{keys}, batch {batch}, {storage(where)}{', fp8' if fp8 else ''}; {alone_or_layer(layers)}"
        elif match := RAGGED.fullmatch(row["name"]):
            others, short, long, at, where = match.groups()
            line = f"{others} requests of {short} and one of {long}, number {at}; {storage(where)}"
        else:
            continue
        lines.append([line, benchmark_time(row)] + [f"{row[counter]:.{digits}f}" if counter in row else "" for
                                                    counter, digits in (("tb_per_s", 2), ("percent_of_copy", 0))])
    text = table(["dense decode", "us ± CV", "TB/s", "% of copy"], lines)
    for row in rows:
        if match := EMPTY_GRAPH.fullmatch(row["name"]):
            text += f"\nA graph of {match.group(1)} empty kernels in the same run: {benchmark_time(row)} (us).\n"
    return text


def benchmark_table(rows):
    counters = (("tflops", "TFLOP/s", 0), ("tb_per_s", "TB/s", 2), ("percent_of_copy", "% of copy", 0),
                ("keys_read", "keys a row", 0), ("dense_ms", "dense, ms", 3))

    def line(row):
        time = f"{row['ms']:.4g} ±{row.get('cv_percent', 0):.1f} %" if "ms" in row else row.get("error", "-")
        return [f"`{row['name'].partition('/')[2]}`", time] + [
            f"{row[counter]:.{digits}f}" if counter in row else "" for counter, _, digits in counters]

    return table(["benchmark", "ms ± CV"] + [heading for _, heading, _ in counters], [line(row) for row in rows])


def caption(result):
    return (f"{result['device']}, CUDA {result['cuda']}, PyTorch {result['torch']} (its SDPA backends are peers), "
            f"bf16, batch 1 unless it says so, random data, {result['date']}.")


def of_case(result, case):
    return [row for row in result.get("prefill", []) if row["case"] == case]


def readme_block(results):
    """The newest result's; the page on performance has all."""
    text = ""
    for result in results[:1]:
        dense, sparse = of_case(result, "dense"), of_case(result, "sparse")
        if dense:
            text += caption(result) + " Medians, ± half the spread.\n\n" + dense_table(dense) + "\n"
        if sparse:
            text += ("`sparse_prefill` with the hip_3k preset (at most 3328 keys a row, pruning included), in ms:\n\n" +
                     sparse_table(sparse) + "\n")
    return text + "Method, and what the numbers leave out: [performance](docs/performance.md).\n" if text else ""


def error_table(rows):
    names = [("winnow", "winnow"), *present(rows, DENSE_PEERS)]
    names = [(name, heading) for name, heading in names if any(name in row["relative_error"] for row in rows)]
    return table([""] + [heading for _, heading in names], [
        [shape(r)] + [f"{100 * r['relative_error'][name]:.3f} %" if name in r["relative_error"] else "-"
                      for name, _ in names] for r in rows])


def refusals(result):
    """Why peers are missing: one line each, the same reason once."""
    lines = [f"* {name}: not here ({reason})" for name, reason in result.get("missing", {}).items()]
    for row in result.get("prefill", []) + result.get("decode", []):
        for name, reason in row.get("refused", {}).items():
            lines.append(f"* {name.partition('/')[0]}, {shape(row)}: {reason}")
    return "".join(line.replace("\n", " ") + "\n" for line in dict.fromkeys(lines))


def performance_block(results):
    text = ""
    for result in results:
        text += f"### {result['device']}\n\n" + caption(result) + "\n\n"
        decode = result.get("decode", [])
        sections = (("", dense_table, of_case(result, "dense")), ("", full_table, of_case(result, "full")),
                    ("Pruning and attention together, hip_3k preset, ms:\n\n", sparse_table,
                     of_case(result, "sparse")),
                    ("The same for the last rows of a long context:\n\n", chunk_table, of_case(result, "chunk")),
                    ("Attention over random lists, one for all heads of 128 rows, ms:\n\n", listed_table,
                     of_case(result, "listed")),
                    ("Random lists of blocks of each size and over shuffled pages, in turn with dense attention:\n\n",
                     forms_table, of_case(result, "forms")),
                    ("Delta correction:\n\n", delta_table, of_case(result, "delta")),
                    ("Whole prompts through a cascading cache (4 sub-caches, scores and insertions included):\n\n",
                     cascade_table, of_case(result, "cascade")),
                    ("", dense_decode_table, decode),
                    ("Decode steps with stages of the preset reused:\n\n", sparse_decode_table, decode),
                    ("Relative error of the outputs that were timed, last 128 rows of four heads against fp64:\n\n",
                     error_table, of_case(result, "dense")))
        for lead, make, rows in sections:
            if rows and (made := make(rows)):
                text += lead + made + "\n"
        if result.get("benchmarks"):
            copy = f"{result['copy_tb_per_s']:.2f} TB/s"
            text += f"The operators' own benchmarks (a device copy in that run: {copy}):\n\n"
            rows = {pattern: [] for pattern in (*OWN_TABLES, None)}
            for row in result["benchmarks"]:
                rows[next((p for p in OWN_TABLES if p.fullmatch(row["name"])), None)].append(row)
            dense = rows[DENSE_DECODE] + rows[RAGGED] + rows[EMPTY_GRAPH]
            for make, found in ((step_table, rows[STEP]), (decode_rate_table, dense), (benchmark_table, rows[None])):
                if found:
                    text += make(found) + "\n"
        if why := refusals(result):
            text += "Not compared:\n\n" + why + "\n"
    return text


def record_block(record):
    """What tests/run_gpu.sh recorded, in a sentence."""
    if record is None:
        return "No run of the GPU tests is on record.\n"
    tools = ", ".join(f"{tool} over {record[tool]['cases']} small cases with {record[tool]['errors']} errors"
                      for tool in ("memcheck", "racecheck"))
    return (f"The GPU tests' last run, {record['date']} on one {record['device']} (CUDA {record['cuda']}): "
            f"{record['passed']} cases passed, {record['failed']} failed, {record['skipped']} skipped; {tools}. `python3 "
            "tests/support/tree_hash.py --check` says whether that was this tree, and so does the end of `tests/run.sh`.\n")


def self_test():
    """Every section of a synthetic result, whole and with parts missing."""
    times = {"ms": 2.0, "spread_percent": 1.0, "tflops": 300.0, "tflops_blocks": 310.0}
    base = {"tokens": 32768, "heads": 32, "kv_heads": 8, "head_dim": 128, "rounds": 9, "repeats": 1}
    dense = base | {"case": "dense", "relative_error": {"winnow": 0.002},
                    "refused": {"flashinfer": "RuntimeError: a\nb"},
                    "contenders": {"winnow": times, "cudnn": times | {"ms": 1.0}}}
    sparse = base | {"case": "sparse", "relative_error": {}, "refused": {}, "contenders": {
        "winnow_sparse_per_batch": times, "winnow_sparse_per_kv_group": times, "winnow": times, "hip_attn": times}}
    chunk = base | {"case": "chunk", "queries": 32768, "relative_error": {}, "refused": {}, "keys_read": 3328,
                    "contenders": {"winnow_sparse_per_batch": times, "winnow_dense": times}}
    listed = base | {"case": "listed", "budget": 2048, "block": 128, "relative_error": {}, "refused": {},
                     "keys_read": 1984.5,
                     "contenders": {"winnow": times, "flex_attention": times | {"ms": 3.0}, "winnow_dense": times}}
    full = dense | {"case": "full"}
    forms = base | {"case": "forms", "budget": 2048, "relative_error": {}, "refused": {}, "contenders": {
        "winnow/block:64": times, "winnow/block:64/page:16": times | {"tflops": 240.0}, "winnow_dense": times}}
    delta = base | {"case": "delta", "gamma": 64, "window": 2048, "sinks": 1024, "relative_error": {}, "refused": {},
                    "contenders": {"winnow_window": times, "winnow_delta": times | {"ms": 4.0},
                                   "cudnn": times | {"ms": 13.0}, "winnow_sparse_per_batch": times,
                                   "winnow_sparse_delta": times | {"ms": 2.4}}}
    decode = base | {"batch": 8, "relative_error": {}, "refused": {}, "keys_read": 3328, "contenders": {
        "winnow_dense": {"ms": 0.1, "spread_percent": 1.0, "tb_per_s": 2.5}, "winnow/stages_cached:0": {"ms": 0.05},
        "hip_attn/mean:32_16_8": {"ms": 0.07, "computed": True}}}
    result = {"device": "Device X", "torch": "2.11", "cuda": "13.0", "date": "2026-01-01",
              "missing": {"hip_attn": "no"}, "copy_tb_per_s": 3.0,
              "prefill": [dense, full, sparse, chunk, listed, forms, delta], "decode": [decode],
              "benchmarks": [{"name": "quick/merge/x", "ms": 0.01, "cv_percent": 0.4, "tb_per_s": 2.0},
                             {"name": "quick/merge/y", "error": "wrong output"}] + [
                  {"name": f"full/{name}", "ms": ms, "cv_percent": 0.2, "tb_per_s": 2.75, "percent_of_copy": 91.4}
                  for name, ms in (("sparse_decode/128k/batch:1/page:16/hip_3k/stages_cached:3", 0.0151),
                                   ("sparse_decode/128k/batch:1/page:16/hip_3k/layers:16/stages_cached:3", 0.0082),
                                   ("sparse_decode/128k/batch:1/page:16/hip_3k/layers:16/mean:32_16_8", 0.0122),
                                   ("attend/dense_decode/4k/batch:1/contiguous/layers:16", 0.0072),
                                   ("attend/dense_decode/128k/batch:1/page:64/fp8", 0.1013),
                                   ("attend/ragged_decode/63x2k_1x1M/long_at:32/packed", 1.7),
                                   ("attend/empty_graph/kernels:2", 0.0041))]}
    page, readme = performance_block([result]), readme_block([result])
    wanted = ["3.25 x", "| 20 % |", "0.50 x", "1.50 x", "2.00 ±0.5 % (300)", "2.00 ±0.5 % (310)", "50.0 ", "70.0",
              "100.0 ±0.5 % (2.50)", "1984", "without a mask", "| dense | 2.00 (300) |",
              "| blocks of 64 | 2.00 (300), 1.00 x |", "| blocks of 64, pages of 16 | 2.00 (240), 0.80 x |",
              "last 32k rows", "0.200 %", "hip_attn: not here (no)", "RuntimeError: a b", "wrong output", "`merge/x`", "0.4 %",
              "| 128k, batch 1, pages of 16; alone | 15.1 ±0.2 % | - | - |",
              "| 128k, batch 1, pages of 16; a layer of 16 in one graph | 8.2 ±0.2 % | 12.2 ±0.2 % | - |",
              "| 4k, batch 1, contiguous; a layer of 16 in one graph | 7.2 ±0.2 % | 2.75 | 91 |",
              "| 128k, batch 1, pages of 64, fp8; alone | 101.3 ",
              "| 63 requests of 2k and one of 1M, number 32; packed | 1700.0 ", "2 empty kernels in the same run: 4.1 "]
    wrong = [f"the page lacks {text!r}" for text in wanted if text not in page]
    wrong += [f"README lacks {text!r}" for text in ("0.50 x", "Device X", "hip-attn") if text not in readme]
    if "FlashAttention-2" in page or "FlashInfer" in readme:
        wrong.append("a peer that never ran has a column")
    parts = ("prefill", "decode", "benchmarks")
    for kept in parts:
        part = {key: value for key, value in result.items() if key not in parts or key == kept}
        performance_block([part]), readme_block([part])
    tool = {"programs": 1, "cases": 7, "errors": 0, "failed": 0}
    record = {"device": "Device X", "cuda": "13.0", "date": "2026-01-01", "passed": 90, "failed": 1, "skipped": 2,
              "memcheck": tool, "racecheck": tool | {"errors": 3}}
    if "90 cases passed, 1 failed, 2 skipped; memcheck over 7 small cases with 0 errors" not in record_block(record):
        wrong.append("the record of the GPU tests")
    if "No run" not in record_block(None):
        wrong.append("no record")
    if performance_block([]) or readme_block([]):
        wrong.append("no results, but text")
    print("\n".join(wrong) if wrong else "report.py: tables as expected")
    return 1 if wrong else 0


def main():
    if "--self-test" in sys.argv:
        sys.exit(self_test())
    files = sorted((ROOT / "bench" / "results").glob("*.json"))
    results = sorted((json.loads(file.read_text()) for file in files), key=lambda r: r["date"], reverse=True)
    if not results and "--check" in sys.argv:
        sys.exit("bench/results is empty: README.md and docs/performance.md measure nothing")
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else None
    stale = 0
    for name, mark, made in (("README.md", "measured", readme_block(results)),
                             ("README.md", "gpu-record", record_block(record)),
                             ("docs/performance.md", "measured", performance_block(results))):
        page = ROOT / name
        text = page.read_text()
        block = re.compile(rf"(<!-- {mark}:begin -->\n).*?(<!-- {mark}:end -->)", re.S)
        if not block.search(text):
            sys.exit(f"{name}: no {mark} block")
        fresh = block.sub(lambda m: m[1] + made + m[2], text)
        if fresh == text:
            continue
        if "--check" in sys.argv:
            print(f"{name}: the {mark} block is not what the results hold; run bench/report.py")
            stale = 1
        else:
            page.write_text(fresh)
    sys.exit(stale)


if __name__ == "__main__":
    main()
