// The only macros of the library: which compiler reads the header, and on which side of the bus the code runs.
#pragma once

#if defined(__CUDACC__)
#define WINNOW_HOST_DEVICE __host__ __device__
#define WINNOW_DEVICE __device__ __forceinline__
#define WINNOW_UNROLL _Pragma("unroll")
#else
#define WINNOW_HOST_DEVICE
#define WINNOW_UNROLL
#endif
// Also in functions of the host, whose compiler does not know the pragma.
#if defined(__CUDA_ARCH__)
#define WINNOW_ROLLED _Pragma("unroll 1")
#else
#define WINNOW_ROLLED
#endif
