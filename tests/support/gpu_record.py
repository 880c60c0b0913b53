#!/usr/bin/env python3
"""Runs every GPU test program, then its [small] cases under compute-sanitizer, and writes tests/gpu_record.json.

    gpu_record.py --build build/gpu [--only REGEX] [--no-sanitizer]

Goes on past failures. Exit 1 if anything failed, 77 without a device. With --only or --no-sanitizer nothing is recorded:
the record stands for the whole suite.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

import tree_hash

TOOLS = ("memcheck", "racecheck")
PROGRAM_SECONDS, SANITIZER_SECONDS = 900, 900
AT_A_TIME = 6
NO_DEVICE = 77


def read_cases(path):
    """(passed, failed names, skipped) from Catch2's XML, of version 2 or 3; a crash leaves it cut off."""
    passed, failed, skipped, begun, over = 0, [], 0, None, True
    try:
        for event, node in xml.iterparse(path, events=("start", "end")):
            if node.tag == "TestCase":
                begun, over = node.get("name"), event == "end"
            elif node.tag == "OverallResult" and event == "end":
                if node.get("success") != "true":
                    failed.append(begun)
                elif int(node.get("skips", 0)) > 0:
                    skipped += 1
                else:
                    passed += 1
    except (OSError, xml.ParseError):
        over = False
    if not over:
        failed.append(f"broke off in '{begun}'" if begun else "broke off before the first case")
    return passed, failed, skipped


def run(command, log, seconds):
    """Runs a command with its output in a file; returns (exit code, seconds); 124 is out of time."""
    begin = time.monotonic()
    with open(log, "w", encoding="utf-8") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            code = 124
    return code, time.monotonic() - begin


def run_program(program, out, wrapper=(), spec=(), seconds=PROGRAM_SECONDS):
    """One test program, bare or under a sanitizer. Returns its counts, failures and time."""
    name = os.path.basename(out)
    results = out + ".xml"
    if os.path.exists(results):
        os.remove(results)
    code, took = run([*wrapper, program, *spec, "-r", "xml", "-o", results], out + ".log", seconds)
    passed, failed, skipped = read_cases(results)
    with open(out + ".log", encoding="utf-8", errors="replace") as file:
        log = file.read()
    errors = sum(int(n) for n in re.findall(r"ERROR SUMMARY: (\d+) error", log))
    errors += sum(int(n) for n in re.findall(r"RACECHECK SUMMARY: (\d+) hazard", log))
    if wrapper and "SUMMARY" not in log:
        failed.append("the sanitizer gave no summary")  # it could not start, say
    if wrapper and passed + skipped == 0 and code != 124 and not errors and "broke off" not in "".join(failed):
        failed = [f for f in failed if "summary" in f]  # no case is [small]: Catch2 3 calls that an error, 2 does not
    elif code not in (0, NO_DEVICE) and not failed:
        failed.append(f"exit code {code}")
    if code == 124:
        failed.append(f"out of time ({seconds} s)")
    if code == NO_DEVICE and not wrapper:
        failed = []
    return {"name": name, "code": code, "passed": passed, "failed": failed, "skipped": skipped, "errors": errors,
            "seconds": took, "log": log}


def first_word(command, pattern):
    try:
        found = re.search(pattern, subprocess.run(command, capture_output=True, text=True).stdout)
        return found.group(1).strip() if found else "unknown"
    except OSError:
        return "unknown"


def report(label, result):
    bad = result["failed"] or result["errors"]
    print(f"{'FAIL' if bad else 'ok  '} {label:10} {result['name']:44} {result['passed']:4} passed "
          f"{len(result['failed']):3} failed {result['errors']:3} errors {result['seconds']:6.1f} s", flush=True)
    for name in result["failed"]:
        print(f"     {name}")
    if bad:
        print("\n".join("     | " + line for line in result["log"].splitlines()[-25:]), flush=True)


