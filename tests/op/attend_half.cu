// attend in fp16: fewer samples, the code is the same but for the conversions.
#include <cstdint>

#include "support/catch.hpp"
#include "support/gpu_attend.hpp"

using namespace winnow;

TEST_CASE("attend fp16: samples, head_dim 64", "[gpu]") { testing::check_samples<fp16>(64, 64); }
TEST_CASE("attend fp16: samples, head_dim 128", "[gpu]") { testing::check_samples<fp16>(128, 64); }
TEST_CASE("attend fp16: samples, head_dim 256", "[gpu]") { testing::check_samples<fp16>(256, 64); }

TEST_CASE("attend fp16: small samples", "[gpu][small]") {
    for (std::int32_t const head_dim : {64, 128, 256}) testing::check_samples<fp16>(head_dim, 4, true);
}
