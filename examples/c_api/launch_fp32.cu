// The launches of fp32, and what needs no element type.
#include "launch.cuh"

namespace winnow::c_api {

template status launch_as<float>(winnow_merge_params const&, device_info const&, workspace, cudaStream_t);

status device_of(int ordinal, device_info& out) { return query_device(out, ordinal); }

}  // namespace winnow::c_api
