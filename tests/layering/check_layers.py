#!/usr/bin/env python3
"""Checks the house rules that a compiler cannot: who may include whom, and what a header may hold.

    check_layers.py <include folder>     the library; exit 1 and one line per finding
    check_layers.py --self-test          each rule is shown to fire on a header that breaks it
"""
import os
import re
import sys
import tempfile

# Includes point down: a layer may include itself and what stands before it. "top" is winnow.hpp and winnow.cuh.
LAYERS = ["core", "policy", "ptx", "tile", "stage", "kernel", "op", "top"]
REFERENCE_MAY = {"core", "policy", "op", "reference"}  # the oracle: a side branch that takes op's params
LINES_WARN, LINES_FAIL = 400, 450
TOOLKIT = ("cuda", "cub/", "thrust/", "cooperative_groups", "nv/", "nvtx3/", "vector_types.h", "driver_types.h")
# A bare lower-case name is a standard header; these are the C ones that a C++ file may need as well.
STANDARD = re.compile(r"^([a-z_0-9]+|(stdint|stddef|string|math|assert|float|limits)\.h)$")


def strip_comments(text):
    """The text with comments and string contents blanked; every character keeps its position."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', re.S)

    def blank(match):
        found = match.group(0)
        return re.sub(r"[^\n]", " ", found) if found[0] == "/" else found[0] + " " * (len(found) - 2) + found[-1]

    return pattern.sub(blank, text)


def layer_of(path):
    return path.split("/")[0] if "/" in path else "top"


def resolve(name, quoted, includer, known):
    """The path below winnow/ that an include names, or None if it names no header of ours."""
    if name.startswith("winnow/"):
        return os.path.normpath(name[len("winnow/"):])
    if quoted:
        beside = os.path.normpath(os.path.join(os.path.dirname(includer), name))
        return beside if beside in known or not STANDARD.match(name) else None
    return None


def template_parameters(code):
    """Each template parameter's text with its position, at the first level of its angle brackets."""
    for start in re.finditer(r"\btemplate\s*<", code):
        depth, parens, begin = 1, 0, start.end()
        for i in range(start.end(), len(code)):
            c = code[i]
            if c in "([{":
                parens += 1
            elif c in ")]}":
                parens -= 1
            elif parens == 0 and c == "<":
                depth += 1
            elif parens == 0 and c == ">":
                depth -= 1
            if parens == 0 and (depth == 0 or (depth == 1 and c == ",")):
                yield begin, code[begin:i].strip()
                begin = i + 1
            if depth == 0:
                break


def opens_with_sentence(text):
    """True if the first thing besides #pragma once and an SPDX line is a // comment that holds a sentence."""
    comment = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("//"):
            if not line.startswith("// SPDX"):
                comment.append(line[2:].strip())
        elif comment or (line and line != "#pragma once"):
            break
    return bool(re.search(r"\w[.:]( |$)", " ".join(comment)))


