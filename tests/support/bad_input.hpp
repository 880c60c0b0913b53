// Tables of bad inputs: each breaks one rule of valid params, and must come back as that rule's status.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "winnow/core/status.hpp"

namespace winnow::testing {

/// How to break valid params, and what must be reported.
template <class Params>
struct bad_input {
    std::function<void(Params&)> spoil;
    errc code;
    char const* field;
    std::int64_t value;
};

/// `run(params)` gives a status. The valid params must pass, every spoilt copy must fail as its row says.
template <class Params, class Run>
void require_statuses(Params const& valid, std::vector<bad_input<Params>> const& table, Run const& run) {
    status const good = run(valid);
    INFO("valid params: " << good.field << " " << good.rule);
    REQUIRE(good.ok());
    for (std::size_t i = 0; i < table.size(); ++i) {
        Params p = valid;
        table[i].spoil(p);
        status const s = run(p);
        INFO("row " << i << ", expected " << table[i].field << ": found '" << s.field << " " << s.rule << "'");
        CHECK(name(s.code) == std::string(name(table[i].code)));
        CHECK(std::string(s.field) == table[i].field);
        CHECK(s.value == table[i].value);
        CHECK_FALSE(std::string(s.rule).empty());
    }
}

}  // namespace winnow::testing
