#!/usr/bin/env python3
"""winnow.py repeats winnow_c.h by hand; a C compiler says whether the two agree, and nm what the library exports.

    check_layout.py --compiler CC --library libwinnow.so
"""
import argparse
import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

import winnow

HEADER = pathlib.Path(__file__).resolve().parent / "winnow_c.h"


def c_name(struct):
    """AttendParams -> winnow_attend_params"""
    return "winnow" + re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), struct.__name__)


def structs():
    found = [value for value in vars(winnow).values()
             if isinstance(value, type) and issubclass(value, ctypes.Structure) and hasattr(value, "_fields_")]
    return found


def ours():
    """Sizes, offsets and constants as Python has them."""
    lines = {}
    for struct in structs():
        lines[f"sizeof({c_name(struct)})"] = ctypes.sizeof(struct)
        for field, _ in struct._fields_:
            lines[f"offsetof({c_name(struct)}, {field})"] = getattr(struct, field).offset
    for name, value in vars(winnow).items():
        if name.isupper() and isinstance(value, int):
            lines["WINNOW_" + name] = value
    return lines


def theirs(compiler, names, folder):
    """The same as a C compiler has them."""
    source, program = pathlib.Path(folder, "layout.c"), pathlib.Path(folder, "layout")
    prints = "".join(f'    printf("%lld\\n", (long long)({name}));\n' for name in names)
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{\n{prints}    return 0;\n}}\n')
    subprocess.run([compiler, "-std=c11", str(source), "-o", str(program)], check=True)
    return [int(line) for line in subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("--library")
    arguments = parser.parse_args()
    findings, expected = [], ours()
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    with tempfile.TemporaryDirectory() as folder:
        for (name, value), found in zip(expected.items(), theirs(arguments.compiler, expected, folder)):
            if value != found:
                findings.append(f"{name} is {found} in winnow_c.h and {value} in winnow.py")
    # Python must have every struct and field of the header, so that nothing is left unset unknowingly.
    declared = dict(re.findall(r"typedef struct (winnow_\w+) \{(.*?)\} \1;", text, re.S))
    for name, body in declared.items():
        fields = re.findall(r"(\w+)(?:\[\w+\])?;", body)
        struct = next((s for s in structs() if c_name(s) == name), None)
        if struct is None:
            findings.append(f"{name} is missing in winnow.py")
        elif [field for field, _ in struct._fields_] != fields:
            findings.append(f"{name}: fields differ")
    functions = set(re.findall(r"^WINNOW_API [^;(]*?(winnow_\w+)\(", text, re.M))
    if arguments.library:
        symbols = subprocess.run(["nm", "-D", "--defined-only", arguments.library], check=True, capture_output=True, text=True)
        exported = {line.split()[-1] for line in symbols.stdout.splitlines()}
        for name in sorted(exported ^ functions):
            findings.append(f"{name} is {'exported and not declared' if name in exported else 'declared and not exported'}")
    if not declared or not functions:
        findings.append("the header was not understood")
    print("\n".join(findings) if findings else f"{len(declared)} structs, {len(functions)} functions: winnow.py agrees")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
