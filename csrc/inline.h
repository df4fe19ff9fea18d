// How functions that the CPU and the CUDA code share are declared.
#pragma once

#ifdef __CUDACC__
#define FASTPOSE_INLINE __device__ __forceinline__
#else
// Takes the instruction set of its caller, so that one source serves every vector width.
#define FASTPOSE_INLINE inline __attribute__((always_inline))
#endif

#define FASTPOSE_RESTRICT __restrict__  // nothing else points there
