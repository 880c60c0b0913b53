// Everything, for nvcc: the host half and the launches.
#pragma once

#include "winnow/core/device_query.cuh"
#include "winnow/op/append.cuh"
#include "winnow/op/attend.cuh"
#include "winnow/op/cascade.cuh"
#include "winnow/op/check.cuh"
#include "winnow/op/convert.cuh"
#include "winnow/op/delta.cuh"
#include "winnow/op/merge.cuh"
#include "winnow/op/prune.cuh"
#include "winnow/op/sparse.cuh"
#include "winnow/op/summarise.cuh"
#include "winnow/winnow.hpp"
