// A view of mutable elements serves where const ones are read, and not the other way round.
// expect: could not convert|cannot convert|conversion from .* requested
#include <winnow/core/tensor_view.hpp>

winnow::tensor_view<float const, 3> read(winnow::tensor_view<float, 3> view) { return view; }

#ifdef MUST_FAIL
winnow::tensor_view<float, 3> write(winnow::tensor_view<float const, 3> view) { return view; }
#endif
