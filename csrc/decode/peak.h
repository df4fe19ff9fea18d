// From a peak to a keypoint: shared by the CPU and the CUDA decoder.
#pragma once

#include "map.h"

namespace fastpose {

struct Point {
    float x;
    float y;
};

FASTPOSE_INLINE Point whole_pixel(int32_t x, int32_t y) {
    return {static_cast<float>(x), static_cast<float>(y)};
}

FASTPOSE_INLINE float slope_sign(float above, float below) {
    const float slope = above - below;  // NaN compares false both ways and gives 0
    const int sign = static_cast<int>(slope > 0.0f) - static_cast<int>(slope < 0.0f);  // without a branch
    return static_cast<float>(sign);
}

template <class M>
FASTPOSE_INLINE Point refine_quarter(const DecodeParams& p, const M& map, int32_t x, int32_t y) {
    Point point = whole_pixel(x, y);
    if (x > 1 && x < p.width - 1 && y > 1 && y < p.height - 1) {
        point.x += 0.25f * slope_sign(map(x + 1, y), map(x - 1, y));
        point.y += 0.25f * slope_sign(map(x, y + 1), map(x, y - 1));
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

// Only such a peak has a place: the official code sends every other one to (0, 0).
FASTPOSE_INLINE bool is_located(int32_t index, float peak) { return index >= 0 && peak > 0.0f; }

// Writes one map's outputs; `index` is below 0 where nothing was finite, `point` is in heatmap pixels.
FASTPOSE_INLINE void write_keypoint(const DecodeParams& p, int64_t image, int64_t joint, int32_t index,
                                    float peak, Point point) {
    const int64_t map = image * p.joints + joint;
    if (p.center != nullptr) {
        point = to_image(point, p.center + 2 * image, p.scale + 2 * image, p);
    }
    p.keypoints[2 * map] = point.x;
    p.keypoints[2 * map + 1] = point.y;
    p.score[map] = index >= 0 ? peak : 0.0f;
    p.valid[map] = index >= 0;
}

}  // namespace fastpose
