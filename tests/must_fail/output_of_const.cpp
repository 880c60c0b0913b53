// An output cannot be a view of const elements, though an input may be one of mutable elements.
// expect: no match for .operator=|cannot convert|could not convert
#include <winnow/core/dtype.hpp>
#include <winnow/op/attend.hpp>

void use(winnow::attend_params<winnow::bf16>& p, winnow::tensor_view<winnow::bf16, 4> mutable_view,
         winnow::tensor_view<winnow::bf16 const, 4> const_view) {
    p.queries = mutable_view;
    p.output = mutable_view;
    p.keys = const_view;
#ifdef MUST_FAIL
    p.output = const_view;
#endif
}
