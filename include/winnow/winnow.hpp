// Everything that needs no CUDA: contracts, checks and plans. The oracle under reference/ is included separately.
#pragma once

#include "winnow/core/contents_fault.hpp"
#include "winnow/op/append.hpp"
#include "winnow/op/attend.hpp"
#include "winnow/op/cascade.hpp"
#include "winnow/op/convert.hpp"
#include "winnow/op/delta.hpp"
#include "winnow/op/merge.hpp"
#include "winnow/op/prune.hpp"
#include "winnow/op/sparse.hpp"
#include "winnow/op/summarise.hpp"
#include "winnow/version.hpp"
