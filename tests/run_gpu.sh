#!/bin/sh
# On a machine with a GPU: builds the GPU tests with all cores, runs them, runs their [small] cases under
# compute-sanitizer, and writes tests/gpu_record.json.
#   sh tests/run_gpu.sh [--no-build] [--native] [--only REGEX] [--no-sanitizer]
# --native builds for this machine's device alone, in about half the time. The last two record nothing.
set -eu
cd "$(dirname "$0")/.."
build=build/gpu
do_build=yes
architectures=
options=
while [ $# -gt 0 ]; do
    case $1 in
    --no-build) do_build= ;;
    --native)
        capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
        [ "$capability" = 90 ] && capability=90a
        architectures=-DWINNOW_CUDA_ARCHITECTURES=$capability-real
        ;;
    --only) options="$options --only $2"; shift ;;
    --no-sanitizer) options="$options --no-sanitizer" ;;
    *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
if [ "$do_build" ]; then
    # shellcheck disable=SC2086 # empty means no option
    cmake --preset gpu -DWINNOW_BUILD_BENCH=OFF -DWINNOW_BUILD_EXAMPLES=OFF $architectures
    # -k 0: one file that does not compile must not hide the results of the others; the record counts it as failed.
    cmake --build --preset gpu --target winnow_tests_gpu -- -k 0 || echo "some GPU tests were not built"
fi
# shellcheck disable=SC2086
exec python3 tests/support/gpu_record.py --build "$build" $options
