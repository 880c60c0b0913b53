#!/usr/bin/env python3
"""Compares two builds of a Google Benchmark program: which benchmarks became faster or slower, beyond the noise.

    compare.py A B [--filter REGEX] [--rounds 7] [--floor 0.5] [--json FILE]
    compare.py --self-test

A and B are programs; the same one twice is an A/A run. Every round runs A B B A, so that a drift of the clock hits both
sides alike. Of a round count the ratio B/A (geometric means of two runs each) and, as noise, the ratio of each side's
own two runs. The median ratio has an order-statistics interval of at least 93 %. With the noise floor = the median
noise, but at least --floor percent, a benchmark is

    faster, slower  if the interval lies outside the floor
    same            if it lies inside
    unclear         otherwise: more --rounds may tell

Exit code: 0 nothing slower, 1 something slower, 2 a benchmark failed or is in one program only, 77 there is no device.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
NO_DEVICE = 77


def times_of(document):
    """Benchmark -> seconds (median over the repetitions of one run), and benchmark -> message of those that failed."""
    samples, failed = {}, {}
    for entry in document["benchmarks"]:
        name = entry.get("run_name", entry["name"])
        if entry.get("error_occurred"):
            failed[name] = entry.get("error_message", "failed")
        elif entry.get("run_type", "iteration") == "iteration":
            samples.setdefault(name, []).append(entry["real_time"] * UNITS[entry.get("time_unit", "ns")])
    return {name: statistics.median(s) for name, s in samples.items() if name not in failed}, failed


def interval(values, coverage=0.93):
    """Distribution-free interval of the median: the narrowest pair of order statistics that covers it."""
    values, n = sorted(values), len(values)
    drop, outside = 0, 2 * 0.5**n  # outside: the chance that the median lies beyond [drop], [n - 1 - drop]
    while drop + 1 < (n + 1) // 2:
        more = outside + 2 * math.comb(n, drop + 1) * 0.5**n
        if 1 - more < coverage:
            break
        drop, outside = drop + 1, more
    return values[drop], values[n - 1 - drop]


def judge(rounds, floor):
    """One benchmark. `rounds`: (A, B, B, A) in seconds; `floor`: smallest change that counts, as a fraction."""
    ratios = [0.5 * (math.log(b1) + math.log(b2) - math.log(a1) - math.log(a2)) for a1, b1, b2, a2 in rounds]
    noise = [max(abs(math.log(a2 / a1)), abs(math.log(b2 / b1))) for a1, b1, b2, a2 in rounds]
    limit = max(statistics.median(noise), math.log1p(floor))
    low, high = interval(ratios)
    if len(rounds) < 4:  # no interval of few rounds deserves the name
        verdict = "unclear"
    elif low > limit:
        verdict = "slower"
    elif high < -limit:
        verdict = "faster"
    elif -limit <= low and high <= limit:
        verdict = "same"
    else:
        verdict = "unclear"
    return {"a": statistics.median([t for r in rounds for t in (r[0], r[3])]),
            "b": statistics.median([t for r in rounds for t in (r[1], r[2])]),
            "ratio": math.exp(statistics.median(ratios)), "low": math.exp(low), "high": math.exp(high),
            "floor": math.expm1(limit), "verdict": verdict}


def compare(rounds, floor):
    """Verdict per benchmark. `rounds`: four Google Benchmark documents each, of A B B A."""
    runs = [[times_of(document) for document in documents] for documents in rounds]
    names = list(dict.fromkeys(name for documents in runs for times, failed in documents for name in [*times, *failed]))
    result = {}
    for name in names:
        message = next((failed[name] for documents in runs for _, failed in documents if name in failed), None)
        if message is not None:
            result[name] = {"verdict": "failed", "message": message}
        elif not all(name in times for documents in runs for times, _ in documents):
            result[name] = {"verdict": "missing", "message": "not in every run"}
        else:
            result[name] = judge([[times[name] for times, _ in documents] for documents in runs], floor)
    return result


def exit_code(result):
    verdicts = {row["verdict"] for row in result.values()}
    if verdicts & {"failed", "missing"} or not verdicts:
        return 2
    return 1 if "slower" in verdicts else 0


def seconds_text(seconds):
    unit = next(u for u in ("s", "ms", "us", "ns") if seconds >= UNITS[u] or u == "ns")
    return f"{seconds / UNITS[unit]:.4g} {unit}"


def table(result):
    width = max([len(name) for name in result] + [9])
    lines = [f"{'benchmark':{width}}  {'A':>10}  {'B':>10}  {'B / A':>6}  {'interval':>15}  {'floor':>7}  verdict"]
    for name, row in result.items():
        if "ratio" not in row:
            lines.append(f"{name:{width}}  {row['verdict']}: {row['message']}")
            continue
        span = f"{row['low']:.3f} .. {row['high']:.3f}"
        a, b = seconds_text(row["a"]), seconds_text(row["b"])
        lines.append(f"{name:{width}}  {a:>10}  {b:>10}  {row['ratio']:6.3f}  {span:>15}  "
                     f"{100 * row['floor']:5.1f} %  {row['verdict']}")
    return "\n".join(lines)


def run_once(program, pattern, folder):
    output = pathlib.Path(folder) / "run.json"
    output.unlink(missing_ok=True)
    command = [program, f"--benchmark_out={output}", "--benchmark_out_format=json", "--benchmark_repetitions=1"]
    if pattern:
        command.append(f"--benchmark_filter={pattern}")
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode == NO_DEVICE:
        print(done.stderr.strip() or "skipped: there is no device")
        sys.exit(NO_DEVICE)
    try:
        return json.loads(output.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{program} wrote no results ({error}):\n{done.stderr}")


def run_rounds(a, b, pattern, rounds):
    documents = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(rounds):
            print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)
            documents.append([run_once(program, pattern, folder) for program in (a, b, b, a)])
    return documents


# --- Self-test: synthetic runs with known answers --------------------------------------------------------------------


def document(times, unit="us", failed=(), repetitions=1):
    entries = []
    for name, time in times.items():
        for index in range(repetitions):
            entries.append({"name": name, "run_name": name, "run_type": "iteration", "repetition_index": index,
                            "real_time": time, "time_unit": unit})
        if repetitions > 1:  # aggregates must not count as times
            entries.append({"name": name + "_median", "run_name": name, "run_type": "aggregate",
                            "aggregate_name": "median", "real_time": 1e9, "time_unit": unit})
    entries += [{"name": name, "run_name": name, "run_type": "iteration", "error_occurred": True,
                 "error_message": "wrong output"} for name in failed]
    return {"context": {}, "benchmarks": entries}


def synthetic(change, noise, rounds=7, drift=0.0, seed=1):
    """`rounds` of A B B A: B takes `change` times as long, every run is off by up to `noise`, the clock drifts."""
    import random
    draw = random.Random(seed)
    result, clock = [], 1.0
    for _ in range(rounds):
        row = []
        for scale in (1.0, change, change, 1.0):
            clock *= 1 + drift
            row.append(document({"x": 100 * scale * clock * math.exp(draw.uniform(-noise, noise))}))
        result.append(row)
    return result


def self_test():
    def verdict(*arguments, floor=0.005, **options):
        return compare(synthetic(*arguments, **options), floor)["x"]["verdict"]

    seeds = range(1, 101)
    expectations = [  # verdict, change of B, noise of a run, options; in at least 95 of 100 draws
        ("same", 1.0, 0.001, {}),
        ("slower", 1.05, 0.002, {}),
        ("faster", 0.95, 0.002, {}),
        ("slower", 1.05, 0.002, {"drift": 0.001}),
        ("faster", 0.95, 0.002, {"drift": -0.001}),
        ("same", 1.0, 0.001, {"drift": 0.002, "floor": 0.01}),
        ("same", 1.002, 0.001, {"floor": 0.01}),
        ("unclear", 1.05, 0.002, {"rounds": 3}),
    ]
    wrong = []
    for expected, change, noise, options in expectations:
        found = [verdict(change, noise, seed=seed, **options) for seed in seeds]
        if found.count(expected) < 95:
            wrong.append(f"change {change}, noise {noise}, {options}: {found.count(expected)} of 100 are {expected}")
    # Noise of 10 % never lets 1 % pass as a change in more than a few draws, in either direction.
    found = [verdict(1.01, 0.10, seed=seed) for seed in seeds]
    if found.count("slower") + found.count("faster") > 5:
        wrong.append(f"noise of 10 % gave {found.count('slower')} slower, {found.count('faster')} faster")

    def expect(condition, what):
        if not condition:
            wrong.append(what)

    expect(interval([5, 1, 4, 2, 3]) == (1, 5), "interval of 5")
    expect(interval(list(range(11))) == (2, 8), "interval of 11")  # 93.5 %
    expect(times_of(document({"x": 3}, unit="ms", repetitions=3)) == ({"x": 0.003}, {}), "repetitions and units")
    one = [[document({"x": 1})] * 4] * 5
    expect(exit_code(compare(one, 0.005)) == 0, "exit code of same")
    expect(exit_code(compare(synthetic(1.05, 0.002), 0.005)) == 1, "exit code of slower")
    expect(exit_code(compare(synthetic(0.95, 0.002), 0.005)) == 0, "exit code of faster")
    good, only_y = document({"x": 1}), document({"y": 1})
    broken = compare([[good, document({}, failed=["x"]), good, good]] * 5, 0.005)
    expect(broken["x"] == {"verdict": "failed", "message": "wrong output"}, "failed benchmark")
    expect(exit_code(broken) == 2, "exit code of failed")
    lonely = compare([[good, only_y, only_y, good]] * 5, 0.005)
    expect({row["verdict"] for row in lonely.values()} == {"missing"} and len(lonely) == 2, "missing benchmarks")
    expect(exit_code(lonely) == 2, "exit code of missing")
    expect(exit_code(compare([[document({})] * 4], 0.005)) == 2, "exit code of nothing")
    expect("slower" in table(compare(synthetic(1.05, 0.002), 0.005)) and "wrong output" in table(broken), "table")
    wrong += test_programs()
    print("\n".join(wrong) if wrong else "compare.py: all verdicts as expected")
    return 1 if wrong else 0


def test_programs():
    """The order of runs, the filter and the exit codes, with programs that only write a time."""
    wrong = []
    fake = """#!{python}