def check_header(path, text, known):
    """Yields (rule, line, message) for one header; path is below winnow/."""
    code = strip_comments(text)
    layer = layer_of(path)
    includes = []

    def line_at(position):
        return code.count("\n", 0, position) + 1

    if layer not in LAYERS and layer != "reference":
        yield "folder", 1, f"'{layer}' is no layer"
        return
    # Matched in the text, since strip_comments empties "names"; a commented-out include is blank in the code.
    for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', text, re.M):
        if not code[match.start():match.end()].strip():
            continue
        line, name = line_at(match.start()), match.group(2)
        target = resolve(name, match.group(1) == '"', path, known)
        if target is None:
            toolkit = name.startswith(TOOLKIT)
            if toolkit and path.endswith(".hpp"):
                yield "hpp_without_cuda", line, f"a .hpp includes <{name}>"
            if not toolkit and not STANDARD.match(name):
                yield "foreign", line, f"<{name}> is neither standard, nor the CUDA Toolkit's, nor ours"
            continue
        includes.append((line, target))
        if target not in known:
            yield "missing", line, f"winnow/{target} does not exist"
        if path.endswith(".hpp") and target.endswith(".cuh"):
            yield "hpp_without_cuda", line, f"a .hpp includes {target}"
        to = layer_of(target)
        if layer == "reference":
            if to not in REFERENCE_MAY or target.endswith(".cuh"):
                yield "direction", line, f"reference/ includes {target}"
        elif to == "reference":
            yield "reference", line, f"{path} includes {target}; only tests, examples and benchmarks may"
        elif to in LAYERS and LAYERS.index(to) > LAYERS.index(layer):
            yield "direction", line, f"{layer}/ includes {target}, which is above it"

    for match in re.finditer(r"^[ \t]*#[ \t]*(define|undef)\b", code, re.M):
        if path != "core/config.hpp":
            yield "macro", line_at(match.start()), "macros live in core/config.hpp alone"
    for position, parameter in template_parameters(code):
        if re.match(r"(const\s+)?bool\b\s*(const\b)?\s*(\.\.\.)?\s*([A-Za-z_]\w*)?\s*(=|$)", parameter):
            yield "bool", line_at(position), f"template parameter '{parameter}': make it a type or an enum"
    if not re.search(r"^#pragma once$", text, re.M):
        yield "pragma_once", 1, "no #pragma once"
    if not opens_with_sentence(text):
        yield "opening", 1, "a header opens with a // comment sentence that says what it is"
    lines = text.count("\n")
    if lines > LINES_FAIL:
        yield "length", lines, f"{lines} lines, at most {LINES_FAIL}"
    elif lines > LINES_WARN:
        yield "length_warning", lines, f"{lines} lines, aim below {LINES_WARN}"
    for line, target in includes:
        if target == path:
            yield "cycle", line, "includes itself"


def cycles(graph):
    """One cycle of includes, as a list of headers, or None; #pragma once would hide it."""
    done, trail = set(), []

    def visit(node):
        if node in trail:
            return trail[trail.index(node):] + [node]
        if node in done:
            return None
        trail.append(node)
        for following in graph.get(node, ()):
            found = visit(following)
            if found:
                return found
        done.add(trail.pop())
        return None

    for node in sorted(graph):
        found = visit(node)
        if found:
            return found
    return None


def check_tree(include):
    """All findings below include/winnow, as (rule, path, line, message)."""
    root = os.path.join(include, "winnow")
    paths = sorted(os.path.relpath(os.path.join(folder, name), root)
                   for folder, _, names in os.walk(root) for name in names)
    known, findings, graph = set(paths), [], {}
    for path in paths:
        if not path.endswith((".hpp", ".cuh")):
            findings.append(("folder", path, 1, "only .hpp and .cuh files live in include/"))
            continue
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = file.read()
        findings += [(rule, path, line, message) for rule, line, message in check_header(path, text, known)]
        graph[path] = [target for quote, name in re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)', text, re.M)
                       if (target := resolve(name, quote == '"', path, known)) in known and target != path]
    loop = cycles(graph)
    if loop:
        findings.append(("cycle", loop[0], 1, " -> ".join(loop)))
    return len(paths), findings


