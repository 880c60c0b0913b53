#!/bin/sh
# Builds and runs the quickstart: sparse attention next to dense attention, on a real model's queries, keys and values.
#   sh examples/quickstart.sh [options of the program]
# Installs what is missing (Debian and Ubuntu packages) and says so first. With nvcc and a GPU it runs the CUDA kernels;
# without, the double-precision reference on the processor.
set -eu
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }
missing=
have cmake || missing="$missing cmake"
have ninja || missing="$missing ninja-build"
have g++ || missing="$missing g++"
if [ -n "$missing" ]; then
    echo "Installing with apt-get:$missing"
    as_root=
    [ "$(id -u)" = 0 ] || { have sudo && as_root=sudo; }
    $as_root apt-get update -q
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
fi

# The device alone decides what is compiled: one architecture, and nothing of CUDA without a device to run it.
cuda="-DWINNOW_CUDA=OFF"
device="the processor (no GPU with nvcc here)"
if { have nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } && have nvidia-smi && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
    [ "$capability" = 90 ] && capability=90a
    cuda="-DWINNOW_CUDA=ON -DWINNOW_CUDA_ARCHITECTURES=$capability-real"
fi

build=build/quickstart
mkdir -p build
echo "Building for $device"
# shellcheck disable=SC2086
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWINNOW_BUILD_TESTS=OFF -DWINNOW_BUILD_BENCH=OFF $cuda >"$build.log" 2>&1 ||
    { cat "$build.log"; exit 1; }
cmake --build "$build" --target quickstart
picture=$PWD/$build/quickstart.svg
"$build/examples/quickstart" --output "$picture" "$@"
[ -s "$picture" ] || { echo "the program wrote no picture" >&2; exit 1; }
echo "Picture: $picture"
