// Queries of one element type do not go with parameters of another.
// expect: no match for .operator=|cannot convert|could not convert
#include <winnow/core/dtype.hpp>
#include <winnow/op/attend.hpp>

void use(winnow::attend_params<winnow::bf16>& p, winnow::tensor_view<winnow::bf16 const, 4> bf16_view,
         winnow::tensor_view<winnow::fp16 const, 4> fp16_view) {
    p.queries = bf16_view;
#ifdef MUST_FAIL
    p.queries = fp16_view;
#endif
    (void)fp16_view;
}
