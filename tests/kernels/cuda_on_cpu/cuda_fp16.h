// The part of CUDA's half precision that kernels here use, for the CPU.
#pragma once

#include "cuda_runtime.h"

inline _Float16 __ushort_as_half(uint16_t bits) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline float __half2float(_Float16 value) { return static_cast<float>(value); }
