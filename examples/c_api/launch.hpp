// The launch of any operator for one element type: declared for the interface, which is plain C++, and instantiated in
// launch_<type>.cu (fp8 caches: launch_fp8.cu), so that each kernel is compiled once.
#pragma once

#include <winnow/winnow.hpp>

struct CUstream_st;

namespace winnow::c_api {

/// Plans and launches `c`. C is one of the params structs of winnow_c.h; KV is what its cache holds; `stream` is a
/// cudaStream_t.
template <class T, class KV = T, class C>
status launch_as(C const& c, device_info const& device, workspace scratch, CUstream_st* stream);

/// What is done to sequences of a cache.
enum class sequence_change : std::int32_t { reset, clear, fork };

/// Changes sequence `to`; a fork copies `from`.
template <class T>
status change_sequence(winnow_cascade_cache const& c, sequence_change change, std::int32_t from, std::int32_t to,
                       CUstream_st* stream);

/// query_device().
status device_of(int ordinal, device_info& out);

}  // namespace winnow::c_api
