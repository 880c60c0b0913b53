// Pruning writes lists: a selection that may only be read is not enough.
// expect: no match for .operator=|cannot convert|could not convert
#include <winnow/op/attend.hpp>
#include <winnow/op/prune.hpp>

void use(winnow::prune_params<winnow::bf16>& pruning, winnow::attend_params<winnow::bf16>& attention,
         winnow::block_selection_buffer lists, winnow::block_selection others) {
    pruning.selection = lists;
    attention.selection = lists;
#ifdef MUST_FAIL
    pruning.selection = others;
#endif
    attention.selection = others;
}
