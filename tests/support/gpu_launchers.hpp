// Every launch that the GPU tests make: kernels are compiled once, in gpu_launchers_*.cu, tests by the host compiler.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

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

namespace winnow::testing {

status gpu_query_device(device_info& out, int ordinal);

/// winnow::launch. One that no gpu_launchers_*.cu has does not link.
template <class Params, class Plan>
status gpu_launch(Params const& p, Plan const& plan, workspace scratch, cudaStream_t stream);

/// launch_contents_check, likewise.
template <class Params>
status gpu_contents_check(Params const& p, contents_fault* fault, cudaStream_t stream);

/// launch<attend_problem{128, attend_rows::large}>.
status gpu_launch_128_large(attend_params<bf16> const& p, attend_plan const& plan, workspace scratch,
                            cudaStream_t stream);

status gpu_cascade_reset(cascade_cache<bf16> const& cache, std::int32_t sequence, cudaStream_t stream);
status gpu_cascade_clear(cascade_cache<bf16> const& cache, std::int32_t sequence, cudaStream_t stream);
status gpu_cascade_fork(cascade_cache<bf16> const& cache, std::int32_t from, std::int32_t to, cudaStream_t stream);

}  // namespace winnow::testing
