// Vectors of W floats and the three number formats of heatmaps, widened exactly. GCC and Clang.
#pragma once

#include <cstdint>
#include <cstring>

#include "map.h"

namespace fastpose {

template <int W>
struct Vector {
    typedef float Float __attribute__((vector_size(4 * W)));
    typedef int32_t Int __attribute__((vector_size(4 * W)));
    typedef uint32_t Bits __attribute__((vector_size(4 * W)));
    typedef uint16_t Half __attribute__((vector_size(2 * W)));
};

template <int W>
FASTPOSE_INLINE void load(const float* from, typename Vector<W>::Float& to) {
    std::memcpy(&to, from, sizeof to);
}

template <int W>
FASTPOSE_INLINE void load_bits(const void* from, typename Vector<W>::Bits& to) {
    typename Vector<W>::Half half;
    std::memcpy(&half, from, sizeof half);
    to = __builtin_convertvector(half, typename Vector<W>::Bits);
}

template <int W>
FASTPOSE_INLINE void load(const bf16* from, typename Vector<W>::Float& to) {
    typename Vector<W>::Bits bits;
    load_bits<W>(from, bits);
    to = reinterpret_cast<typename Vector<W>::Float>(bits << 16);
}

template <int W>
FASTPOSE_INLINE void load(const fp16* from, typename Vector<W>::Float& to) {
    using Float = typename Vector<W>::Float;
    using Bits = typename Vector<W>::Bits;
    Bits half;
    load_bits<W>(from, half);
    const Bits magnitude = half & 0x7fff;
    const Bits special = reinterpret_cast<Bits>(magnitude > 0x7bff) & 0x7f800000;  // infinity or NaN
    const Float scaled = reinterpret_cast<Float>(magnitude << 13) * 0x1p112f;      // exact, subnormals too
    to = reinterpret_cast<Float>(reinterpret_cast<Bits>(scaled) | special | (half & 0x8000) << 16);
}

// Lane j becomes what lane order[j] was.
template <int W>
FASTPOSE_INLINE void permute(typename Vector<W>::Float& value, const typename Vector<W>::Int& order) {
#ifdef __clang__
    const typename Vector<W>::Float given = value;
    for (int j = 0; j < W; ++j) value[j] = given[order[j]];
#else
    value = __builtin_shuffle(value, order);
#endif
}

template <int W>
FASTPOSE_INLINE void reverse(typename Vector<W>::Float& value) {
    typename Vector<W>::Int order;
    for (int j = 0; j < W; ++j) order[j] = W - 1 - j;
    permute<W>(value, order);
}

// One value, by the same arithmetic.
template <class T>
FASTPOSE_INLINE float widen_half(T value) {
    T copies[4] = {value, value, value, value};
    Vector<4>::Float wide;
    load<4>(copies, wide);
    return wide[0];
}
FASTPOSE_INLINE float widen(bf16 value) { return widen_half(value); }
FASTPOSE_INLINE float widen(fp16 value) { return widen_half(value); }

}  // namespace fastpose
