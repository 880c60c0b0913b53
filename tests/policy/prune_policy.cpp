// How pruning's scoring is cut into blocks: which heads share probes, and how many chunks one block takes.
#include "winnow/policy/prune_policy.hpp"

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("prune_policy: heads are scored together exactly where they look at the same probes", "[policy]") {
    constexpr std::int32_t group = 3;
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key,
                           scorer::min_max_bound, scorer::antidiagonal})
        for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
            for (auto const path : {probe_path::per_head, probe_path::per_kv_group}) {
                prune_method m = hip_3k;
                m.scorer = how, m.sharing = share, m.path = path;
                std::int32_t const heads = heads_scored_together(m, group);
                // A tree's probes depend on the scores seen on the way, the others' on the chunk alone.
                bool const same_probes = !walks_tree(how) || path == probe_path::per_kv_group;
                bool const same_list = walks_tree(how) || share != sharing::per_head;
                CHECK(heads == (same_probes && same_list ? group : 1));
            }
}

TEST_CASE("prune_policy: units, walkers and heads cover every query head once, in order", "[policy]") {
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key,
                           scorer::min_max_bound, scorer::antidiagonal})
        for (auto const share : {sharing::per_batch, sharing::per_kv_group, sharing::per_head})
            for (auto const path : {probe_path::per_head, probe_path::per_kv_group})
                for (std::int32_t const group : {1, 3, 8}) {
                    prune_method m = hip_3k;
                    m.scorer = how, m.sharing = share, m.path = path;
                    prune_units const u = units_of(m, 4 * group, 4);
                    CHECK(u.units * u.walkers * u.heads == 4 * group);
                    CHECK(u.heads == heads_scored_together(m, group));
                    CHECK(group % (u.walkers * u.heads) == 0);  // a unit reads one KV head
                    // Every list is made of whole units, and every unit belongs to the lists of its heads.
                    std::int32_t const lists = list_heads_of(share, 4 * group, 4);
                    for (std::int32_t list = 0; list < lists; ++list) {
                        unit_range const range = units_of_list(list, lists, u.units);
                        for (std::int32_t head = 0; head < 4 * group; ++head) {
                            std::int32_t const unit = head / (u.walkers * u.heads);
                            bool const in = unit >= range.first && unit < range.first + range.count;
                            if (list_head_of(head, 4 * group, lists) == list) CHECK(in);
                            if (u.units >= lists) CHECK(in == (list_head_of(head, 4 * group, lists) == list));
                        }
                    }
                }
}

TEST_CASE("prune_policy: groups take every unit and every list once, those of a group equal", "[policy]") {
    for (std::int32_t const units : {1, 2, 8, 32})
        for (std::int32_t const lists : {1, 2, 8, 32}) {
            prune_groups const g = groups_of(lists, units);
            CHECK(g.count * g.units == units);
            CHECK(g.count * g.copies == lists);
            for (std::int32_t list = 0; list < lists; ++list) {
                unit_range const range = units_of_list(list, lists, units);
                CHECK(range.first == list / g.copies * g.units);
                CHECK(range.count == g.units);
            }
        }
}

TEST_CASE("prune_policy: a scoring block selects at decode alone, among no more than it has room for", "[policy]") {
    CHECK(selects_in_place(true, prune_select_in_place));
    CHECK(!selects_in_place(true, prune_select_in_place + 1));
    CHECK(!selects_in_place(false, 1));
}

TEST_CASE("prune_policy: selecting blocks are powers of two of warps, and small where lists are many", "[policy]") {
    for (std::int32_t candidates = 1; candidates <= 1 << 20; candidates *= 2)
        for (std::int64_t const lists : {1, 2048}) {
            int const threads = prune_select_threads_of(candidates, lists);
            CHECK(is_power_of_two(threads));
            CHECK(threads % 32 == 0);
            CHECK(threads <= prune_select_threads_of(candidates, 1));
            CHECK(threads <= prune_select_threads_of(candidates * 2, lists));
            CHECK(threads <= prune_select_threads);
        }
}

