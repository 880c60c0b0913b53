// The pages name limits; these are what the lists in the headers hold.
#include <fstream>
#include <sstream>
#include <string>

#include "support/catch.hpp"
#include "winnow/core/dtype.hpp"
#include "winnow/op/check.hpp"

using namespace winnow;

namespace {

std::string page(char const* name) {
    std::ifstream const file(std::string(WINNOW_ROOT "/") + name);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// "8, 16 or 32"
template <auto... Values>
std::string in_words(value_list<Values...>) {
    std::string text;
    int left = sizeof...(Values);
    (void)((text += std::to_string(Values) + (--left > 1 ? ", " : left == 1 ? " or " : ""), true) && ...);
    return text;
}

bool says(std::string const& text, std::string const& what) { return text.find(what) != std::string::npos; }

}  // namespace

TEST_CASE("limits: pages and messages name the values that the headers list") {
    auto const head_dims = in_words(supported_head_dims{}), blocks = in_words(supported_block_sizes{});
    for (auto const* name : {"README.md", "docs/attend.md"}) {
        INFO(name << ": " << head_dims << "; " << blocks);
        CHECK(says(page(name), "head_dim " + head_dims) | says(page(name), "| head_dim | " + head_dims));
        CHECK(says(page(name), blocks + " keys"));
    }
    tensor_view<bf16 const, 4> queries, keys;
    queries.extent[3] = 96;
    CHECK(says(check_queries_and_keys(queries, {}, keys, {}).rule, head_dims));
    block_selection selection;
    selection.block_size = 24;
    CHECK(says(check_selection(selection, batch_shape{}).rule, blocks));
}
