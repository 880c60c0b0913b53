#!/usr/bin/env python3
"""Compiles every header alone, included twice.

    compile_headers.py hpp_gxx | hpp_clangxx      .hpp: no CUDA, no exceptions, no RTTI, no warnings
    compile_headers.py cuh_nvcc                   .cuh: nvcc, sm_80 and sm_90a
    compile_headers.py umbrella_is_inert          winnow.cuh alone brings no kernel into the program

Exit code 77: the compiler is not here. Each kind first compiles a header that must not pass.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HOST_FLAGS = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti"]
# No --expt-relaxed-constexpr and no --extended-lambda: a user's build need not have them.
CUDA_FLAGS = ["-std=c++20", "-c", "-Xcompiler=-Wall,-Wextra,-Werror", "-Werror=all-warnings",
              "-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90a,code=sm_90a"]


def find(compiler):
    path = shutil.which(compiler) if compiler else None
    if not path:
        print(f"skipped: no {compiler or 'nvcc'}")
        sys.exit(77)
    return path


def compile_text(command, suffix, text, folder, name):
    """Compiles text; returns (ok, output, seconds)."""
    stem = os.path.join(folder, re.sub(r"\W", "_", name))
    with open(stem + suffix, "w", encoding="utf-8") as file:
        file.write(text)
    output = [] if "-fsyntax-only" in command else ["-o", stem + ".out"]
    begin = time.monotonic()
    done = subprocess.run(command + [stem + suffix] + output, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr, time.monotonic() - begin


def check_headers(include, extension, command, suffix, jobs):
    headers = sorted(os.path.relpath(os.path.join(folder, name), include)
                     for folder, _, names in os.walk(os.path.join(include, "winnow")) for name in names
                     if name.endswith(extension))
    if not headers:
        print(f"there is no {extension} in {include}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        # A check that cannot fail is no check: a missing header and a warning must both be errors.
        for name, text in {"missing": "#include <winnow/no_such_header.hpp>\n",
                           "warning": "static int f() { int unused; return 1; }\nint g() { return f(); }\n"}.items():
            if compile_text(command, suffix, text, folder, name)[0]:
                print(f"the control '{name}' compiled, so this test shows nothing: {' '.join(command)}")
                return 1

        def one(header):
            line = f"#include <{header}>\n"
            return header, compile_text(command, suffix, line * 2, folder, header)

        failed = 0
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for header, (ok, output, seconds) in pool.map(one, headers):
                print(f"{'ok  ' if ok else 'FAIL'} {seconds:5.1f} s  {header}")
                if not ok:
                    failed += 1
                    print("\n".join(output.splitlines()[:40]))
    print(f"{len(headers)} headers, {failed} failed")
    return 1 if failed else 0


def check_umbrella(include, nvcc):
    """PTX lists a kernel as '.entry': winnow.cuh gives none, and a file with a kernel gives one."""
    command = [nvcc, "-std=c++20", "-ptx", "-arch=sm_90a", "-I", include]
    umbrella = "#include <winnow/winnow.cuh>\n"
    with tempfile.TemporaryDirectory() as folder:
        for name, text, wanted in (("umbrella", umbrella, False),
                                   ("control", umbrella + "__global__ void k(int* p) { *p = 1; }\n", True)):
            ok, output, _ = compile_text(command, ".cu", text, folder, name)
            if not ok:
                print(output)
                return 1
            with open(os.path.join(folder, name + ".out"), encoding="utf-8") as file:
                entries = [line for line in file.read().splitlines() if ".entry" in line]
            print(f"{name}: {len(entries)} kernels")
            if bool(entries) != wanted:
                print("\n".join(entries))
                return 1
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["hpp_gxx", "hpp_clangxx", "cuh_nvcc", "umbrella_is_inert"])
    parser.add_argument("--include", default="include")
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    args = parser.parse_args()
    if args.kind == "umbrella_is_inert":
        return check_umbrella(args.include, find(args.nvcc))
    if args.kind == "cuh_nvcc":
        command = [find(args.nvcc)] + CUDA_FLAGS
        return check_headers(args.include, ".cuh", command + ["-I", args.include], ".cu", args.jobs)
    compiler = find({"hpp_gxx": "g++", "hpp_clangxx": "clang++"}[args.kind])
    return check_headers(args.include, ".hpp", [compiler] + HOST_FLAGS + ["-I", args.include], ".cpp", args.jobs)


if __name__ == "__main__":
    sys.exit(main())
