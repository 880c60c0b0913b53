// Bad input of the cascade operators: every rule of check, and what plans promise.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/bad_input.hpp"
#include "support/cascade_input.hpp"
#include "support/catch.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/op/cascade.hpp"
#include "winnow/reference/cascade.hpp"

using namespace winnow;

namespace {

using attend_row = testing::bad_input<cascade_attend_params<bf16>>;
using insert_row = testing::bad_input<cascade_insert_params<bf16>>;
using prefill_row = testing::bad_input<cascade_prefill_params<bf16>>;

testing::cascade_shape shape_of(bool ragged) {
    return {.layout = even_cascade(2, 12, 3),
            .heads = 4,
            .kv_heads = 2,
            .batch = 2,
            .max_tokens = 5,
            .ragged = ragged,
            .sequence = {1, 0},
            .rotation = {.theta = 1e4f}};
}
testing::cascade_input<bf16>& input(bool ragged) {
    static testing::cascade_input<bf16> packed(shape_of(true)), plain(shape_of(false));
    return ragged ? packed : plain;
}
cascade_attend_params<bf16> valid(bool ragged = false) { return input(ragged).attend(input(ragged).memory().base()); }

template <class T>
T* shifted(T* p, std::uintptr_t bytes) {
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + bytes);
}

// What attention and insertion share.
template <class P>
std::vector<testing::bad_input<P>> shared_rules() {
    return {
        {[](P& p) { p.cache.layout.levels = 0; }, errc::out_of_range, "cache.layout.levels", 0},
        {[](P& p) { p.cache.layout.levels = 17; }, errc::out_of_range, "cache.layout.levels", 17},
        {[](P& p) { p.cache.layout.sinks = -1; }, errc::out_of_range, "cache.layout.sinks", -1},
        {[](P& p) { p.cache.layout.size[2] = 0; }, errc::out_of_range, "cache.layout.size", 0},
        {[](P& p) { p.cache.layout.accept.period[1] = 0; }, errc::out_of_range, "cache.layout.accept.period", 0},
        {[](P& p) { p.cache.layout.size[0] = p.cache.layout.size[1] = 1 << 30; }, errc::unsupported,
         "cache.layout.size", (std::int64_t{1} << 31) + 6},
        {[](P& p) { p.cache.sequences = -1; }, errc::bad_extent, "cache.sequences", -1},
        {[](P& p) { p.cache.sequences = std::numeric_limits<std::int32_t>::max(), p.cache.layout.size[0] = 1 << 24; },
         errc::unsupported, "cache.sequences", std::numeric_limits<std::int32_t>::max()},
        {[](P& p) { p.cache.kv_heads = 0; }, errc::bad_extent, "cache.kv_heads", 0},
        {[](P& p) { p.cache.kv_heads = 65536; }, errc::bad_extent, "cache.kv_heads", 65536},
        {[](P& p) { p.cache.kv_heads = 3; }, errc::bad_extent, "keys.extent[2]", 2},
        {[](P& p) { p.cache.head_dim = 96; }, errc::unsupported, "cache.head_dim", 96},
        {[](P& p) { p.cache.head_dim = 128; }, errc::bad_extent, "keys.extent[3]", 64},
        {[](P& p) { p.cache.heads = static_cast<cascade_heads>(2); }, errc::out_of_range, "cache.heads", 2},
        {[](P& p) { p.cache.stored = static_cast<cascade_keys>(2); }, errc::out_of_range, "cache.stored", 2},
        {[](P& p) { p.rotation.rotary_dim = 24; }, errc::out_of_range, "rotation.rotary_dim", 24},
        {[](P& p) { p.positions = static_cast<cascade_positions>(2); }, errc::out_of_range, "positions", 2},
        {[](P& p) { p.cache.memory = nullptr; }, errc::null_pointer, "cache.memory", 0},
        {[](P& p) { p.cache.memory = static_cast<char*>(p.cache.memory) + 16; }, errc::misaligned, "cache.memory", 16},
        {[](P& p) { p.keys.extent[1] = -1; }, errc::bad_extent, "keys.extent", -1},
        {[](P& p) { p.keys.data = nullptr; }, errc::null_pointer, "keys.data", 0},
        {[](P& p) { p.keys.data = shifted(p.keys.data, 2); }, errc::misaligned, "keys.data", 2},
        {[](P& p) { p.keys.stride[3] = 2; }, errc::bad_stride, "keys.stride[3]", 2},
        {[](P& p) { p.keys.stride[1] = 132; }, errc::misaligned, "keys.stride", 132},
        {[](P& p) { p.values.extent[0] = 1; }, errc::bad_extent, "values.extent", 1},
        {[](P& p) { p.values.data = nullptr; }, errc::null_pointer, "values.data", 0},
        {[](P& p) { p.values.stride[2] = 7; }, errc::misaligned, "values.stride", 7},
        {[](P& p) { p.values.stride[3] = 0; }, errc::bad_stride, "values.stride[3]", 0},
        {[](P& p) { p.rows.batch = 2; }, errc::null_pointer, "rows.start", 0},
        {[](P& p) { p.sequence = nullptr, p.cache.sequences = 1; }, errc::bad_extent, "cache.sequences", 1},
        {[](P& p) { p.sequence = shifted(p.sequence, 2); }, errc::misaligned, "sequence", 2},
        {[](P& p) { p.scores.extent[2] = 1; }, errc::bad_extent, "scores.extent", 1},
        {[](P& p) { p.scores.extent[1] = 4; }, errc::bad_extent, "scores.extent", 4},
        {[](P& p) { p.scores.data = nullptr; }, errc::null_pointer, "scores.data", 0},
        {[](P& p) { p.scores.data = shifted(p.scores.data, 2); }, errc::misaligned, "scores.data", 2},
    };
}

