#!/usr/bin/env python3
"""Writes the measured tables of README.md and docs/performance.md from bench/results/*.json.

    report.py            rewrites the blocks between '<!-- measured:begin -->' and '<!-- measured:end -->'
    report.py --check    exit 1 where a block is not what the results say

A result file (bench/peers/prefill.py writes it) holds: device, torch, cuda, date, and `prefill`, a list of rows with case
("dense" or "sparse"), tokens, heads, kv_heads, head_dim, dtype, rounds, repeats (launches timed together), relative_error
per checked contender (last 128 rows of a few heads against fp64), and contenders: name -> ms (median over the rounds),
spread_percent ((slowest - fastest round) / median) and, where all keys are computed, tflops.
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- measured:begin -->\n).*?(<!-- measured:end -->)", re.S)


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def shape(row):
    return f"{row['tokens'] // 1024}k, head_dim {row['head_dim']}, {row['heads']}/{row['kv_heads']} heads"


def dense_table(rows):
    def cell(row, name):
        c = row["contenders"][name]
        return f"{c['ms']:.2f} ±{c['spread_percent'] / 2:.1f} % ({c['tflops']:.0f})"

    def ratio(row, peer):
        return f"{row['contenders'][peer]['ms'] / row['contenders']['winnow']['ms']:.2f} x"

    header = ["dense causal prefill", "winnow, ms (TFLOP/s)", "FlashAttention-2", "cuDNN", "speed / FlashAttention-2",
              "speed / cuDNN"]
    return table(header, [[shape(r), cell(r, "winnow"), cell(r, "flash_attention_2"), cell(r, "cudnn"),
                           ratio(r, "flash_attention_2"), ratio(r, "cudnn")] for r in rows])


def sparse_table(rows):
    def cell(row, name):
        c = row["contenders"][name]
        return f"{c['ms']:.1f} ±{c['spread_percent'] / 2:.1f} %"

    def density(row, budget=256 + 1024 + 2048):
        """Keys that the hip_3k preset reads, of those that the causal mask allows."""
        tokens = row["tokens"]
        read = sum(min(position + 1, budget) for position in range(tokens))
        return f"{100 * read / (tokens * (tokens + 1) / 2):.0f} %"

    header = ["causal prefill", "keys read", "winnow sparse, one list", "winnow sparse, list per KV head", "winnow dense",
              "FlashAttention-2", "cuDNN"]
    return table(header, [[shape(r), density(r)] + [cell(r, name) for name in (
        "winnow_sparse_per_batch", "winnow_sparse_per_kv_group", "winnow", "flash_attention_2", "cudnn")] for r in rows])


def caption(result):
    return (f"{result['device']}, CUDA {result['cuda']}, PyTorch {result['torch']} (its SDPA backends are the peers), bf16, "
            f"batch 1, random data, {result['date']}.")


def readme_block(results):
    text = ""
    for result in results:
        dense = [r for r in result["prefill"] if r["case"] == "dense"]
        sparse = [r for r in result["prefill"] if r["case"] == "sparse"]
        text += caption(result) + " Medians, ± half the spread.\n\n" + dense_table(dense) + "\n"
        if sparse:
            text += ("`sparse_prefill` with the hip_3k preset (at most 3328 keys a row, pruning included), in ms:\n\n" +
                     sparse_table(sparse) + "\n")
    return text + "Method, and what the numbers leave out: [performance](docs/performance.md).\n" if text else ""


def performance_block(results):
    text = ""
    for result in results:
        dense = [r for r in result["prefill"] if r["case"] == "dense"]
        sparse = [r for r in result["prefill"] if r["case"] == "sparse"]
        text += f"### {result['device']}\n\n" + caption(result) + "\n\n" + dense_table(dense) + "\n"
        if sparse:
            text += "Pruning and attention together, hip_3k preset, ms:\n\n" + sparse_table(sparse) + "\n"
        text += "Relative error of the outputs that were timed, last 128 rows of four heads against fp64:\n\n"
        names = ("winnow", "flash_attention_2")
        text += table(["", "winnow", "FlashAttention-2"], [
            [shape(r)] + [f"{100 * r['relative_error'][name]:.3f} %" for name in names] for r in dense])
    return text


def main():
    files = sorted((ROOT / "bench" / "results").glob("*.json"))
    results = [json.loads(file.read_text()) for file in files]
    stale = 0
    for name, block in (("README.md", readme_block), ("docs/performance.md", performance_block)):
        page = ROOT / name
        text = page.read_text()
        if not BLOCK.search(text):
            sys.exit(f"{name}: no measured block")
        fresh = BLOCK.sub(lambda m: m[1] + block(results) + m[2], text)
        if fresh == text:
            continue
        if "--check" in sys.argv:
            print(f"{name}: the measured block is not what bench/results holds; run bench/report.py")
            stale = 1
        else:
            page.write_text(fresh)
    sys.exit(stale)


if __name__ == "__main__":
    main()