import json, sys
options = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
open({log!r}, "a").write({letter!r} + options.get("benchmark_filter", "") + " ")
if {letter!r} == "N":
    sys.exit(77)
result = {{"benchmarks": [{{"name": "x", "real_time": {time}, "time_unit": "us"}}]}}
json.dump(result, open(options["benchmark_out"], "w"))
"""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"

        def program(letter, time):
            path = pathlib.Path(folder) / letter
            path.write_text(fake.format(python=sys.executable, log=str(log), letter=letter, time=time))
            path.chmod(0o755)
            return str(path)

        def run(*arguments):
            done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
            return done.returncode, done.stdout

        a, b, n = program("A", 10.0), program("B", 11.0), program("N", 0)
        code, text = run(a, b, "--rounds", "4", "--filter", "quick/")
        if code != 1 or "slower" not in text:
            wrong.append(f"two programs: exit code {code}\n{text}")
        if log.read_text() != "Aquick/ Bquick/ Bquick/ Aquick/ " * 4:
            wrong.append(f"order of runs: {log.read_text()}")
        if run(b, a, "--rounds", "4")[0] != 0 or run(a, a, "--rounds", "4")[0] != 0:
            wrong.append("exit code of a faster program or of A/A")
        if run(a, n)[0] != NO_DEVICE:
            wrong.append("exit code without a device")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", nargs="?")
    parser.add_argument("b", nargs="?")
    parser.add_argument("--filter", default="", help="as --benchmark_filter")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--floor", type=float, default=0.5, help="smallest change that counts, in percent")
    parser.add_argument("--json", help="also writes the verdicts to a file")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if not arguments.a or not arguments.b or arguments.rounds < 1:
        parser.error("two programs and at least one round are needed")
    result = compare(run_rounds(arguments.a, arguments.b, arguments.filter, arguments.rounds), arguments.floor / 100)
    print(table(result))
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    return exit_code(result)


if __name__ == "__main__":
    sys.exit(main())
