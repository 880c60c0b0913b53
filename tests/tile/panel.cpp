// Panels as TMA writes and wgmma reads them, in both orders of atoms, and the ring that stages go round in.
#include "winnow/tile/panel.hpp"

#include <cstdint>
#include <set>

#include "support/catch.hpp"
#include "winnow/tile/pipeline.hpp"

using namespace winnow;

namespace {

template <int Rows, int Channels, atom_order Order>
void check_tile() {
    using tile = key_tile<Rows, Channels, Order>;
    std::set<std::uint32_t> starts;
    for (int row = 0; row < Rows; ++row)
        for (int panel = 0; panel < tile::panels; ++panel) {
            std::uint32_t const at = tile::row_offset(row, panel);
            starts.insert(at);
            CHECK(at % 1024 / 128 == static_cast<std::uint32_t>(row % 8));  // the swizzle takes the row from there
        }
    CHECK(starts.size() == static_cast<std::size_t>(Rows * tile::panels));
    CHECK(*starts.rbegin() + 128 == Rows * Channels * 2);
    for (int step = 0; step < Channels / 16; ++step)  // 32 bytes a step along a row, then the next panel
        CHECK(tile::channel_step(step) * 16 ==
              tile::row_offset(0, step / 4) + static_cast<std::uint32_t>(step % 4 * 32));
    for (int step = 0; step < Rows / 16; ++step)
        for (int panel = 0; panel < tile::panels; ++panel)
            CHECK(tile::row_step(step, panel) * 16 == tile::row_offset(16 * step, panel));
}

}  // namespace

TEST_CASE("panel: every row of every panel has a place, and steps lead there", "[tile]") {
    check_tile<128, 64, atom_order::panels>();
    check_tile<128, 128, atom_order::panels>();
    check_tile<128, 128, atom_order::rows>();
    check_tile<80, 256, atom_order::panels>();
    check_tile<80, 256, atom_order::rows>();
}

TEST_CASE("panel: chunks of 8 rows lie in 8 bank groups", "[tile]") {
    for (std::uint32_t chunk = 0; chunk < 16; ++chunk) {
        std::set<std::uint32_t> banks;
        for (std::uint32_t row = 0; row < 8; ++row) banks.insert(panel_offset<64>(row, chunk) % 128);
        CHECK(banks.size() == 8);
    }
}

TEST_CASE("panel: the bits of a descriptor", "[tile]") {
    std::uint64_t const d = matrix_descriptor(0x12400, 16, 1024);
    CHECK((d & 0x3fff) == 0x1240);
    CHECK((d >> 16 & 0x3fff) == 1);
    CHECK((d >> 32 & 0x3fff) == 64);
    CHECK(d >> 62 == 1);  // 128-byte swizzle
}

TEST_CASE("pipeline: slots and parities follow each other", "[tile]") {
    std::uint32_t round[3] = {0, 0, 0};
    for (std::uint32_t i = 0; i < 50; ++i) {
        ring_position<3> const at{i};
        CHECK(at.stage() == i % 3);
        CHECK(at.parity() == round[at.stage()] % 2);
        CHECK(at.free_parity() == (round[at.stage()] + 1) % 2);
        ++round[at.stage()];
    }
}
