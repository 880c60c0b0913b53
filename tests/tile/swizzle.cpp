// Shared-memory layout: a bijection on the tile whose 8-row columns hit 8 different 16-byte bank groups.
#include "winnow/tile/swizzle.hpp"

#include <cstdint>
#include <set>

#include "support/catch.hpp"

using namespace winnow;

namespace {

template <int Columns>
void check_layout() {
    constexpr std::uint32_t chunks = Columns / 8, rows = 64;
    std::set<std::uint32_t> offsets;
    int conflicts = 0, steps = 0;
    for (std::uint32_t row = 0; row < rows; ++row)
        for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
            std::uint32_t const at = swizzled<Columns>(row, chunk);
            CHECK(at / (Columns * 2) == row);  // a row stays in its place
            offsets.insert(at);
            steps += swizzled_step(swizzled<Columns>(row, chunk % 2), chunk / 2) != at;
        }
    CHECK(offsets.size() == rows * chunks);
    for (std::uint32_t row = 0; row < rows; row += 8)
        for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
            std::set<std::uint32_t> banks;  // 128 bytes of banks, 16 bytes a lane of ldmatrix
            for (std::uint32_t i = 0; i < 8; ++i) banks.insert(swizzled<Columns>(row + i, chunk) % 128);
            conflicts += banks.size() != 8;
        }
    CHECK(conflicts == 0);
    CHECK(steps == 0);
}

}  // namespace

TEST_CASE("swizzle: a permutation of each row without bank conflicts, in steps of two chunks", "[tile]") {
    check_layout<32>();
    check_layout<64>();
    check_layout<128>();
    check_layout<256>();
}
