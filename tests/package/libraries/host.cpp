// A translation unit of a library that uses Winnow from plain C++. ENTRY: its one function.
#include "answer.hpp"

extern "C" char const* ENTRY() { return answer(); }
