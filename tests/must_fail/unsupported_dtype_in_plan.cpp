// Planning needs no nvcc, and says as well that there are no kernels for fp32.
// expect: queries, keys and values are bf16 or fp16
#include <winnow/op/sparse.hpp>

#ifdef MUST_FAIL
using element = float;
#else
using element = winnow::fp16;
#endif

bool use(winnow::sparse_prefill_params<element> const& p) { return winnow::plan(p, winnow::device_info{}).why.ok(); }
