#!/usr/bin/env python3
"""Compiles every kernel instance for each architecture and holds it to tests/codegen/budgets.json.

    check_codegen.py                 exit 1 on a spill, registers or shared memory above budget, serialised wgmma (ptxas
                                     C75xx), a missing opcode, a kernel without a budget, a compile that takes more than
                                     60 s, or one that takes twice the time or gives twice the bytes of the record
    check_codegen.py --report        the same, with a table of all kernels
    check_codegen.py --update        writes what was measured as the new budget (spills only with --allow-spills)
    check_codegen.py --self-test     each finding is shown to appear

Compile times are compared in units of what compiling an empty kernel takes, so the machine's speed cancels.
An instance is a .cu file in tests/codegen/instances that instantiates one kernel or a few. A line "// arch: 90a" in it
names the only architectures to compile it for. Needs nvcc and no GPU; exit code 77 without nvcc or instances.
"""
import argparse
import concurrent.futures
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

import sass

HERE = os.path.dirname(os.path.abspath(__file__))
ARCHITECTURES = ["80", "90a"]
COMPILE_SECONDS = 60  # processor seconds of one file for one architecture, so that a busy machine changes nothing
BASELINE = "baseline.cu"
BASELINE_SOURCE = "#include <cuda_runtime.h>\n__global__ void nothing() {}\n"
GROWTH = 2  # times the recorded compile time or cubin size
# What a kernel may not exceed, and what it must match exactly: a spill that shrinks should shrink its allowance too.
AT_MOST = ("registers", "shared")
EXACT = ("stack", "spill_stores", "spill_loads")


def parse_ptxas(log):
    """kernel -> its numbers, from ptxas -v, and the list of C75xx lines (wgmma made serial, and why)."""
    kernels, entry, about = {}, None, None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for", line):
            entry = about = match.group(1)
            kernels[entry] = dict.fromkeys(AT_MOST + EXACT, 0)
        elif match := re.search(r"Function properties for (\S+)", line):
            about = match.group(1)  # a device function that was not inlined gives this line too
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            # A called function's spills are its kernel's problem; ptxas lists it after one of the kernels.
            owner = about if about in kernels else entry
            if owner:
                for field, value in zip(EXACT, match.groups()):
                    kernels[owner][field] += int(value)
        elif (match := re.search(r"Used (\d+) registers", line)) and about in kernels:
            kernels[about]["registers"] = int(match.group(1))
            if shared := re.search(r"(\d+) bytes smem", line):
                kernels[about]["shared"] = int(shared.group(1))
    return kernels, [line.strip() for line in log.splitlines() if re.search(r"\bC75\d\d\b", line)]


