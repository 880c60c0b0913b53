// How pruning's scoring is cut into blocks: which heads share probes, and how many chunks one block takes.
#include "winnow/policy/prune_policy.hpp"

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("prune_policy: heads are scored together exactly where they look at the same probes", "[policy]") {
    constexpr std::int32_t group = 3;
    for (auto const how : {scorer::tree_probe, scorer::tree_probe_first, scorer::centre_probe, scorer::mean_key})
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

TEST_CASE("prune_policy: a block's probes fill its columns", "[policy]") {
    CHECK(chunks_per_block(scorer::tree_probe) * 2 == prune_probes);  // both halves of a chunk at a time
    CHECK(chunks_per_block(scorer::tree_probe_first) * 2 == prune_probes);
    CHECK(chunks_per_block(scorer::centre_probe) == prune_probes);
    CHECK(chunks_per_block(scorer::mean_key) == prune_probes);
}
