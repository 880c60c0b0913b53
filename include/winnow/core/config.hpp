// The only macros of the library: which compiler reads the header, and on which side of the bus the code runs.
#pragma once

#if defined(__CUDACC__)
#define WINNOW_HOST_DEVICE __host__ __device__
#define WINNOW_DEVICE __device__ __forceinline__
#define WINNOW_UNROLL _Pragma("unroll")
#define WINNOW_ROLLED _Pragma("unroll 1")
#else
#define WINNOW_HOST_DEVICE
#define WINNOW_UNROLL
#define WINNOW_ROLLED
#endif
