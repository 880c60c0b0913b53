// Attention has no kernels for fp32.
// expect: queries, keys and values are bf16 or fp16
#include <winnow/winnow.cuh>

#ifdef MUST_FAIL
using element = float;
#else
using element = winnow::bf16;
#endif

winnow::status use(winnow::attend_params<element> const& p, winnow::attend_plan const& plan) {
    return winnow::launch<winnow::attend_problem{64, winnow::attend_rows::decode}>(p, plan, {}, nullptr);
}