def compile_instance(nvcc, include, source, arch, scratch):
    """Compiles one file for one architecture, or takes the result of the same compile from scratch."""
    name = os.path.splitext(os.path.basename(source))[0] + ".sm_" + arch
    cubin, result_path = os.path.join(scratch, name + ".cubin"), os.path.join(scratch, name + ".json")
    command = [nvcc, "-O3", "-std=c++20", f"-arch=sm_{arch}", "-Xptxas", "-v", "-I", include, "-cubin", source]
    key = hashlib.sha256(repr(command).encode())
    if shutil.which(nvcc):
        key.update(subprocess.run([nvcc, "--version"], capture_output=True).stdout)
    inputs = sorted(glob.glob(os.path.join(include, "**", "*.*"), recursive=True))
    for path in inputs + sorted(glob.glob(os.path.join(os.path.dirname(source), "*"))):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                key.update(path.encode() + b"\0" + file.read())
    if os.path.exists(result_path):
        with open(result_path, encoding="utf-8") as file:
            result = json.load(file)
        if result["key"] == key.hexdigest():
            return result
    before = time.monotonic()
    process = subprocess.Popen(command + ["-o", cubin], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    result = {"key": key.hexdigest(), "instance": os.path.basename(source), "arch": "sm_" + arch, "ok": status == 0,
              "log": log, "seconds": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - before,
              "bytes": 0, "kernels": {}, "c75": []}
    if status == 0:
        result["bytes"] = os.path.getsize(cubin)
        result["kernels"], result["c75"] = parse_ptxas(log)
        histogram = sass.histogram(cubin)
        for kernel, numbers in result["kernels"].items():
            numbers["opcodes"] = {name: sass.count(histogram[kernel], name) for name in sass.OPCODES}
        with open(result_path, "w", encoding="utf-8") as file:
            json.dump(result, file)
    return result


def growth(result, unit, recorded):
    """What one compile takes and gives against the record of it; `unit`: seconds of an empty kernel, here and now."""
    before = recorded.get(result["arch"], {}).get(result["instance"])
    if before is None:
        return ["has no record of its compile; run --update"]
    lines = []
    if result["seconds"] > GROWTH * before["units"] * unit:
        lines.append(f"takes {result['seconds'] / unit:.1f} times an empty kernel's compile, on record {before['units']}")
    if result["bytes"] > GROWTH * before["bytes"]:
        lines.append(f"gives {result['bytes']} bytes, on record {before['bytes']}")
    return lines


def findings(results, budgets, unit):
    """Everything that is wrong, one line each."""
    lines, seen, rules_used = [], {}, set()
    for result in results:
        where = f"{result['instance']} for {result['arch']}"
        if not result["ok"]:
            lines.append(f"{where} does not compile:\n{result['log']}")
            continue
        if result["seconds"] > COMPILE_SECONDS:
            lines.append(f"{where} takes {result['seconds']:.0f} s to compile, at most {COMPILE_SECONDS}")
        lines += [f"{where} {line}" for line in growth(result, unit, budgets.get("compiles", {}))]
        if not result["kernels"]:
            lines.append(f"{where} instantiates no kernel")
        lines += [f"{where}: {line}" for line in result["c75"]]
        of_arch = budgets.get("kernels", {}).get(result["arch"], {})
        for kernel, numbers in result["kernels"].items():
            seen.setdefault(result["arch"], set()).add(kernel)
            budget = of_arch.get(kernel)
            if budget is None:
                lines.append(f"{where}: {short(kernel)} has no budget; run --update and look at the difference")
            for field in AT_MOST:
                if budget is not None and numbers[field] > budget.get(field, 0):
                    lines.append(f"{where}: {short(kernel)}: {field} {numbers[field]}, budget {budget.get(field, 0)}")
            for field in EXACT:
                allowed = (budget or {}).get(field, 0)
                if numbers[field] != allowed:
                    lines.append(f"{where}: {short(kernel)}: {field} {numbers[field]} bytes, allowed exactly {allowed}")
            for i, rule in enumerate(budgets.get("require", [])):
                if re.search(rule["kernel"], kernel) and rule.get("arch", result["arch"]) == result["arch"]:
                    rules_used.add(i)
                    lines += [f"{where}: {short(kernel)} has no {opcode}" for opcode in rule["opcodes"]
                              if numbers["opcodes"][opcode] == 0]
    for arch, of_arch in budgets.get("kernels", {}).items():
        lines += [f"budgets.json: no instance has {short(kernel)} for {arch}; run --update"
                  for kernel in of_arch if kernel not in seen.get(arch, ())]
    compiled = {(result["arch"], result["instance"]) for result in results}
    lines += [f"budgets.json: there is no {instance} for {arch}; run --update"
              for arch, instances in budgets.get("compiles", {}).items() for instance in instances
              if (arch, instance) not in compiled]
    lines += [f"budgets.json: the rule {rule} matches no kernel"
              for i, rule in enumerate(budgets.get("require", [])) if i not in rules_used]
    return lines


def updated(results, budgets, unit, allow_spills):
    """budgets with the measured numbers; an allowance for spills is written only when asked for."""
    kernels, compiles = {}, {}
    for result in results:
        compiles.setdefault(result["arch"], {})[result["instance"]] = {
            "units": round(result["seconds"] / unit, 1), "bytes": result["bytes"]}
        old = budgets.get("kernels", {}).get(result["arch"], {})
        for kernel, numbers in result["kernels"].items():
            entry = {field: numbers[field] for field in AT_MOST}
            source = numbers if allow_spills else old.get(kernel, {})
            entry.update({field: source[field] for field in EXACT if source.get(field)})
            kernels.setdefault(result["arch"], {})[kernel] = entry
    return {"require": budgets.get("require", []), "compiles": compiles, "kernels": kernels}


def write_budgets(path, budgets):
    """One line per rule and per kernel, so that a difference reads well."""
    def block(items, indent):
        return (",\n" + indent).join(items)
    rules = block([json.dumps(rule) for rule in budgets["require"]], "        ")

    def by_arch(table):
        archs = []
        for arch, entries in sorted(table.items()):
            lines = block([f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(entries.items())], "            ")
            archs.append(f'"{arch}": {{\n            {lines}\n        }}')
        return f"{{\n        {block(archs, '        ')}\n    }}"

    text = (f'{{\n    "require": [\n        {rules}\n    ],\n    "compiles": {by_arch(budgets["compiles"])},\n'
            f'    "kernels": {by_arch(budgets["kernels"])}\n}}\n')
    json.loads(text)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def short(kernel):
    """A name to read: demangled where that works, without the namespace and the parameter list."""
    for tool in ("cu++filt", "c++filt"):
        if shutil.which(tool):
            text = subprocess.run([tool, kernel], capture_output=True, text=True).stdout.strip()
            text = re.sub(r"^void ", "", text.replace("winnow::", ""))
            return text[:text.rfind("(")] if text.endswith(")") else text
    return kernel


def print_table(results):
    print(f"{'arch':7} {'regs':>4} {'smem':>7} {'stack':>5} {'spill':>5}  {'HMMA':>5} {'HGMMA':>5} {'total s':>7}  kernel")
    for result in sorted(results, key=lambda r: (r["instance"], r["arch"])):
        for kernel, n in result["kernels"].items():
            print(f"{result['arch']:7} {n['registers']:4} {n['shared']:7} {n['stack']:5} "
                  f"{n['spill_stores'] + n['spill_loads']:5}  {n['opcodes']['HMMA']:5} {n['opcodes']['HGMMA']:5} "
                  f"{result['seconds']:7.1f}  {short(kernel)[:150]}")


def run(args):
    instances = sorted(glob.glob(os.path.join(args.instances, "*.cu")))
    if not args.nvcc or not instances:
        print("skipped: no nvcc" if instances else "skipped: there are no instances")
        return 77
    os.makedirs(args.scratch, exist_ok=True)
    jobs = []
    for source in instances:
        with open(source, encoding="utf-8") as file:
            only = re.search(r"^// arch: (.+)$", file.read(), re.M)
        jobs += [(source, arch) for arch in (only.group(1).split() if only else ARCHITECTURES)]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: compile_instance(args.nvcc, args.include, *job, args.scratch), jobs))
    empty = os.path.join(args.scratch, BASELINE)
    with open(empty, "w", encoding="utf-8") as file:
        file.write(BASELINE_SOURCE)
    unit = compile_instance(args.nvcc, args.include, empty, ARCHITECTURES[-1], args.scratch)["seconds"]
    budgets = {}
    if os.path.exists(args.budgets):
        with open(args.budgets, encoding="utf-8") as file:
            budgets = json.load(file)
    if args.report:
        print_table(results)
    if args.update:
        budgets = updated(results, budgets, unit, args.allow_spills)
        write_budgets(args.budgets, budgets)
    lines = findings(results, budgets, unit)
    print("\n".join(lines))
    print(f"{sum(len(r['kernels']) for r in results)} kernels in {len(results)} compiles, {len(lines)} findings")
    return 1 if lines else 0


