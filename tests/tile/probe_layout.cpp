// Query rows in shared memory: every word has a place of its own, banks do not conflict, and wgmma's steps find the
// channels that a lane's registers hold.
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

TEST_CASE("probe_layout: a step of wgmma multiplies the channels that a lane holds", "[tile]") {
    for (std::uint32_t const rows : {64u, 128u})
        for (std::uint32_t const chunks : {8u, 16u, 32u}) {
            std::set<std::uint32_t> places;
            for (std::uint32_t row = 0; row < rows; ++row)
                for (std::uint32_t step = 0; step < chunks / 2; ++step)
                    for (std::uint32_t q = 0; q < 4; ++q)
                        for (std::uint32_t half = 0; half < 2; ++half) {
                            // Lane q holds channels 2 q and 2 q + 1 of the step (half 0), and those 8 further (half 1):
                            // words 2 (step % 2) + half of chunk 4 (step / 2) + q. The hardware reads them at 4 q +
                            // 16 half bytes of the step's 32, the 16-byte piece permuted by the row's low three bits.
                            std::uint32_t const plain =
                                (step / 4 * rows + row) * 128 + step % 4 * 32 + half * 16 + q * 4;
                            std::uint32_t const read = plain ^ ((plain >> 3) & 0x70u);
                            std::uint32_t const chunk = step / 2 * 4 + q, word = step % 2 * 2 + half;
                            CHECK(query_word_offset(rows, row, chunk, word) == read);
                            places.insert(read);
                        }
            CHECK(places.size() == std::size_t{rows} * chunks * 4);
            CHECK(*places.rbegin() < rows * chunks * 16);
        }
}
