// The CUDA translation unit of an engine.
#include <winnow/version.hpp>
#include <winnow/winnow.cuh>

int version_in_cuda_file() {
    return winnow::version_major * 10000 + winnow::version_minor * 100 + winnow::version_patch;
}
