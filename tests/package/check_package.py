#!/usr/bin/env python3
"""Uses Winnow as a stranger's project does: configures, builds and runs tests/package/consumer in each way, and puts
libraries that all use Winnow (tests/package/libraries) into one process.

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
LIBRARIES = os.path.join(HERE, "libraries")
NOTHING_EXTRA = ["-fno-exceptions", "-fno-rtti"]
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

    # --- several libraries in one process ---

    def compile(self, source, entry, *flags, compiler=("g++", "-fPIC", "-Wall", "-Wextra", "-Werror")):
        """An object with the function `entry`; Winnow's share of its symbols must be harmless to have twice."""
        output = self.path(f"{entry}.o")
        call(*compiler, "-std=c++20", f"-DENTRY={entry}", f"-DLAUNCH={entry}_launch", *flags,
             "-I", os.path.join(self.args.source, "include"), "-c", os.path.join(LIBRARIES, source), "-o", output)
        for line in call("nm", "--extern-only", "--defined-only", "--format=sysv", output).splitlines():
            columns = [column.strip() for column in line.split("|")]
            if len(columns) < 7 or "6winnow" not in columns[0]:
                continue
            if columns[2] in "TRBD":  # twice in a program of two units
                sys.exit(f"{entry}: {columns[0]} is defined and not inline")
            if re.match(r"\.bss|\.data(?!\.rel\.ro)", columns[6]):  # state, of the process or of each library
                sys.exit(f"{entry}: {columns[0]} is a variable")
        return output

    def link(self, name, *inputs, linker=("g++", "-shared")):
        output = self.path(f"lib{name}.so")
        call(*linker, *inputs, "-o", output)
        return output

    def agree(self, *functions):
        """Calls functions of libraries that cannot and that can see each other's symbols; returns what they all say."""
        program = self.path("main")
        call("g++", "-std=c++20", "-Wall", "-Wextra", os.path.join(LIBRARIES, "main.cpp"), "-o", program, "-ldl")
        said = {call(program, mode, *functions) for mode in ("local", "global")}
        if len(said) != 1 or not said.pop().startswith(f"{len(functions)} agree: "):
            sys.exit("local and global symbols give different answers")
        return call(program, "global", *functions).split(": ", 1)[1]

    def two_libraries(self):
        """Units with other options and another order of includes, in two libraries, in one process."""
        first = self.link("first", self.compile("host.cpp", "first_a", "-O2"),
                          self.compile("host.cpp", "first_b", "-O2", "-DREVERSED"), "-pthread")
        second = self.link("second", self.compile("host.cpp", "second_a", "-O0"),
                           self.compile("host.cpp", "second_b", "-O1", *NOTHING_EXTRA), "-pthread")
        self.agree(f"{first}:first_a", f"{first}:first_b", f"{second}:second_a", f"{second}:second_b")

    def one_definition(self):
        """The link-time optimiser compares the types and functions of units that see the headers differently."""
        optimise = ["-O1", "-flto"]
        linker = ("g++", "-shared", "-fPIC", *optimise, "-Wodr", "-Wlto-type-mismatch", "-Werror", "-pthread")
        library = self.link("both", self.compile("host.cpp", "one", *optimise),
                            self.compile("host.cpp", "other", *optimise, "-DREVERSED", *NOTHING_EXTRA), linker=linker)
        self.agree(f"{library}:one", f"{library}:other")
        # The control: two units that do not agree are found out.
        units = []
        for member in ("int", "float"):
            units.append(self.path(f"{member}.cpp"))
            with open(units[-1], "w", encoding="utf-8") as file:
                file.write(f"struct s {{ {member} x; virtual int f() {{ return 1; }} virtual ~s() = default; }};\n"
                           f"int use_{member}(s* p) {{ return p->f() + static_cast<int>(p->x); }}\n")
        call(*linker, *units, "-o", self.path("control.so"), fails=True)

    def cuda_two_libraries(self):
        """Two libraries with kernels, and two CUDA runtimes, in one process. Without a device nothing is launched."""
        self.cuda()
        nvcc = (self.args.nvcc, "-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90a,code=sm_90a",
                "-Xcompiler=-fPIC,-Wall,-Wextra", "-Werror=all-warnings")
        host = self.compile("host.cpp", "first_host", "-O2")
        first = self.link("first", host, self.compile("device.cu", "first", "-O2", compiler=nvcc),
                          linker=(self.args.nvcc, "-shared", "-cudart=static"))
        runtime = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(self.args.nvcc))), "lib64")
        second = self.link("second", self.compile("device.cu", "second", "-Xcompiler=" + ",".join(NOTHING_EXTRA),
                                                  compiler=nvcc),
                           linker=(self.args.nvcc, "-shared", "-cudart=shared", f"-Xlinker=-rpath={runtime}"))
        self.agree(f"{first}:first_host", f"{first}:first", f"{second}:second")
        said = self.agree(f"{first}:first_launch", f"{second}:second_launch")
        print("launches:", said)
        if said.strip() not in ("merged", "no device"):
            sys.exit("a launch failed")

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
