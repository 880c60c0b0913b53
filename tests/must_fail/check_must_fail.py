#!/usr/bin/env python3
"""A misuse must not compile, and the compiler must say why.

    check_must_fail.py tests/must_fail/<case>.cpp|.cu

A case holds its misuse between #ifdef MUST_FAIL and #endif, and a line "// expect: <regular expression>". Without
MUST_FAIL it has to compile, so that it fails for the misuse alone; with it, the errors must match the expression.
"""
import argparse
import re
import shutil
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--include", default="include")
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "")
    args = parser.parse_args()
    with open(args.source, encoding="utf-8") as file:
        expected = re.search(r"^// expect: (.+)$", file.read(), re.M)
    if not expected:
        print("no '// expect: ...' line")
        return 1
    if args.source.endswith(".cu"):
        if not args.nvcc:
            print("skipped: no nvcc")
            return 77
        command = [args.nvcc, "-std=c++20", "-arch=sm_80", "-c", "-o", "/dev/null"]
    else:
        command = ["g++", "-std=c++20", "-Wall", "-Wextra", "-fsyntax-only"]
    command += ["-I", args.include, args.source]
    control = subprocess.run(command, capture_output=True, text=True)
    if control.returncode != 0:
        print("does not compile even without the misuse:\n" + control.stdout + control.stderr)
        return 1
    misuse = subprocess.run(command + ["-DMUST_FAIL"], capture_output=True, text=True)
    said = misuse.stdout + misuse.stderr
    if misuse.returncode == 0:
        print("the misuse compiles")
        return 1
    if not re.search(expected.group(1).strip(), said):
        print(f"the errors do not match '{expected.group(1)}':\n{said}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
