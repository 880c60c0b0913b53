#!/usr/bin/env python3
"""The test harness's own tests: a failure, a crash and a skip must each be counted as what they are."""
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import gpu_record  # noqa: E402
import tree_hash  # noqa: E402

JUNIT = """<testsuite>
<testcase name="a" status="run"/>
<testcase name="b" status="fail"><failure message=""/></testcase>
<testcase name="c" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/><system-out>x
skipped: no device
</system-out></testcase>
<testcase name="d" status="notrun"><skipped message="Unable to find executable"/></testcase>
</testsuite>"""


def write(folder, name, text):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class Summary(unittest.TestCase):
    def run_it(self, *arguments):
        done = subprocess.run([sys.executable, os.path.join(HERE, "summarize.py"), *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()

    def test_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            code, lines = self.run_it(write(folder, "j.xml", JUNIT))
        self.assertEqual((code, lines[-1]), (1, "1 passed, 2 failed, 1 skipped"))
        self.assertIn("1 skipped: no device", lines)

    def test_broken_runs_are_failures(self):
        with tempfile.TemporaryDirectory() as folder:
            good = write(folder, "g.xml", '<testsuite><testcase name="a" status="run"/></testsuite>')
            cut = write(folder, "c.xml", JUNIT[:40])
            self.assertEqual(self.run_it(good)[0], 0)
            empty = write(folder, "e.xml", "<testsuite/>")
            for arguments in ((good, cut), (good, empty), (good, folder + "/none.xml"), ("--failed-step", "build", good)):
                code, lines = self.run_it(*arguments)
                self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        self.assertEqual(self.run_it()[0], 1)


class CatchXml(unittest.TestCase):
    HEAD = '<Catch><Group><TestCase name="a"><OverallResult success="true"/></TestCase><TestCase name="b">'

    def read(self, text):
        with tempfile.TemporaryDirectory() as folder:
            return gpu_record.read_cases(write(folder, "r.xml", text))

    def test_both_outcomes(self):
        text = self.HEAD + '<OverallResult success="false"/></TestCase></Group></Catch>'
        self.assertEqual(self.read(text), (1, ["b"], 0))

    def test_skip_of_version_3(self):
        text = self.HEAD + '<OverallResult success="true" skips="1"/></TestCase></Group></Catch>'
        self.assertEqual(self.read(text), (1, [], 1))

    def test_crash(self):
        self.assertEqual(self.read(self.HEAD), (1, ["broke off in 'b'"], 0))
        self.assertEqual(gpu_record.read_cases("/none.xml"), (0, ["broke off before the first case"], 0))


class TreeHash(unittest.TestCase):
    def test_what_counts(self):
        with tempfile.TemporaryDirectory() as root:
            write(root, "include/a.hpp", "1")
            write(root, "tests/b.cpp", "2")
            first = tree_hash.tree_hash(root)
            for ignored in ("tests/gpu_record.json", "tests/__pycache__/x.pyc", "docs/c.md", "tests/build/d"):
                write(root, ignored, "3")
                self.assertEqual(tree_hash.tree_hash(root), first, ignored)
            write(root, "include/a.hpp", "12")
            second = tree_hash.tree_hash(root)
            os.rename(os.path.join(root, "tests/b.cpp"), os.path.join(root, "tests/e.cpp"))
            self.assertEqual(len({first, second, tree_hash.tree_hash(root)}), 3)

    def test_record(self):
        with tempfile.TemporaryDirectory() as root:
            write(root, "include/a.hpp", "1")
            self.assertFalse(tree_hash.record_state(root)[0])
            record = '{"tree_hash": "%s", "device": "d", "date": "t", "passed": 1, "failed": 0}'
            write(root, "tests/gpu_record.json", record % tree_hash.tree_hash(root))
            self.assertTrue(tree_hash.record_state(root)[0])
            write(root, "include/a.hpp", "2")
            self.assertFalse(tree_hash.record_state(root)[0])


class MustFail(unittest.TestCase):
    def run_it(self, text):
        with tempfile.TemporaryDirectory() as folder:
            checker = os.path.join(HERE, "../must_fail/check_must_fail.py")
            return subprocess.run([sys.executable, checker, write(folder, "a.cpp", text)], capture_output=True).returncode

    def test_it_can_fail(self):
        case = "// expect: %s\n%s\n#ifdef MUST_FAIL\n%s\n#endif\n"
        self.assertEqual(self.run_it(case % ("does not name a type", "", "no_type x;")), 0)
        self.assertEqual(self.run_it(case % ("another message", "", "no_type x;")), 1)
        self.assertEqual(self.run_it(case % ("does not name a type", "", "int x;")), 1)
        self.assertEqual(self.run_it(case % ("does not name a type", "no_type y;", "no_type x;")), 1)
        self.assertEqual(self.run_it("#ifdef MUST_FAIL\nno_type x;\n#endif\n"), 1)


if __name__ == "__main__":
    unittest.main()
