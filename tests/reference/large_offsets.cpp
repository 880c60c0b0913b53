// Tensors whose elements lie more than 2^31 apart: addresses are formed in 64 bits.
#if defined(__linux__)
#include <sys/mman.h>

#include <cstdint>

#include "support/catch.hpp"
#include "support/random_input.hpp"
#include "winnow/reference/attend.hpp"
#include "winnow/reference/prune.hpp"

using namespace winnow;

namespace {

// Address space without memory behind it, until a page is touched.
class reservation {
public:
    explicit reservation(std::size_t bytes)
        : bytes_(bytes),
          data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
    reservation(reservation const&) = delete;
    ~reservation() {
        if (*this) munmap(data_, bytes_);
    }
    explicit operator bool() const { return data_ != MAP_FAILED; }
    bf16* data() const { return static_cast<bf16*>(data_); }

private:
    std::size_t bytes_;
    void* data_;
};

// Copies a tensor to the same indices with another stride on one axis.
tensor_view<bf16 const, 4> spread(tensor_view<bf16 const, 4> const& from, bf16* memory, int axis, std::int64_t stride) {
    tensor_view<bf16, 4> to = from.over(memory);
    to.stride[axis] = stride;
    for (std::int64_t a = 0; a < to.extent[0]; ++a)
        for (std::int64_t b = 0; b < to.extent[1]; ++b)
            for (std::int64_t c = 0; c < to.extent[2]; ++c)
                for (std::int64_t d = 0; d < to.extent[3]; ++d) to(a, b, c, d) = from(a, b, c, d);
    return to;
}

}  // namespace

TEST_CASE("reference: offsets beyond 2^31 elements", "[reference]") {
    std::int64_t const far = (std::int64_t{1} << 31) + 64;
    reservation const keys(static_cast<std::size_t>(far) * 2 + (1 << 20)),
        values(static_cast<std::size_t>(far) * 2 + (1 << 20));
    if (!keys || !values) {
        WARN("no address space for this test");
        return;
    }
    testing::attend_input<bf16> in({.queries = {3, 3}, .keys = {40, 33}, .heads = 2, .kv_heads = 2});
    auto p = in.params();
    reference::attend_result near_by, far_apart;
    REQUIRE(reference::attend(p, &near_by).ok());
    for (int const axis : {0, 2}) {  // requests apart, heads apart
        p.keys = spread(in.params().keys, keys.data(), axis, far);
        p.values = spread(in.params().values, values.data(), axis, far);
        REQUIRE(reference::attend(p, &far_apart).ok());
        CHECK(far_apart.output == near_by.output);
    }
    prune_method method = hip_tiny;
    method.window = {0, 0};
    method.stages[1].keep = 2;
    auto q = testing::prune_params_of(in.params(), method);
    reference::selection_storage const expected(method, q.shape()), found(method, q.shape());
    q.selection = expected.view;
    REQUIRE(reference::prune(q).ok());
    q.keys = p.keys;
    q.selection = found.view;
    REQUIRE(reference::prune(q).ok());
    CHECK(found.blocks == expected.blocks);
    CHECK(found.counts == expected.counts);
}
#endif
