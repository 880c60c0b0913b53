#!/bin/sh
# Builds and runs the whole test suite; the last line is 'N passed, N failed, N skipped'.
#   sh tests/run.sh [--all]
# Installs what is missing (Debian and Ubuntu packages) and says so first. GPU tests run where a device is and are
# skipped where not. --all, or CI=true, repeats the host tests under AddressSanitizer and UndefinedBehaviorSanitizer.
set -u
cd "$(dirname "$0")/.." || exit 2
everything=
[ "${CI:-}" = true ] && everything=yes
case ${1:-} in
'') ;;
--all) everything=yes ;;
*) echo "usage: sh tests/run.sh [--all]" >&2; exit 2 ;;
esac

# --- Tools ---

have() { command -v "$1" >/dev/null 2>&1; }
have_catch2() {
    printf '#if !__has_include(<catch2/catch_test_macros.hpp>) && !__has_include(<catch2/catch.hpp>)\n#error\n#endif\n' |
        g++ -std=c++20 -x c++ -E - >/dev/null 2>&1 || [ -n "${Catch2_DIR:-}${CMAKE_PREFIX_PATH:-}" ]
}
missing=
have cmake || missing="$missing cmake"
have ninja || missing="$missing ninja-build"
have g++ || missing="$missing g++"
have clang++ || missing="$missing clang"
have clang-format || missing="$missing clang-format"
have clang-tidy || missing="$missing clang-tidy"
have doxygen || missing="$missing doxygen"
have python3 || missing="$missing python3"
have_catch2 || missing="$missing catch2"
[ -z "$everything" ] || [ -e /usr/include/benchmark/benchmark.h ] || [ -n "${CMAKE_PREFIX_PATH:-}" ] ||
    missing="$missing libbenchmark-dev"
if [ -n "$missing" ]; then
    echo "Installing with apt-get:$missing"
    as_root=
    [ "$(id -u)" = 0 ] || { have sudo && as_root=sudo; }
    # A failure is not the end: without clang's tools or Doxygen a few tests are skipped, and CMake names what it cannot
    # do without.
    # shellcheck disable=SC2086
    $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy $missing ||
        echo "apt-get failed; going on with what is here"
fi
have python3 || { echo "There is no python3."; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
if have nvcc || [ -x /usr/local/cuda/bin/nvcc ]; then
    preset=gpu
else
    preset=host
    echo "There is no nvcc: the CUDA tests and compile checks are left out."
fi
jobs=$(nproc)

# --- Build and run; a step that fails is counted, and the rest still runs ---

failed_steps=
junit=
# step NAME COMMAND...
step() {
    name=$1
    shift
    echo "== $name"
    "$@" || { failed_steps="$failed_steps --failed-step $name"; return 1; }
}
# suite PRESET [cmake options]: configures, builds and tests one preset
suite() {
    suite_preset=$1
    shift
    step "configure_$suite_preset" cmake --preset "$suite_preset" "$@" || return
    step "build_$suite_preset" cmake --build --preset "$suite_preset" -j "$jobs" -- -k 0
    results=$PWD/build/$suite_preset/junit.xml
    rm -f "$results"
    # CTest's exit code says nothing that its results file does not.
    echo "== test_$suite_preset"
    ctest --preset "$suite_preset" -j "$jobs" --output-junit "$results"
    junit="$junit $results"
}
# Speed is measured by hand, on a device; what measures it is only compiled, and only here. Warnings are errors here and not
# for a stranger, whose compiler may know warnings that ours does not. (The sanitizers' instrumentation makes GCC warn of
# what is not there, so that build has no -Werror.)
if [ "$everything" ]; then
    suite "$preset" -DWINNOW_BUILD_BENCH=ON -DWINNOW_WERROR=ON
    suite asan
else
    suite "$preset" -DWINNOW_BUILD_BENCH=OFF -DWINNOW_WERROR=OFF
fi

echo
[ "$preset" = gpu ] || echo "There was no nvcc: the CUDA tests and compile checks were left out."
python3 tests/support/tree_hash.py --check
# shellcheck disable=SC2086
python3 tests/support/summarize.py $failed_steps $junit
