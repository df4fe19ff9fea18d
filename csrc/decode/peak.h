// From the flat index of a peak to a keypoint: shared by the CPU and the CUDA decoder.
#pragma once

#include "decode.h"

#ifdef __CUDACC__
#define FASTPOSE_INLINE __device__ __forceinline__
#else
#define FASTPOSE_INLINE inline
#endif

namespace fastpose {

struct Point {
    float x;
    float y;
};

FASTPOSE_INLINE float slope_sign(float above, float below) {
    const float slope = above - below;  // NaN compares false both ways and gives 0
    const int sign = static_cast<int>(slope > 0.0f) - static_cast<int>(slope < 0.0f);  // without a branch
    return static_cast<float>(sign);
}

// `value(flat index)` reads the averaged map.
template <class Value>
FASTPOSE_INLINE Point refine_peak(int32_t x, int32_t y, const DecodeParams& p, Value value) {
    Point point{static_cast<float>(x), static_cast<float>(y)};
    if (x > 1 && x < p.width - 1 && y > 1 && y < p.height - 1) {
        const int32_t at = y * p.width + x;
        point.x += 0.25f * slope_sign(value(at + 1), value(at - 1));
        point.y += 0.25f * slope_sign(value(at + p.width), value(at - p.width));
    }
    return point;
}

// hrnet lib/utils/transforms.py: the map of three heatmap points onto three image points that are rounded to
// float32. Without rotation it is one offset and one factor an axis; both factors come from the box width.
FASTPOSE_INLINE Point to_image(Point point, const float* center, const float* scale, const DecodeParams& p) {
    const float x0 = center[0];
    const float y0 = center[1];
    const float y1 = y0 - 0.5f * (scale[0] * 200.0f);
    const float x2 = x0 - (y0 - y1);
    const double reach_x = static_cast<double>(x0) - static_cast<double>(x2);
    const double reach_y = static_cast<double>(y0) - static_cast<double>(y1);
    const double half = 0.5 * p.width;
    const double dx = point.x - 0.5f * static_cast<float>(p.width);
    const double dy = point.y - 0.5f * static_cast<float>(p.height);
    return {static_cast<float>(x0 + reach_x * dx / half), static_cast<float>(y0 + reach_y * dy / half)};
}

// Writes one map's outputs; `index` is below 0 where nothing was finite.
template <class Value>
FASTPOSE_INLINE void write_keypoint(const DecodeParams& p, int64_t map, int32_t index, float peak, Value value) {
    const bool valid = index >= 0;
    const bool located = valid && peak > 0.0f;  // the official code sends every other peak to (0, 0)
    Point point{0.0f, 0.0f};
    if (located) {
        const int32_t y = index / p.width;
        const int32_t x = index - y * p.width;
        point = p.refine ? refine_peak(x, y, p, value) : Point{static_cast<float>(x), static_cast<float>(y)};
    }
    if (p.center != nullptr) {
        const int64_t row = map / p.joints;
        point = to_image(point, p.center + 2 * row, p.scale + 2 * row, p);
    }
    p.keypoints[2 * map] = point.x;
    p.keypoints[2 * map + 1] = point.y;
    p.score[map] = valid ? peak : 0.0f;
    p.valid[map] = valid;
}

}  // namespace fastpose