template <class P>
std::vector<testing::bad_input<P>> ragged_rules() {
    return {
        {[](P& p) { p.keys.extent[0] = p.values.extent[0] = 2; }, errc::bad_extent, "keys.extent[0]", 2},
        {[](P& p) { p.rows.batch = 0; }, errc::bad_extent, "rows.batch", 0},
        {[](P& p) { p.rows.batch = 65536; }, errc::unsupported, "batch", 65536},
        {[](P& p) { p.rows.max_length = 0; }, errc::out_of_range, "rows.max_length", 0},
        {[](P& p) { p.rows.max_length = 100; }, errc::out_of_range, "rows.max_length", 100},
        {[](P& p) { p.rows.start = shifted(p.rows.start, 1); }, errc::misaligned, "rows.start", 1},
    };
}

}  // namespace

TEST_CASE("check cascade_attend: every rule", "[op]") {
    using P = cascade_attend_params<bf16>;
    auto const run = [](P const& p) { return check(p); };
    testing::require_statuses(valid(), shared_rules<P>(), run);
    testing::require_statuses(valid(true), ragged_rules<P>(), run);
    testing::require_statuses(
        valid(),
        std::vector<attend_row>{
            {[](P& p) { p.queries.extent[1] = p.output.extent[1] = p.lse.values.extent[1] = 4; }, errc::bad_extent,
             "queries.extent[1]", 4},
            {[](P& p) { p.queries.extent[2] = 3; }, errc::bad_extent, "queries.extent[2]", 3},
            {[](P& p) { p.queries.data = nullptr; }, errc::null_pointer, "queries.data", 0},
            {[](P& p) { p.output.data = nullptr; }, errc::null_pointer, "output.data", 0},
            {[](P& p) { p.output.extent[1] = 4; }, errc::bad_extent, "output.extent", 4},
            {[](P& p) { p.output.stride[1] = 0; }, errc::bad_stride, "output.stride", 0},
            {[](P& p) { p.lse.values.extent[2] = 1; }, errc::bad_extent, "lse.values.extent", 1},
            {[](P& p) { p.lse.base = static_cast<lse_base>(9); }, errc::out_of_range, "lse.base", 9},
            {[](P& p) { p.scale = 0; }, errc::out_of_range, "scale", 0},
            {[](P& p) { p.rotation.theta = -1; }, errc::out_of_range, "rotation.theta", -1},
            {[](P& p) { p.scores.stride[1] = 0; }, errc::bad_stride, "scores.stride", 0},
            {[](P& p) { p.scorer.rows = -1; }, errc::out_of_range, "scorer.rows", -1},
            {[](P& p) { p.scorer.beta = 0; }, errc::out_of_range, "scorer.beta", 0},
            {[](P& p) { p.scorer.beta = 1.5; }, errc::out_of_range, "scorer.beta", 2},
            {[](P& p) { p.scorer.beta = std::numeric_limits<double>::quiet_NaN(); }, errc::out_of_range, "scorer.beta",
             0},
            {[](P& p) { p.scorer.reduction = static_cast<cascade_reduction>(3); }, errc::out_of_range,
             "scorer.reduction", 3},
        },
        run);
}

