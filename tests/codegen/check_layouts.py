#!/usr/bin/env python3
"""Holds the host's sizes of what kernels share with it to the device's: shared memory, and arguments.

    check_layouts.py               exit 1 where a launch would ask for other shared memory than its kernel uses, or pass
                                   an argument of another size or alignment than the kernel reads
    check_layouts.py --report      the same, with a table of all sizes
    check_layouts.py --self-test   each finding is shown to appear

nvcc hands host code to another compiler than device code, and the two need not lay a struct out alike: an empty member
with [[no_unique_address]] or a base's tail padding is enough. The kernels are those of tests/codegen/instances. Needs
nvcc and no GPU: the device's sizes are read from PTX. Exit code 77 without nvcc or instances.
"""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# Kernel -> what its launch computes its dynamic shared memory from, given the template arguments. Nothing: it has none.
# A kernel that is not here is a finding.
SHARED = {
    "attend_sm80": lambda a: [
        f"sizeof(attend_block_storage<{', '.join(a + [a[0], 'key_rotation::none'][len(a) - 3:])}>)"],
    "attend_sm90": lambda a: [f"sizeof(hopper_storage<{', '.join(a[:3])}>)"],
    "prune_score": lambda a: [f"sizeof(prune_score_storage<{a[1]}>)", f"prune_rows_behind<{a[1]}, {a[3]}>"],
    "prune_walk_sm90": lambda a: [f"sizeof(prune_walk_storage<{a[1]}>)", f"prune_walk_rows_offset<{a[1]}>"],
    "prune_select": lambda a: ["sizeof(prune_select_storage)", "offsetof(prune_select_storage, score)"],
    "cascade_attend_token": lambda a: [f"sizeof(cascade_token_storage<{', '.join(a)}>)"],
    "cascade_score": lambda a: [f"sizeof(cascade_score_storage<{', '.join(a)}>)"],
    "cascade_score_sm90": lambda a: [f"sizeof(cascade_hopper_storage<{', '.join(a)}>)"],
} | {name: lambda a: [] for name in (
    "advance_steps", "append_tensors", "begin_step", "cascade_decide", "cascade_gather", "cascade_insert_token",
    "cascade_move_rows",
    "cascade_offsets", "cascade_reduce", "cascade_score_token", "cascade_segments", "cascade_turn_rows", "copy_lists", "describe_fault",
    "find_fault", "form_delta", "merge_rows", "merge_splits", "store_anchors", "sum_rows", "summarise_chunks")}

# Parts of arguments: with these and the whole alike, fields lie in the same places.
PARTS = ["attend_params<bf16>", "prune_params<bf16>", "attend_schedule", "batch_shape", "kv_index", "query_index",
         "block_selection", "block_selection_buffer", "lse_view", "tensor_view<bf16, 4>", "attention_window",
         "attention_mask", "prune_method", "stage_cache", "slot_index", "decode_step", "rope", "fast_divider"]

INSTANCE = re.compile(r"template __global__ void\s+(\w+)(?:<(.*?)>)?\(([^;]*?)\s+const __grid_constant__\);", re.S)


