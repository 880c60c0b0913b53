// Who ignores a status is warned, which this file makes an error.
// expect: ignoring returned value of type .winnow::status.
#pragma GCC diagnostic error "-Wunused-result"
#include <winnow/op/merge.hpp>

bool use(winnow::merge_params<float> const& p) {
#ifdef MUST_FAIL
    winnow::check(p);
    return true;
#else
    return winnow::check(p).ok();
#endif
}
