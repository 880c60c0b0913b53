// main() of the GPU tests: without a device it skips (exit code 77) unless it is only asked to list or to help.
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>

namespace {

constexpr int exit_code_skipped = 77;  // what CTest's SKIP_RETURN_CODE names

// Listing happens while building, on machines without a GPU. Read from argv: Catch2's two versions name the fields of
// their parsed options differently.
bool only_asks(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        char const* const a = argv[i];
        if (std::strncmp(a, "--list-", 7) == 0 || std::strcmp(a, "--help") == 0 || std::strcmp(a, "-h") == 0 ||
            std::strcmp(a, "-?") == 0) {
            return true;
        }
    }
    return false;
}

}  // namespace

int main(int argc, char** argv) {
    int devices = 0;
    if (!only_asks(argc, argv) && (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)) {
        std::puts("skipped: no device");
        return exit_code_skipped;
    }
    return Catch::Session().run(argc, argv);
}
