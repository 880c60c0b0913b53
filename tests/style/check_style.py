#!/usr/bin/env python3
"""Mechanical checks of the source, one tool each; exit code 77 where the tool is missing.

    check_style.py format     every C++ and CUDA file is as clang-format 14 leaves it (versions differ; others are skipped)
    check_style.py tidy       clang-tidy with .clang-tidy on all headers that need no CUDA
    check_style.py comments   Doxygen: every public symbol of core/, op/ and reference/ has a comment
    check_style.py tree       what git tracks: nothing at the top level that does not belong there, no file over 4 MiB
    check_style.py --self-test   each check finds what is planted
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FORMAT_VERSION = "14"
PUBLIC = ("core", "op", "reference")
TOP_LEVEL = {"CMakeLists.txt", "include", "examples", "tests", "bench", "docs", "LICENSE", "README.md", "CMakePresets.json",
             ".clang-format", ".clang-tidy", ".gitattributes", ".gitignore", ".ci"}
LARGEST = 4 << 20
DOXYFILE = """
QUIET = YES
RECURSIVE = YES
FILE_PATTERNS = *.hpp *.cuh
EXTENSION_MAPPING = cuh=C++
GENERATE_HTML = NO
GENERATE_LATEX = NO
GENERATE_XML = YES
XML_PROGRAMLISTING = NO
WARN_IF_UNDOCUMENTED = YES
WARN_NO_PARAMDOC = NO
MACRO_EXPANSION = YES
EXPAND_ONLY_PREDEF = YES
PREDEFINED = WINNOW_HOST_DEVICE= WINNOW_DEVICE=inline WINNOW_UNROLL= WINNOW_ROLLED= __global__=
EXCLUDE_SYMBOLS = winnow::detail
"""


def sources(root):
    return sorted(str(path) for top in ("include", "tests", "bench", "examples") for path in (root / top).rglob("*")
                  if path.suffix in (".hpp", ".cpp", ".cuh", ".cu", ".h", ".c"))


def needs(tool):
    if not shutil.which(tool):
        print(f"skipped: no {tool}")
        sys.exit(77)


def check_format(root):
    needs("clang-format")
    version = re.search(r"version (\d+)", subprocess.run(["clang-format", "--version"], capture_output=True, text=True).stdout)
    if not version or version.group(1) != FORMAT_VERSION:
        print(f"skipped: clang-format is not version {FORMAT_VERSION}")
        sys.exit(77)
    done = subprocess.run(["clang-format", "--style=file", "--dry-run", *sources(root)], cwd=root, capture_output=True, text=True)
    return sorted(set(re.findall(r"^(\S+:\d+):\d+: warning: code should be clang-formatted", done.stderr, re.M)))


def check_tidy(root):
    needs("clang-tidy")
    headers = [f"winnow/{folder}/{path.name}" for folder in ("core", "policy", "op", "reference", "tile")
               for path in sorted((root / "include/winnow" / folder).glob("*.hpp"))]
    with tempfile.TemporaryDirectory() as scratch:
        unit = pathlib.Path(scratch) / "headers.cpp"
        unit.write_text("".join(f"#include <{header}>\n" for header in headers))
        done = subprocess.run(["clang-tidy", "--quiet", f"--config-file={ROOT / '.clang-tidy'}", str(unit), "--", "-std=c++20",
                               f"-I{root / 'include'}"], capture_output=True, text=True)
    found = re.findall(r"^\S+:\d+:\d+: (?:warning|error): .*$", done.stdout, re.M)
    return sorted({line.replace(f"{root}/", "") for line in found}) or ([done.stderr] if done.returncode else [])


def check_comments(root):
    needs("doxygen")
    headers = root / "include/winnow"
    inputs = [str(headers / folder) for folder in PUBLIC if (headers / folder).is_dir()]
    inputs += [str(path) for path in headers.glob("*.*")]
    with tempfile.TemporaryDirectory() as scratch:
        settings = pathlib.Path(scratch) / "Doxyfile"
        settings.write_text(f"{DOXYFILE}\nOUTPUT_DIRECTORY = {scratch}\nINPUT = {' '.join(inputs)}\n")
        done = subprocess.run(["doxygen", str(settings)], capture_output=True, text=True)
    if done.returncode:
        return [done.stderr]
    return sorted(line.replace(str(headers) + "/", "") for line in done.stderr.splitlines() if "warning:" in line)


def check_tree(root):
    needs("git")
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        print("skipped: not a git checkout")
        sys.exit(77)
    paths = [path for path in listed.stdout.split("\0") if path and (root / path).is_file()]
    found = [f"{path}: does not belong at the top level" for path in paths if path.split("/")[0] not in TOP_LEVEL]
    return found + [f"{path}: {(root / path).stat().st_size} bytes" for path in paths
                    if (root / path).stat().st_size > LARGEST]


CHECKS = {"format": check_format, "tidy": check_tidy, "comments": check_comments, "tree": check_tree}
PLANTED = """/// A file.
#pragma once
/// Ours.
namespace winnow {
/// Documented.
struct documented {
    int a = 0;
};
int  undocumented(int x);
inline int loses(long long x, int* unused) { int y = 3; if (x) { return 1; } else { return y; } }
}  // namespace winnow
"""
EXPECTED = {"format": "planted.hpp:9", "tidy": "readability-else-after-return", "comments": "undocumented",
            "tree": "stray.bin: does not belong"}


def self_test():
    wrong, ran = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        (root / "include/winnow/core").mkdir(parents=True)
        (root / "include/winnow/core/planted.hpp").write_text(PLANTED)
        shutil.copy(ROOT / ".clang-format", root)
        (root / "stray.bin").write_bytes(b"")
        if shutil.which("git"):
            subprocess.run(["git", "init", "-q", scratch], check=True)
            subprocess.run(["git", "-C", scratch, "add", "-A"], check=True)
        for name, check in CHECKS.items():
            try:
                found = check(root)
            except SystemExit:
                continue
            ran += 1
            if not any(EXPECTED[name] in line for line in found):
                wrong.append(f"{name} did not find '{EXPECTED[name]}': {found}")
    print("\n".join(wrong) or f"{ran} checks find what is planted")
    return 1 if wrong else 0 if ran else 77


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        print(__doc__)
        return 2
    found = CHECKS[sys.argv[1]](ROOT)
    print("\n".join(found) or f"{sys.argv[1]}: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
