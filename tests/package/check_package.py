#!/usr/bin/env python3
"""Uses Winnow as a stranger's project does: configures, builds and runs tests/package/consumer in each way.

Exit code 77: no nvcc for a CUDA case.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CONSUMER = os.path.join(HERE, "consumer")
NO_TOOLKIT = "-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON"  # as on a machine without CUDA
NO_PROGRAMS = ["-DWINNOW_BUILD_TESTS=OFF", "-DWINNOW_BUILD_EXAMPLES=OFF", "-DWINNOW_BUILD_BENCH=OFF"]


def call(*command, fails=False):
    """Runs a command; ends the test unless it succeeds (or, with fails, unless it fails). Returns its output."""
    print("+", *command, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if (done.returncode != 0) != fails:
        print(done.stdout)
        sys.exit(f"this command should have {'failed' if fails else 'succeeded'}")
    return done.stdout


class Case:
    def __init__(self, args):
        self.args = args
        self.folder = os.path.join(args.scratch, args.case)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        with open(os.path.join(args.source, "include/winnow/version.hpp"), encoding="utf-8") as file:
            self.expected = ".".join(re.findall(r"int version_\w+ = (\d+);", file.read()))

    def path(self, name):
        return os.path.join(self.folder, name)

    def configure_winnow(self):
        # Winnow's own configuration needs no CUDA; the package it makes is the same with and without.
        call(self.args.cmake, "-S", self.args.source, "-B", self.path("winnow"), NO_TOOLKIT, *NO_PROGRAMS,
             f"-DCMAKE_INSTALL_PREFIX={self.path('prefix')}")

    def install(self):
        self.configure_winnow()
        call(self.args.cmake, "--install", self.path("winnow"))
        return self.path("prefix")

    def configure(self, *options, fails=False):
        return call(self.args.cmake, "-S", CONSUMER, "-B", self.path("consumer"), "-DCMAKE_BUILD_TYPE=Release",
                    *options, fails=fails)

    def build_and_run(self):
        call(self.args.cmake, "--build", self.path("consumer"))
        self.check_output(call(self.path("consumer/consumer")))

    def check_output(self, output):
        if output != f"winnow {self.expected}\n":
            sys.exit(f"the consumer printed {output!r}")

    def cuda(self):
        if not self.args.nvcc:
            print("skipped: no nvcc")
            sys.exit(77)
        return ["-DCONSUMER_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={self.args.nvcc}"]

    # --- the cases ---

    def core_install(self):
        self.configure("-DCONSUMER_MODE=find", NO_TOOLKIT, f"-DCMAKE_PREFIX_PATH={self.install()}")
        self.build_and_run()

    def core_build_tree(self):
        self.configure_winnow()
        self.configure("-DCONSUMER_MODE=find", NO_TOOLKIT, f"-DWinnow_DIR={self.path('winnow')}")
        self.build_and_run()

    def core_subdirectory(self):
        self.configure("-DCONSUMER_MODE=subdirectory", NO_TOOLKIT, f"-DWINNOW_SOURCE={self.args.source}")
        self.build_and_run()

    def cuda_install(self):
        cuda = self.cuda()
        self.configure("-DCONSUMER_MODE=find", *cuda, f"-DCMAKE_PREFIX_PATH={self.install()}")
        self.build_and_run()

    def cuda_subdirectory(self):
        self.configure("-DCONSUMER_MODE=subdirectory", *self.cuda(), f"-DWINNOW_SOURCE={self.args.source}")
        self.build_and_run()

    def plain_gxx(self):
        """No CMake: an include path is all that a compiler needs."""
        program = self.path("consumer")
        call("g++", "-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti",
             "-I", os.path.join(self.args.source, "include"),
             os.path.join(CONSUMER, "main.cpp"), os.path.join(CONSUMER, "other.cpp"), "-o", program)
        self.check_output(call(program))

    def version(self):
        """A version that this one can stand for is found; a newer one, and an unknown component, are not."""
        prefix = f"-DCMAKE_PREFIX_PATH={self.install()}"
        major, minor, _ = (int(part) for part in self.expected.split("."))
        self.configure("-DCONSUMER_MODE=find", NO_TOOLKIT, prefix, f"-DCONSUMER_VERSION={major}.{minor}")
        for wrong in (f"{major}.{minor + 1}", f"{major + 1}.0"):
            self.configure("-DCONSUMER_MODE=find", NO_TOOLKIT, prefix, f"-DCONSUMER_VERSION={wrong}", fails=True)
        # Without a toolkit the component cuda is missing, and CMake says so.
        said = self.configure("-DCONSUMER_MODE=find", "-DCONSUMER_CUDA=ON", NO_TOOLKIT, prefix, "-DCONSUMER_VERSION=",
                              fails=True)
        if "CUDAToolkit" not in said:
            sys.exit(f"the message does not name what is missing:\n{said}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--source", required=True)
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--cmake", default="cmake")
    parser.add_argument("--nvcc", default="")
    args = parser.parse_args()
    getattr(Case(args), args.case)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