def template_arguments(text):
    """Splits at the commas that stand outside of any brackets."""
    parts, depth = [""], 0
    for character in text or "":
        depth += (character in "<({") - (character in ">)}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [" ".join(part.split()) for part in parts if part.strip()]


def wanted_of(texts, shared=None):
    """Expressions to evaluate on both sides, what they need before them, and kernels that nothing is known of."""
    expressions, headers, aliases, unknown = {}, {}, {}, []
    for text in texts:
        headers |= dict.fromkeys(re.findall(r'#include "(winnow/[^"]+)"', text))
        aliases |= dict.fromkeys(re.findall(r"^(?:template <[^\n]*>\n)?using [^;]*;\n", text, re.M))
        found = INSTANCE.findall(text)
        if len(found) != text.count("template __global__"):
            unknown.append(f"{text.count('template __global__') - len(found)} instances that were not understood")
        for kernel, arguments, parameter in found:
            parameter = " ".join(parameter.split())
            expressions |= dict.fromkeys([f"sizeof({parameter})", f"alignof({parameter})"])
            make = (SHARED if shared is None else shared).get(kernel)
            if make is None:
                unknown.append(f"kernel {kernel}: say in {os.path.basename(__file__)} what its shared memory is")
                continue
            expressions |= dict.fromkeys(make(template_arguments(arguments)))
    before = "".join(f'#include "{header}"\n' for header in headers)
    before += f"namespace winnow {{\n{''.join(aliases)}}}\n" if aliases else ""
    return list(expressions), before, list(dict.fromkeys(unknown))


def source_of(expressions, before):
    """A program that has the values as a device array, and prints the host's."""
    # In a template, as in the library's launches, so that the host's compiler evaluates them and not the front end.
    lines = "".join(f"    static_cast<unsigned long long>({expression}),\n" for expression in expressions)
    return (f"#include <cstddef>\n#include <cstdio>\n{before}\nnamespace winnow {{\n"
            f"__device__ unsigned long long device_values[] = {{\n{lines}}};\n"
            f"template <class> void print() {{\n  unsigned long long const values[] = {{\n{lines}}};\n"
            '  for (auto v : values) std::printf("%llu\\n", v);\n}\n'
            "}\nint main() { winnow::print<void>(); }\n")


def device_values(ptx):
    """The array in PTX, which nvcc writes as numbers or as bytes, and without the zeros at its end."""
    array = re.search(r"\.([bu])(\d+) \w*device_values\w*\[(\d+)\] = \{([^}]*)\}", ptx)
    if array is None:
        return []
    bits, count, numbers = int(array.group(2)), int(array.group(3)), [int(v) for v in array.group(4).split(",")]
    numbers += [0] * (count - len(numbers))
    each = 64 // bits
    return [sum(n << bits * i for i, n in enumerate(numbers[at:at + each])) for at in range(0, count, each)]


def values_of(nvcc, include, source, scratch, arch):
    """(host's values, device's values) of one program, or a message."""
    path = os.path.join(scratch, "layouts.cu")
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    command = [nvcc, "-std=c++20", f"-arch={arch}", "-I", include, path]
    for options in (["-ptx", "-o", path + ".ptx"], ["-o", path + ".exe"]):
        done = subprocess.run(command + options, capture_output=True, text=True)
        if done.returncode != 0:
            return None, None, done.stdout + done.stderr
    host = subprocess.run([path + ".exe"], capture_output=True, text=True, check=True).stdout
    with open(path + ".ptx", encoding="utf-8") as file:
        return [int(v) for v in host.split()], device_values(file.read()), ""


def findings(expressions, host, device):
    if not len(expressions) == len(host) == len(device):
        return [f"{len(expressions)} expressions, {len(host)} values on the host, {len(device)} on the device"]
    return [f"{expression}: {h} for the host, {d} for the device"
            for expression, h, d in zip(expressions, host, device) if h != d]


def check(args, texts, before="", shared=None, parts=PARTS):
    os.makedirs(args.scratch, exist_ok=True)
    expressions, needed, lines = wanted_of(texts, shared)
    expressions += [f"{what}({part})" for part in parts for what in ("sizeof", "alignof")]
    host, device, log = values_of(args.nvcc, args.include, source_of(expressions, before + needed), args.scratch,
                                  args.arch)
    if host is None:
        return lines + [f"does not compile:\n{log}"], []
    return lines + findings(expressions, host, device), list(zip(expressions, host, device))


def run(args):
    paths = sorted(glob.glob(os.path.join(args.instances, "*.cu")))
    if not args.nvcc or not paths:
        print("skipped: no nvcc" if paths else "skipped: there are no instances")
        return 77
    texts = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            texts.append(file.read())
    lines, values = check(args, texts)
    if args.report:
        print("\n".join(f"{host:9} {device:9}  {expression}" for expression, host, device in values))
    print("\n".join(lines))
    print(f"{len(values)} sizes, {len(lines)} findings")
    return 1 if lines else 0


SELF_TEST_TYPES = """
namespace winnow {
struct alike { int a; double b; };
struct shared_differs {  // as the two compilers might see it
#ifdef __CUDA_ARCH__
    int a[4];
#else
    int a[3];
#endif
};
struct argument_differs {
    char c;
#ifdef __CUDA_ARCH__
    alignas(16)
#endif
    int a[4];
};
}
"""


def self_test(args):
    wrong = []

    def expect(what, found, wanted):
        if found != wanted:
            wrong.append(f"{what}: {found}")

    expect("arguments", template_arguments("bf16, f<a, b>({1, 2}),\n  x::y"), ["bf16", "f<a, b>({1, 2})", "x::y"])
    one = "template __global__ void\nk<bf16, 64>(arguments<bf16> const __grid_constant__);\n"
    expect("an instance", wanted_of([one], {"k": lambda a: ["sizeof(s<" + a[1] + ">)"]}),
           (["sizeof(arguments<bf16>)", "alignof(arguments<bf16>)", "sizeof(s<64>)"], "", []))
    expect("an unknown kernel", len(wanted_of([one], {})[2]), 1)
    expect("an instance in another form", len(wanted_of(["template __global__ void k(int);"], {})[2]), 1)
    expect("aliases and headers", wanted_of(['#include "winnow/a.cuh"\ntemplate <class T>\nusing x = y<T>;\n'])[1],
           '#include "winnow/a.cuh"\nnamespace winnow {\ntemplate <class T>\nusing x = y<T>;\n}\n')
    expect("numbers", device_values(".global .align 8 .u64 _Z13device_valuesE[2] = {7, 300};"), [7, 300])
    expect("bytes", device_values(".global .align 8 .b8 device_values[16] = {4, 0, 0, 0, 0, 0, 0, 0, 0, 1};"), [4, 256])
    expect("too few values", len(findings(["a", "b"], [1], [1])), 1)
    if args.nvcc:
        def instances(*arguments):
            return ["".join(f"template __global__ void {kernel}({argument} const __grid_constant__);\n"
                            for kernel, argument in arguments)]
        shared = {"same": lambda a: [], "asks_for_less": lambda a: ["sizeof(shared_differs)"]}
        lines, values = check(args, instances(("same", "alike")), SELF_TEST_TYPES, shared, ["alike"])
        expect("structs that are alike", (lines, len(values)), ([], 4))
        lines, _ = check(args, instances(("asks_for_less", "alike")), SELF_TEST_TYPES, shared, [])
        expect("shared memory", lines, ["sizeof(shared_differs): 12 for the host, 16 for the device"])
        lines, _ = check(args, instances(("same", "argument_differs")), SELF_TEST_TYPES, shared, [])
        expect("an argument", lines, ["sizeof(argument_differs): 20 for the host, 32 for the device",
                                      "alignof(argument_differs): 4 for the host, 16 for the device"])
    print("\n".join(wrong) or "every finding appears" + ("" if args.nvcc else " (nothing compiled: no nvcc)"))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "")
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--include", default=os.path.join(HERE, "../../include"))
    parser.add_argument("--instances", default=os.path.join(HERE, "instances"))
    parser.add_argument("--scratch", default="build/layouts")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    return self_test(args) if args.self_test else run(args)


if __name__ == "__main__":
    sys.exit(main())
