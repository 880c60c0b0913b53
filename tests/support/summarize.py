#!/usr/bin/env python3
"""Adds up CTest's JUnit files; the last line is 'N passed, N failed, N skipped'.

    summarize.py [--failed-step NAME]... <junit.xml>...

A step that failed outside CTest (a build, say) counts as one failure, and so does a file that cannot be read: a run
that broke off must not look like one that passed. Exit 1 if anything failed.
"""
import argparse
import sys
import xml.etree.ElementTree as xml


def read(path):
    """(passed, failed names, skipped [(name, reason)]) of one file."""
    passed, failed, skipped = 0, [], []
    for case in xml.parse(path).getroot().iter("testcase"):
        name, status = case.get("name"), case.get("status")
        # CTest writes a skipped test (exit code 77) as "notrun" with a message that names the code; a test that could
        # not be started is "notrun" too, with another message, and is a failure.
        skip = case.find("skipped")
        if status == "run":
            passed += 1
        elif status == "disabled" or (skip is not None and "SKIP_RETURN_CODE" in skip.get("message", "")):
            said = (case.findtext("system-out") or "").strip().splitlines()
            skipped.append((name, said[-1] if said else "no reason given"))
        else:
            failed.append(name)
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--failed-step", action="append", default=[])
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    passed, failed, skipped = 0, [f"step: {name}" for name in args.failed_step], []
    for path in args.files:
        try:
            more = read(path)
        except (OSError, xml.ParseError) as error:
            failed.append(f"{path}: {error}")
            continue
        if not (more[0] or more[1] or more[2]):
            failed.append(f"{path}: no tests")
        passed += more[0]
        failed += more[1]
        skipped += more[2]
    for name in failed:
        print(f"FAILED  {name}")
    reasons = [reason.removeprefix("skipped: ") for _, reason in skipped]
    for reason in sorted(set(reasons)):
        print(f"{reasons.count(reason)} skipped: {reason}")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
