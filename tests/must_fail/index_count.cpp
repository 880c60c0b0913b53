// Reading an element takes one index per axis.
// expect: one index per axis
#include <winnow/core/tensor_view.hpp>

float use(winnow::tensor_view<float, 3> view) {
#ifdef MUST_FAIL
    return view(0, 1);
#else
    return view(0, 1, 2);
#endif
}
