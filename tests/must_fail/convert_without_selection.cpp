// A conversion has a selection on one side, whose block size is that of both.
// expect: one side of a conversion is a selection
#include <winnow/op/convert.hpp>

#ifdef MUST_FAIL
using source = winnow::bsr;
#else
using source = winnow::block_selection;
#endif

winnow::status use(winnow::convert_params<source, winnow::block_bits_buffer> const& p) { return check(p); }