TEST_CASE("check cascade_insert: every rule", "[op]") {
    using P = cascade_insert_params<bf16>;
    auto const run = [](P const& p) { return check(p); };
    testing::require_statuses(insert_part(valid()), shared_rules<P>(), run);
    testing::require_statuses(insert_part(valid(true)), ragged_rules<P>(), run);
    P p = insert_part(valid());
    p.scores = {};
    CHECK(check(p).ok());
    p.keys.extent[0] = p.values.extent[0] = 0;  // an empty batch needs no memory
    p.keys.data = p.values.data = nullptr, p.sequence = nullptr;
    CHECK(check(p).ok());
}

TEST_CASE("check cascade_prefill: every rule of its own", "[op]") {
    using P = cascade_prefill_params<bf16>;
    auto const a = valid();
    P p;
    p.queries = a.queries, p.keys = a.keys, p.values = a.values, p.cache = a.cache, p.sequence = a.sequence;
    p.output = a.output, p.lse = a.lse, p.scale = a.scale, p.rotation = a.rotation, p.chunk = 2;
    testing::require_statuses(p,
                              std::vector<prefill_row>{
                                  {[](P& q) { q.chunk = 0; }, errc::out_of_range, "chunk", 0},
                                  {[](P& q) { q.scale = -1; }, errc::out_of_range, "scale", -1},
                                  {[](P& q) { q.scorer.beta = -1; }, errc::out_of_range, "scorer.beta", -1},
                                  {[](P& q) { q.cache.memory = nullptr; }, errc::null_pointer, "cache.memory", 0},
                              },
                              [](P const& q) { return check(q); });
    CHECK(plan(p, device_info{}));
    p.chunk = 0;
    CHECK_FALSE(plan(p, device_info{}));
}

TEST_CASE("check cascade: one sequence", "[op]") {
    auto const cache = valid().cache;
    CHECK(check_sequence(cache, 1, "to").ok());
    CHECK(std::string(check_sequence(cache, 2, "to").field) == "to");
    CHECK(check_sequence(cache, -1, "to").value == -1);
}

