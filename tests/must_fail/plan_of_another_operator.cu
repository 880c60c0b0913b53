// A launch takes the plan of its own operator.
// expect: no instance of overloaded function .winnow::launch. matches
#include <winnow/winnow.cuh>

winnow::status use(winnow::merge_params<float> const& p, winnow::merge_plan const& plan,
                   winnow::prune_plan const& other) {
#ifdef MUST_FAIL
    return winnow::launch(p, other, {}, nullptr);
#else
    (void)other;
    return winnow::launch(p, plan, {}, nullptr);
#endif
}
