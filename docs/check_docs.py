#!/usr/bin/env python3
"""Checks README.md and docs/*.md: quoted code is the code of the examples, and links lead to files that are there.

    check_docs.py            exit 1 and one line per finding
    check_docs.py --write    brings quotations up to date first

A quotation is a fenced block under a line '<!-- from PATH NAME -->'. It holds the lines between '// [NAME]' and '// [/NAME]'
of that file, without their common indentation.
"""
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUOTATION = re.compile(r"(<!-- from (\S+) (\S+) -->\n```cpp\n)(.*?)(```\n)", re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)|(?:src|href)=\"([^\"#]+)\"")


def region(path, name):
    """The quoted lines, or None."""
    file = ROOT / path
    if not file.is_file():
        return None
    found = re.search(rf"^[ \t]*// \[{re.escape(name)}\]\n(.*?)^[ \t]*// \[/{re.escape(name)}\]$", file.read_text(), re.S | re.M)
    return textwrap.dedent(found.group(1)) if found else None


def main():
    findings = []
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")]):
        name, text = page.relative_to(ROOT), page.read_text()
        if "--write" in sys.argv:
            fresh = QUOTATION.sub(lambda m: m[1] + (region(m[2], m[3]) or m[4]) + m[5], text)
            if fresh != text:
                page.write_text(fresh)
                text = fresh
        for _, path, mark, quoted, _ in QUOTATION.findall(text):
            if region(path, mark) != quoted:
                findings.append(f"{name}: the quotation of [{mark}] is not what {path} holds")
        if len(QUOTATION.findall(text)) != text.count("<!-- from "):
            findings.append(f"{name}: a '<!-- from' line without a ```cpp block right below it")
        outside_code = re.sub(r"```.*?```", "", text, flags=re.S)
        for markdown, html in LINK.findall(outside_code):
            target = markdown or html
            if re.match(r"[a-z]+:", target):
                continue
            if not (page.parent / target).exists():
                findings.append(f"{name}: there is no {target}")
    print("\n".join(findings) if findings else "docs: quotations and links are right")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
