// What the device-side check found, as a status: each rule names its field and the value that stands there.
#include "winnow/core/contents_fault.hpp"

#include <string>

#include "support/catch.hpp"

using namespace winnow;

TEST_CASE("contents_fault: no fault is success", "[core]") { STATIC_REQUIRE(status_of(contents_fault{}).ok()); }

TEST_CASE("contents_fault: every rule gives its code, field and value", "[core]") {
    struct {
        contents_rule rule;
        errc code;
        char const* field;
    } const cases[] = {
        {contents_rule::row_start, errc::out_of_range, "rows.start"},
        {contents_rule::key_start, errc::out_of_range, "kv.start"},
        {contents_rule::key_length, errc::out_of_range, "kv.length"},
        {contents_rule::last_page_length, errc::out_of_range, "kv.last_page_length"},
        {contents_rule::page_id, errc::out_of_range, "kv.pages"},
        {contents_rule::list_count, errc::out_of_range, "selection.counts"},
        {contents_rule::block_id, errc::out_of_range, "selection.blocks"},
        {contents_rule::ascending, errc::not_ascending, "selection.blocks"},
    };
    for (auto const& c : cases) {
        status const s = status_of({.order = 5, .rule = c.rule, .request = 1, .value = -9});
        CHECK(s.code == c.code);
        CHECK(std::string(s.field) == c.field);
        CHECK_FALSE(std::string(s.rule).empty());
        CHECK(s.value == -9);
    }
}