TEST_CASE("plans of cascade operators", "[op]") {
    auto p = valid();
    device_info const device;
    auto const whole = plan(p, device);
    REQUIRE(whole);
    CHECK(whole.workspace_bytes % workspace_alignment == 0);
    // Keys and values of the cache and of the chunk, lined up; without scores and rotation less.
    CHECK(whole.values == round_up<std::size_t>(2 * 2 * (14 + 5) * 64 * 2, workspace_alignment));
    auto q = p;
    q.scores = {};
    CHECK(plan(q, device).workspace_bytes < whole.workspace_bytes);
    q.rotation = {};
    CHECK(plan(q, device).queries == plan(q, device).lengths);
    CHECK_FALSE(whole.same_layout(plan(q, device)));
    // A plan follows maxima alone.
    auto const ragged = plan(valid(true), device);
    input(true).draw_step({5, 1});
    CHECK(ragged.same_layout(plan(valid(true), device)));
    // Refused problems have no plan, and say why.
    q = p;
    q.scale = 0;
    CHECK(std::string(plan(q, device).why.field) == "scale");
    device_info old;
    old.compute_capability = 75;
    CHECK(plan(p, old).why.code == errc::unsupported);
    auto const insertion = plan(insert_part(p), device);
    REQUIRE(insertion);
    // A decode step over a rotated copy reads rows as they lie: sinks, two runs of each sub-cache, the token.
    CHECK(whole.segments == 0);
    testing::cascade_shape step{
        .layout = even_cascade(2, 12, 3), .max_tokens = 1, .stored = cascade_keys::with_rotated};
    testing::cascade_input<bf16> one(step);
    CHECK(plan(one.attend(one.memory().base()), device).segments == 8);
    step.ragged = true;
    testing::cascade_input<bf16> packed(step);
    CHECK(plan(packed.attend(packed.memory().base()), device).segments == 0);
    // Chunks of more than 64 tokens are scored by wgmma where it is, if TMA can address the queries; the others need no
    // offsets.
    testing::cascade_shape chunk{.heads = 4, .max_tokens = 65, .rotation = {}};
    testing::cascade_input<bf16> longer(chunk);
    auto scored = longer.attend(longer.memory().base());
    device_info portable;
    portable.instructions = 80;
    CHECK(plan(scored, device).score_path == attend_path::sm90);
    CHECK(plan(scored, portable).score_path == attend_path::sm80);
    CHECK_FALSE(plan(scored, device).same_layout(plan(scored, portable)));
    auto const with = plan(scored, device);
    CHECK(with.next_item - with.offsets == round_up<std::size_t>(4 * (128 + 128) * 4, workspace_alignment));
    scored.queries.stride[0] = -scored.queries.stride[0];
    scored.queries.extent[0] = scored.keys.extent[0] = scored.values.extent[0] = 2;  // reads extents alone
    CHECK(cascade_plan_of(scored, device).score_path == attend_path::sm80);
    scored.rotation = {.theta = 1e4f};  // rotated queries are packed
    CHECK(cascade_plan_of(scored, device).score_path == attend_path::sm90);
    chunk.max_tokens = 64;
    testing::cascade_input<bf16> shorter(chunk);
    CHECK(plan(shorter.attend(shorter.memory().base()), device).score_path == attend_path::sm80);
    CHECK(cascade_score_path_of(device, 128, 65, 256, std::int64_t{1} << 30) == attend_path::sm80);  // too many items
    CHECK(cascade_offset_pitch(128) == 256);
    CHECK(cascade_offset_pitch(129) == 384);
    for (std::int32_t const head_dim : {64, 128, 256}) {
        cascade_hopper_tile const tile = cascade_hopper_tile_of(head_dim);
        CHECK(tile.row_tiles * tile.column_parts == 2);
        CHECK(tile.queries == cascade_hopper_tile_of(128).queries);  // offsets are laid out for all
    }
    // Splits of a decode step cover all rows, none is empty, and they fit a part at once.
    for (std::int32_t const head_dim : {64, 128, 256})
        for (std::int32_t const kv_heads : {1, 8, 96})
            for (std::int32_t const group : {1, 4, 40})
                for (std::int32_t const rows : {1, 64, 65, 16449, 1 << 20}) {
                    cascade_splits const s = cascade_splits_of(head_dim, kv_heads, group, rows);
                    std::int32_t const keys = attend_tile_of({head_dim, attend_rows::decode}).keys;
                    CHECK(s.count * s.steps * keys >= rows);
                    CHECK((s.count - 1) * s.steps * keys < rows);
                    CHECK(s.tile_heads * s.head_groups >= group);
                    CHECK((s.count == 1 || s.count * kv_heads * s.head_groups <= 132 * 5));
                }
    // Moves of a sequence and head at most: five tokens, into three sub-caches of four slots.
    CHECK(max_cascade_moves(p.cache.layout, 5) == 2 + 3 * 4);
    CHECK(insertion.workspace_bytes - insertion.staged == 2 * 2 * 14 * 2 * 64 * 2);
}

TEST_CASE("check cascade: a failed call writes nothing", "[op]") {
    auto& in = input(false);
    std::vector<char> const before(in.memory().base(), in.memory().base() + in.memory().size());
    auto p = valid();
    p.scorer.beta = 2;
    CHECK_FALSE(reference::cascade_attend(p).ok());
    p.cache.layout.levels = 0;
    CHECK_FALSE(reference::cascade_insert(insert_part(p)).ok());
    CHECK(std::vector<char>(in.memory().base(), in.memory().base() + in.memory().size()) == before);
}
