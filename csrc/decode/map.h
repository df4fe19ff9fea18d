// One map read value by value: any strides, averaged with its mirrored partner. For the CPU and CUDA decoder.
#pragma once

#include "../inline.h"
#include "decode.h"

namespace fastpose {

struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

FASTPOSE_INLINE float widen(float value) { return value; }  // the other two have their own in each decoder

// Where the mirrored maps hold what belongs into column `x`.
FASTPOSE_INLINE int32_t mirrored_column(int32_t x, int32_t width, bool shift) {
    return width - 1 - (shift && x > 0 ? x - 1 : x);
}

template <class T, bool kFlip>
struct Map {
    const T* values;
    const T* mirrored;
    Strides strides;
    Strides mirrored_strides;
    int32_t width;
    bool shift;

    FASTPOSE_INLINE float operator()(int32_t x, int32_t y) const {
        const float value = widen(values[y * strides.row + x * strides.column]);
        if constexpr (!kFlip) return value;
        const int64_t column = mirrored_column(x, width, shift) * mirrored_strides.column;
        return (value + widen(mirrored[y * mirrored_strides.row + column])) * 0.5f;
    }
};

// `mirror` is the joint's entry of flip_index; it is not read where nothing is flipped.
template <class T, bool kFlip>
FASTPOSE_INLINE Map<T, kFlip> map_of(const DecodeParams& p, int64_t image, int64_t joint, int64_t mirror) {
    const T* values = static_cast<const T*>(p.heatmaps);
    values += image * p.heatmap_strides.batch + joint * p.heatmap_strides.joint;
    const T* mirrored = nullptr;
    if constexpr (kFlip) {
        mirrored = static_cast<const T*>(p.flipped);
        mirrored += image * p.flipped_strides.batch + mirror * p.flipped_strides.joint;
    }
    return {values, mirrored, p.heatmap_strides, p.flipped_strides, p.width, p.shift};
}

}  // namespace fastpose