TEST_CASE("prune_policy: blocks take whole tiles, more of them where lists are many", "[policy]") {
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key,
                           scorer::min_max_bound, scorer::antidiagonal})
        for (int const head_dim : {64, 128, 256}) {
            std::int32_t const tile = chunks_per_tile(how, prune_tuning_of(head_dim, how).key_tiles);
            CHECK(tile >= 8);
            CHECK(chunks_per_block(tile, 1024, 1, 1, 4) == tile);
            CHECK(chunks_per_block(16, 512, 8, 1, 4) == 16);   // 256 blocks: one wave, three warps idle
            CHECK(chunks_per_block(16, 1024, 8, 1, 4) == 32);  // 512 would take a second one
            CHECK(chunks_per_block(16, 1024, 8, 4, 4) ==
                  16);  // all warps are busy as it is  // one decode step: blocks before chunks
            CHECK(chunks_per_block(tile, 1024, 4096, 4, 4) == prune_most_chunks);
            CHECK(chunks_per_block(tile, 1024, 4096, 1, 4) == prune_most_chunks_alone);
            CHECK(chunks_per_block(32, 1024, 4096, 4, 8, prune_most_chunks_alone) == prune_most_chunks_alone);
            for (std::int64_t const lists : {1, 8, 64, 100, 4096})
                for (std::int32_t const candidates : {1, 8, 500, 4092}) {
                    std::int32_t const chunks = chunks_per_block(tile, candidates, lists, 4, 4);
                    CHECK(chunks % tile == 0);
                    CHECK(chunks <= prune_most_chunks);
                }
        }
}

TEST_CASE("prune_policy: rows are held in whole products, walkers whole where they fit", "[policy]") {
    for (int const head_dim : {64, 128, 256}) {
        CHECK(prune_rows_held(head_dim) % prune_row_tile == 0);
        CHECK(prune_rows_held(head_dim) >= 128);  // one head's rows: the largest query block
    }
}

TEST_CASE("prune_policy: warpgroups search where rows fill their products, and only where they can", "[policy]") {
    prune_method m = hip_3k;
    CHECK(product_unit_of(m, 64, 90) == product_unit::warpgroup);
    CHECK(product_unit_of(m, 1024, 90) == product_unit::warpgroup);
    CHECK(product_unit_of(m, 63, 90) == product_unit::warpgroup_few);
    CHECK(product_unit_of(m, 16, 90) == product_unit::warpgroup_few);
    CHECK(product_unit_of(m, 15, 90) == product_unit::warp);  // decode of 8 heads
    CHECK(product_unit_of(m, 64, 80) == product_unit::warp);
    m.scorer = scorer::centre_probe;
    CHECK(product_unit_of(m, 64, 90) == product_unit::warp);
}

TEST_CASE("prune_policy: blocks of warpgroups fit, in pairs where rows are few", "[policy]") {
    constexpr std::size_t state = 16 * 1024;  // more than a block's state takes
    for (int const head_dim : {64, 128, 256}) {
        prune_walk_tile const tile = prune_walk_tile_of(head_dim);
        std::size_t const keys = static_cast<std::size_t>(tile.tiles * tile.keys * head_dim) * 2;
        for (product_unit const unit : {product_unit::warpgroup, product_unit::warpgroup_few})
            CHECK(prune_walk_rows_held(head_dim) % rows_of_product(unit) == 0);
        CHECK(prune_walk_rows_held(head_dim) >= 128);  // one head's rows: the largest query block
        for (std::int32_t rows = 16; rows <= prune_walk_rows_held(head_dim); rows += 16) {
            std::size_t const held = state + static_cast<std::size_t>(rows) * head_dim * 2;
            std::int32_t const groups = prune_walk_warpgroups(head_dim, held);
            INFO("head_dim " << head_dim << ", rows " << rows);
            CHECK(groups >= 2);
            CHECK(groups <= tile.warpgroups);
            CHECK(held + static_cast<std::size_t>(groups) * keys <= prune_walk_block_bytes);
        }
    }
    // hip_3k of 32 / 8 heads: two blocks of two warpgroups in the first stages, one of four in the last.
    CHECK(prune_walk_warpgroups(128, state + 64 * 256) == 2);
    CHECK(prune_walk_warpgroups(128, state + 256 * 256) == 4);
}

TEST_CASE("prune_policy: keys in fp8 take the registers of wider ones, so as many blocks run at a time", "[policy]") {
    for (int const head_dim : {64, 128, 256})
        for (auto const how : {scorer::tree_probe, scorer::centre_probe}) {
            prune_tuning const wide = prune_tuning_of(head_dim, how);
            prune_tuning const narrow = prune_tuning_of(head_dim, how, product_unit::widened);
            CHECK(narrow.blocks == wide.blocks);
            CHECK(narrow.key_tiles == wide.key_tiles);
            CHECK(rows_of_product(product_unit::widened) == prune_row_tile);
            CHECK(prune_row_copies(product_unit::widened, scan_style::relative) == 1);
        }
}
