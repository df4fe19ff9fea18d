// Distribution-aware refinement (arXiv:1910.06278; DARK lib/core/inference.py, gaussian_blur and taylor): the
// logarithm of the blurred map is taken for a quadratic around the peak. Shared by both decoders.
//
// Only 13 points are read: |dx| + |dy| <= 2. The official code scales the blurred map back to the old
// maximum first. That adds one constant to every logarithm, and cancels. No average is above the maximum, so
// the scale is at least 1 where an average is positive, and the official clamp at 1e-10 can only meet points
// that are below 1e-10 before it: where there is one, the whole map is blurred for the scale.
#pragma once

#include <cmath>

#include "peak.h"

namespace fastpose {

constexpr double kLeastValue = 1e-10;
constexpr int32_t kReach = 2;  // of the differences

FASTPOSE_INLINE bool has_dark_neighbours(const DecodeParams& p, int32_t x, int32_t y) {
    return x > 1 && x < p.width - 2 && y > 1 && y < p.height - 2;
}

FASTPOSE_INLINE bool is_dark_point(int32_t dx, int32_t dy) {
    return (dx < 0 ? -dx : dx) + (dy < 0 ? -dy : dy) <= kReach;
}

// The official code keeps the blurred map in float32. So does this, or rounding errors of a flat map would
// pass for a slope.
FASTPOSE_INLINE double rounded(double value) { return static_cast<double>(static_cast<float>(value)); }

// Logarithm of a blurred value times `scale`. NaN stays NaN.
FASTPOSE_INLINE double dark_level(double blurred, double scale) {
    const double scaled = blurred * scale;
    return log(scaled < kLeastValue ? kLeastValue : scaled);
}

// `level(dx, dy)` for the 13 points. The peak stays where it is if the quadratic has no single extremum.
template <class Level>
FASTPOSE_INLINE Point newton_step(int32_t x, int32_t y, Level level) {
    const double dx = 0.5 * (level(1, 0) - level(-1, 0));
    const double dy = 0.5 * (level(0, 1) - level(0, -1));
    const double dxx = 0.25 * (level(2, 0) - 2.0 * level(0, 0) + level(-2, 0));
    const double dyy = 0.25 * (level(0, 2) - 2.0 * level(0, 0) + level(0, -2));
    const double dxy = 0.25 * (level(1, 1) - level(1, -1) - level(-1, 1) + level(-1, -1));
    const double det = dxx * dyy - dxy * dxy;
    const float to_x = static_cast<float>(x - (dyy * dx - dxy * dy) / det);
    const float to_y = static_cast<float>(y - (dxx * dy - dxy * dx) / det);
    const bool sound = det != 0.0 && to_x - to_x == 0.0f && to_y - to_y == 0.0f;  // no NaN, no infinity
    return sound ? Point{to_x, to_y} : whole_pixel(x, y);
}

}  // namespace fastpose
