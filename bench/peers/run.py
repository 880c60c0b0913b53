#!/usr/bin/env python3
"""Measures winnow beside its peers on this machine's GPU: one command for everything that docs/performance.md shows.

    python3 bench/peers/run.py              builds, checks, measures, writes bench/results/<device>.json and the tables
    python3 bench/peers/run.py --only decode --decode-tokens 131072
    python3 bench/peers/run.py --list       which peers can run here, and why the others cannot; needs no GPU

Needs a CUDA GPU, nvcc, PyTorch, and for the operators' own benchmarks CMake and Google Benchmark. FlashInfer, hip-attn
and the code of Delta Attention are compared where they are installed. bench/results/README.md documents what is written.
"""
import argparse
import datetime
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ("prefill", "decode", "benchmarks")


def file_name(device):
    """NVIDIA H100 80GB HBM3 -> h100_80gb_hbm3."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower().removeprefix("nvidia ")).strip("_")


def build_benchmarks(folder, architecture):
    number = f"{architecture[0]}{architecture[1]}" + ("a" if architecture[0] >= 9 else "")
    subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", "-DWINNOW_CUDA=ON",
                    "-DWINNOW_BUILD_TESTS=OFF", "-DWINNOW_BUILD_EXAMPLES=OFF", "-DWINNOW_BUILD_BENCH=ON",
                    f"-DWINNOW_CUDA_ARCHITECTURES={number}-real"], check=True)
    subprocess.run(["cmake", "--build", str(folder), "--parallel"], check=True)


def benchmark_rows(document):
    """Medians of a Google Benchmark document, one row a benchmark."""
    to_ms = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}
    known = ("tflops", "tflops_blocks", "tb_per_s", "percent_of_copy", "keys_read", "dense_ms")
    found = {}
    for entry in document["benchmarks"]:
        name = re.sub(r"/(manual_time|iterations:\d+|repeats:\d+)", "", entry.get("run_name", entry["name"]))
        row = found.setdefault(name, {"name": name})
        if entry.get("error_occurred"):
            row["error"] = entry.get("error_message", "failed")
        elif entry.get("aggregate_name") == "median":
            row["ms"] = entry["real_time"] * to_ms[entry["time_unit"]]
            row |= {counter: entry[counter] for counter in known if counter in entry}
        elif entry.get("aggregate_name") == "cv":
            row["cv_percent"] = 100 * entry["real_time"]
    return list(found.values())


def run_benchmarks(folder, pattern):
    rows, context = [], {}
    programs = sorted(path for path in pathlib.Path(folder).glob("bench/bench_*") if path.is_file())
    if not programs:
        raise RuntimeError(f"there is no bench/bench_* in {folder}; is Google Benchmark installed?")
    for program in programs:
        with tempfile.TemporaryDirectory() as scratch:
            output = pathlib.Path(scratch) / "out.json"
            done = subprocess.run([str(program), f"--benchmark_filter={pattern}", f"--benchmark_out={output}",
                                   "--benchmark_out_format=json"])
            if not output.is_file():
                raise RuntimeError(f"{program.name} ended with {done.returncode} and wrote nothing")
            document = json.loads(output.read_text())
        context = document["context"]
        rows += benchmark_rows(document)
    return rows, float(context.get("copy_tb_per_s", 0))


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", dest="built_library", help="a built libwinnow.so; default: builds one")
    parser.add_argument("--bench-build", help="a CMake build folder with bench/bench_*; default: builds one")
    parser.add_argument("--bench-filter", default="quick/", help="which of the operators' own benchmarks; '.' for all")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--dense-tokens", type=int, nargs="*", default=[8192, 16384, 32768])
    parser.add_argument("--full-tokens", type=int, nargs="*", default=[16384], help="without a causal mask")
    parser.add_argument("--sparse-tokens", type=int, nargs="*", default=[32768, 131072])
    parser.add_argument("--listed-tokens", type=int, nargs="*", default=[32768, 131072])
    parser.add_argument("--chunk-tokens", type=int, nargs="*", default=[131072, 1048576])
    parser.add_argument("--delta-tokens", type=int, nargs="*", default=[32768, 131072])
    parser.add_argument("--cascade-tokens", type=int, nargs="*", default=[131072, 1048576])
    parser.add_argument("--decode-tokens", type=int, nargs="*", default=[32768, 131072, 1048576])
    parser.add_argument("--decode-batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--head-dims", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", help="default: bench/results/<device>.json; parts not in --only are kept")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args(argv)


def describe(row):
    keys = ("case", "queries", "tokens", "batch", "head_dim", "budget")
    shape = " ".join(f"{key} {row[key]}" for key in keys if key in row)
    times = ", ".join(f"{name} {c['ms']:.4g} ms" for name, c in row["contenders"].items())
    return f"{shape}: {times}" + "".join(f"\n  refused {name}: {why}" for name, why in row["refused"].items())


def main():
    arguments = parse()
    try:
        import torch
    except ImportError as error:
        print(f"skipped: {error}")
        return 77
    import contenders
    found, missing = contenders.load()
    if arguments.list:
        print("\n".join([f"{module.NAME}: here" for module in found] + [f"{n}: {why}" for n, why in missing.items()]))
        return 0
    if not torch.cuda.is_available():
        print("skipped: there is no CUDA device")
        return 77
    import decode
    import prefill
    import winnow_adapter

    device, architecture = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    output = pathlib.Path(arguments.output or ROOT / "bench" / "results" / f"{file_name(device)}.json")
    record = json.loads(output.read_text()) if output.is_file() else {}
    record |= {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda,
               "date": datetime.date.today().isoformat(), "missing": missing}
    build = ROOT / "build" / "peers"
    build.mkdir(parents=True, exist_ok=True)

    def save():  # after every row: a run takes long, and a crash must not cost it all
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(record, indent=1) + "\n")

    if set(arguments.only) & {"prefill", "decode"}:
        library = arguments.built_library or winnow_adapter.build(build / "library", architecture)
        winnow = winnow_adapter.Winnow(pathlib.Path(library).resolve())
        for part, module in (("prefill", prefill), ("decode", decode)):
            if part not in arguments.only:
                continue
            record[part] = []
            for row in module.rows(winnow, found, arguments):
                print(describe(row), flush=True)
                record[part].append(row)
                save()
    if "benchmarks" in arguments.only:
        folder = arguments.bench_build
        if folder is None:
            folder = build / "bench"
            build_benchmarks(folder, architecture)
        record["benchmarks"], record["copy_tb_per_s"] = run_benchmarks(folder, arguments.bench_filter)
        save()
    if not arguments.output:
        subprocess.run([sys.executable, str(ROOT / "bench" / "report.py")], check=True)
    print(f"wrote {output}")
    return 1 if any("error" in row for row in record.get("benchmarks", [])) else 0


if __name__ == "__main__":
    sys.exit(main())
