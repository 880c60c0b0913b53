// Query rows in shared memory: every chunk has a place of its own, and banks do not conflict.
#include "winnow/tile/probe_layout.hpp"

#include <set>

#include "support/catch.hpp"

using namespace winnow;

namespace {

template <int HeadDim>
void check_chunks() {
    std::set<std::uint32_t> places;
    for (std::uint32_t row = 0; row < 24; ++row)
        for (std::uint32_t chunk = 0; chunk < HeadDim / 8; ++chunk) {
            std::uint32_t const at = query_chunk_offset<HeadDim>(row, chunk);
            CHECK(at % 16 == 0);
            CHECK(at < 24 * HeadDim * 2);
            places.insert(at);
        }
    CHECK(places.size() == 24u * HeadDim / 8);
    // Eight lanes read at once: chunks q .. q + 3 of two neighbouring rows.
    for (std::uint32_t row = 0; row < 8; row += 2)
        for (std::uint32_t chunk = 0; chunk < HeadDim / 8; chunk += 4) {
            std::set<std::uint32_t> banks;
            for (std::uint32_t lane = 0; lane < 8; ++lane)
                banks.insert(query_chunk_offset<HeadDim>(row + lane / 4, chunk + lane % 4) % 128);
            CHECK(banks.size() == 8);
        }
}

}  // namespace

TEST_CASE("probe_layout: chunks fill rows, and eight lanes meet eight groups of banks", "[tile]") {
    check_chunks<64>();
    check_chunks<128>();
    check_chunks<256>();
}

TEST_CASE("probe_layout: chunks of fp8 keys meet the same chunks of query rows", "[tile]") {
    for (std::uint32_t const chunks : {8u, 16u, 32u}) {
        std::set<std::uint32_t> places;
        for (std::uint32_t i = 0; i < chunks / 8; ++i)
            for (std::uint32_t q = 0; q < 4; ++q)
                for (std::uint32_t half = 0; half < 2; ++half) {
                    // Lane q's load i is of 16 channels, its halves are part 2 i and the next; a product takes part j
                    // with what stands at place 4 j + q of the row.
                    std::uint32_t const channel = (i * 4 + q) * 16 + half * 8, part = 2 * i + half;
                    CHECK(widened_place(channel / 8) == 4 * part + q);
                    places.insert(widened_place(channel / 8));
                }
        CHECK(places.size() == chunks);
        CHECK(*places.rbegin() == chunks - 1);
    }
}
