// A log-sum-exp tensor does not come without the base of its logarithm.
// expect: no match for .operator=|cannot convert|could not convert
#include <winnow/core/dtype.hpp>
#include <winnow/op/attend.hpp>

void use(winnow::attend_params<winnow::bf16>& p, winnow::tensor_view<float, 3> lse) {
    p.lse = winnow::natural_lse{lse};
#ifdef MUST_FAIL
    p.lse = lse;
#endif
}