SELF_TEST_SOURCE = """
__global__ void __launch_bounds__(1024) spills(float* p, int n) {
    float a[200];
    for (int i = 0; i < 200; ++i) a[i] = p[i * n];
#pragma unroll 1
    for (int j = 0; j < n; ++j) {
#pragma unroll
        for (int i = 0; i < 200; ++i) a[i] = a[i] * a[(i + 1) % 200] + p[j];
    }
    for (int i = 0; i < 200; ++i) p[i] = a[i];
}
__global__ void multiplies(float* p, unsigned const* q) {
    float x = 0, y = 0, z = 0, w = 0;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(x), "+f"(y), "+f"(z), "+f"(w)
                 : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "r"(q[4]), "r"(q[5]));
    p[threadIdx.x] = x + y + z + w;
}
"""


def self_test(args):
    wrong = []

    def expect(what, lines, *parts):
        """Exactly one line, which holds every part; no parts: no line."""
        if len(lines) != bool(parts) or not all(part in lines[0] for part in parts):
            wrong.append(f"{what}: {lines}")

    def found(results, budgets, unit=1.0):
        return findings(results, budgets, unit)

    def result(**changes):
        numbers = {"registers": 100, "shared": 1000, "stack": 0, "spill_stores": 0, "spill_loads": 0,
                   "opcodes": dict.fromkeys(sass.OPCODES, 0) | {"HMMA": 4}} | changes.pop("numbers", {})
        return {"instance": "a.cu", "arch": "sm_80", "ok": True, "log": "", "seconds": 5.0, "bytes": 900, "c75": [],
                "kernels": {"k": numbers}} | changes

    compiles = {"sm_80": {"a.cu": {"units": 5.0, "bytes": 900}}}
    budgets = {"require": [{"kernel": "k", "opcodes": ["HMMA"]}], "compiles": compiles,
               "kernels": {"sm_80": {"k": {"registers": 100, "shared": 1000}}}}
    expect("a kernel within its budget", found([result()], budgets))
    expect("registers", found([result(numbers={"registers": 101})], budgets), "registers 101, budget 100")
    expect("shared memory", found([result(numbers={"shared": 1001})], budgets), "shared 1001")
    expect("a spill", found([result(numbers={"spill_loads": 8})], budgets), "spill_loads 8 bytes")
    expect("a stack", found([result(numbers={"stack": 16})], budgets), "stack 16 bytes")
    expect("a slow compile", found([result(seconds=61.0)], budgets, 10.0), "61 s")
    expect("a compile that grew", found([result(seconds=10.1)], budgets), "10.1 times", "on record 5.0")
    expect("the same on a slower machine", found([result(seconds=10.1)], budgets, 2.0))
    expect("a cubin that grew", found([result(bytes=1801)], budgets), "1801 bytes, on record 900")
    expect("a compile without a record", found([result()], budgets | {"compiles": {}}), "no record of its compile")
    expect("a stale record", found([result()], budgets | {"compiles": {"sm_80": compiles["sm_80"] | {"b.cu": {}}}}),
           "no b.cu for sm_80")
    expect("serialised wgmma", found([result(c75=["(C7510) serialized"])], budgets), "C7510")
    expect("a missing opcode", found([result(numbers={"opcodes": dict.fromkeys(sass.OPCODES, 0)})], budgets),
           "has no HMMA")
    expect("a failed compile", found([result(), result(ok=False, log="error")], budgets), "does not compile")
    expect("no kernel", found([result(), result(kernels={})], budgets), "no kernel")
    expect("a kernel without a budget", found([result()], {"compiles": compiles}), "no budget")
    kernel = budgets["kernels"]["sm_80"]
    expect("a stale budget", found([result()], budgets | {"require": [], "kernels": {"sm_80": kernel | {"gone": {}}}}),
           "no instance has gone")
    expect("a rule without a kernel", found([result()], budgets | {"require": [{"kernel": "zz", "opcodes": []}]}),
           "matches no kernel")
    spilling = result(numbers={"spill_loads": 8})
    expect("--update gives no allowance", found([spilling], updated([spilling], budgets, 1.0, False)), "spill_loads")
    expect("--allow-spills does", found([spilling], updated([spilling], budgets, 1.0, True)))
    expect("and it is exact", found([result()], updated([spilling], budgets, 1.0, True)), "allowed exactly 8")
    kernels, c75 = parse_ptxas("""
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to a function call
ptxas info    : Compiling entry function 'k' for 'sm_90a'
ptxas info    : Function properties for k
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 90 registers, used 1 barriers, 8 bytes cumulative stack size, 32768 bytes smem
ptxas info    : Function properties for helper
    0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
""")
    numbers = {"registers": 90, "shared": 32768, "stack": 8, "spill_stores": 8, "spill_loads": 12}
    if kernels != {"k": numbers} or len(c75) != 1:
        wrong.append(f"parse_ptxas: {kernels}, {c75}")
    if args.nvcc:
        # And on a real compile: this kernel spills, that one holds an HMMA.
        os.makedirs(args.scratch, exist_ok=True)
        source = os.path.join(args.scratch, "self_test.cu")
        with open(source, "w", encoding="utf-8") as file:
            file.write(SELF_TEST_SOURCE)
        for arch in ARCHITECTURES:
            done = compile_instance(args.nvcc, args.scratch, source, arch, args.scratch)
            numbers = {"spills" if "spills" in name else "multiplies": n for name, n in done["kernels"].items()}
            if not done["ok"] or numbers["spills"]["spill_stores"] == 0 or numbers["spills"]["opcodes"]["STL"] == 0 \
                    or numbers["multiplies"]["opcodes"]["HMMA"] != 1 or numbers["spills"]["opcodes"]["HMMA"] != 0:
                wrong.append(f"compile for sm_{arch}: {done}")
    print("\n".join(wrong) or "every finding appears" + ("" if args.nvcc else " (nothing compiled: no nvcc)"))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "")
    parser.add_argument("--include", default=os.path.join(HERE, "../../include"))
    parser.add_argument("--instances", default=os.path.join(HERE, "instances"))
    parser.add_argument("--budgets", default=os.path.join(HERE, "budgets.json"))
    parser.add_argument("--scratch", default="build/codegen")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--allow-spills", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    return self_test(args) if args.self_test else run(args)


if __name__ == "__main__":
    sys.exit(main())
