// A view has as many axes as its field: [token, head, channel] is no [batch, token, head, channel].
// expect: no match for .operator=|cannot convert|could not convert
#include <winnow/core/dtype.hpp>
#include <winnow/op/attend.hpp>

void use(winnow::attend_params<winnow::bf16>& p, winnow::bf16* data) {
    p.output = winnow::packed_view(data, {1, 16, 8, 64});
#ifdef MUST_FAIL
    p.output = winnow::packed_view(data, {16, 8, 64});
#endif
}