def by_size(names):
    """The programs with the longest sources first, which run longest."""
    def size(name):
        source = os.path.join(tree_hash.ROOT, "tests", name.removeprefix("gpu_").replace("_", "/", 1) + ".cu")
        return os.path.getsize(source) if os.path.exists(source) else 0
    return sorted(names, key=size, reverse=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/gpu")
    parser.add_argument("--only", default="")
    parser.add_argument("--no-sanitizer", action="store_true")
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    out = os.path.join(build, "gpu_record")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(build, "tests/gpu_programs.txt"), encoding="utf-8") as file:
        names = [name for name in file.read().split() if re.search(args.only, name)]
    hash_before = tree_hash.tree_hash()

    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"

    def check(tool, name):
        """A program by itself (tool "run"), or its [small] cases under a sanitizer."""
        program, wrapper, spec, seconds = os.path.join(build, "tests", name), (), (), PROGRAM_SECONDS
        label = os.path.join(out, name if tool == "run" else f"{name}.{tool}")
        if tool != "run":
            wrapper = ("env", f"WINNOW_SANITIZER={tool}", sanitizer, "--tool", tool, "--error-exitcode", "1")
            spec = ("[small]",)
            seconds = SANITIZER_SECONDS
        try:
            return run_program(program, label, wrapper, spec, seconds)
        except OSError as error:  # not built, or no sanitizer
            return {"name": os.path.basename(label), "code": 1, "passed": 0, "failed": [str(error)], "skipped": 0,
                    "errors": 0, "seconds": 0.0, "log": ""}

    # Several at a time: programs spend most of their time on the processor, on the reference or on instrumenting.
    tools = ("run",) if args.no_sanitizer else ("run", *TOOLS)
    found = {}
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        started = {(tool, name): pool.submit(check, tool, name) for tool in tools for name in by_size(names)}
        for tool in tools:
            found[tool] = [started[tool, name].result() for name in names]
            if any(result["code"] == NO_DEVICE for result in found[tool]):
                pool.shutdown(cancel_futures=True)
                print("skipped: no device")
                return NO_DEVICE
            for result in found[tool]:
                report(tool, result)
    results = found.pop("run")
    sanitized = {tool: {"programs": len(of_tool), "cases": sum(r["passed"] + len(r["failed"]) for r in of_tool),
                        "errors": sum(r["errors"] for r in of_tool), "failed": sum(len(r["failed"]) for r in of_tool)}
                 for tool, of_tool in found.items()}

    record = {
        "tree_hash": hash_before,
        "device": first_word(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], r"(.+)"),
        "driver": first_word(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], r"(.+)"),
        "cuda": first_word([shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc", "--version"], r"V([\d.]+)"),
        "passed": sum(r["passed"] for r in results),
        "failed": sum(len(r["failed"]) for r in results),
        "skipped": sum(r["skipped"] for r in results),
        **sanitized,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }
    # A sanitizer that looked at no case has shown nothing.
    bad = record["failed"] or not record["passed"] or any(
        t["errors"] or t["failed"] or not t["cases"] for t in sanitized.values())
    print(f"\n{record['device']}, driver {record['driver']}, CUDA {record['cuda']}")
    print(f"{'':10} {'passed':>7} {'failed':>7} {'errors':>7}")
    print(f"{'run':10} {record['passed']:7} {record['failed']:7} {'':>7}")
    for tool, t in sanitized.items():
        print(f"{tool:10} {t['cases'] - t['failed']:7} {t['failed']:7} {t['errors']:7}"
              + ("  no [small] case ran" if not t["cases"] else ""))
    if args.only or args.no_sanitizer:
        print("not recorded: only a part of the suite ran")
    elif tree_hash.tree_hash() != hash_before:
        print("not recorded: include/ or tests/ changed during the run")
        bad = True
    else:
        with open(os.path.join(tree_hash.ROOT, tree_hash.RECORD), "w", encoding="utf-8") as file:
            file.write(json.dumps(record, indent=4) + "\n")
        print(f"wrote {tree_hash.RECORD}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