GOOD = "// Something that exists. It has a purpose.\n#pragma once\n#include <vector>\n"
# rule -> the files that must make exactly this rule fire
BREAKS = {
    "direction": [{"core/a.hpp": GOOD + "#include <winnow/op/b.hpp>\n", "op/b.hpp": GOOD},
                  {"tile/a.cuh": GOOD + '#include "../stage/b.cuh"\n', "stage/b.cuh": GOOD},
                  {"reference/a.hpp": GOOD + "#include <winnow/tile/b.hpp>\n", "tile/b.hpp": GOOD}],
    "reference": [{"op/a.hpp": GOOD + "#include <winnow/reference/b.hpp>\n", "reference/b.hpp": GOOD},
                  {"winnow.hpp": GOOD + "#include <winnow/reference/b.hpp>\n", "reference/b.hpp": GOOD}],
    "hpp_without_cuda": [{"core/a.hpp": GOOD + "#include <cuda_fp16.h>\n"},
                         {"core/a.hpp": GOOD + "#  include <cub/cub.cuh>\n"},
                         {"op/a.hpp": GOOD + "#include <winnow/op/a.cuh>\n", "op/a.cuh": GOOD}],
    "foreign": [{"core/a.hpp": GOOD + "#include <boost/any.hpp>\n"}],
    "missing": [{"core/a.hpp": GOOD + "#include <winnow/core/gone.hpp>\n"}],
    "macro": [{"core/a.hpp": GOOD + "#define N 1\n"}, {"core/a.hpp": GOOD + " # undef N\n"}],
    "bool": [{"core/a.hpp": GOOD + "template <bool causal>\nstruct s;\n"},
             {"core/a.hpp": GOOD + "template <class T, class U = std::vector<int>,\n bool>\nstruct s;\n"},
             {"core/a.hpp": GOOD + "template <int N, bool b = (1 > 0)>\nstruct s;\n"}],
    "pragma_once": [{"core/a.hpp": "// Something that exists.\n"}],
    "opening": [{"core/a.hpp": "#pragma once\n#include <vector>\n// Too late.\n"}, {"core/a.hpp": "#pragma once\n"}],
    "length": [{"core/a.hpp": GOOD + "\n" * LINES_FAIL}],
    "length_warning": [{"core/a.hpp": GOOD + "\n" * LINES_WARN}],
    "folder": [{"extra/a.hpp": GOOD}, {"core/a.h": GOOD}],
    "cycle": [{"core/a.hpp": GOOD + '#include "b.hpp"\n', "core/b.hpp": GOOD + '#include "a.hpp"\n'},
              {"core/a.hpp": GOOD + "#include <winnow/core/a.hpp>\n"}],
}
# nothing here may fire
CLEAN = {
    "core/config.hpp": GOOD + "#define WINNOW_X 1\n",
    "core/a.hpp": GOOD + '// template <bool b>, #define N and #include <cuda.h> in a comment\nchar const* t = "// x";\n'
                         "template <class T, int N = sizeof(bool)>\nstruct s { bool b; };\ntemplate <>\nstruct s<bool>;\n",
    "ptx/b.cuh": "#pragma once\n" + GOOD.replace("#pragma once\n", "") + "#include <cuda/ptx>\n#include <winnow/core/a.hpp>\n",
    "op/c.hpp": GOOD + "#include <winnow/policy/d.hpp>\n",
    "policy/d.hpp": GOOD + '#include "../core/a.hpp"\n',
    "reference/e.hpp": GOOD + "#include <winnow/op/c.hpp>\n",
    "winnow.hpp": GOOD + "#include <winnow/op/c.hpp>\n#include <winnow/version.hpp>\n",
    "version.hpp": GOOD,
}


def self_test():
    def rules(files):
        with tempfile.TemporaryDirectory() as include:
            for path, text in files.items():
                full = os.path.join(include, "winnow", path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "w", encoding="utf-8") as file:
                    file.write(text)
            return {rule for rule, *_ in check_tree(include)[1]}

    wrong = [f"clean tree: {rules(CLEAN)}"] if rules(CLEAN) else []
    for rule, trees in BREAKS.items():
        wrong += [f"{rule}, tree {i}: found {rules(tree) or 'nothing'}"
                  for i, tree in enumerate(trees) if rules(tree) != {rule}]
    print("\n".join(wrong) or f"{len(BREAKS)} rules fire, and a clean tree is silent")
    return 1 if wrong else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    count, findings = check_tree(sys.argv[1])
    for rule, path, line, message in findings:
        print(f"include/winnow/{path}:{line}: [{rule}] {message}")
    bad = [finding for finding in findings if finding[0] != "length_warning"]
    print(f"{count} headers, {len(bad)} findings")
    return 1 if bad or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
