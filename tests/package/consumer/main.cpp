// Prints the version; with other.cpp and device.cu it also shows that several translation units link into one program.
#include <winnow/version.hpp>
#include <winnow/winnow.hpp>

#include <cstdio>

int version_in_other_file();
int version_in_cuda_file();

int main() {
    int const here = winnow::version_major * 10000 + winnow::version_minor * 100 + winnow::version_patch;
#ifdef CONSUMER_CUDA
    if (version_in_cuda_file() != here) return 1;
#endif
    if (version_in_other_file() != here) return 1;
    std::printf("winnow %d.%d.%d\n", winnow::version_major, winnow::version_minor, winnow::version_patch);
    return 0;
}
