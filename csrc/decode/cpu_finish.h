// After the peak is found on a CPU: refinement and output.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <type_traits>
#include <vector>

#include "dark.h"
#include "simd.h"

namespace fastpose {

// Values between a read and its prefetch: the hardware does not foresee two short streams, one of them
// backwards.
constexpr int32_t kAhead = 1024;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Peak {
    int32_t index;  // -1: nothing is finite
    float value;
};

// The joint of the mirrored maps that belongs to `joint`, or -1.
inline int64_t mirror_of(const DecodeParams& p, int64_t joint) {
    const int64_t mirror = p.flip_index[joint];
    return mirror >= 0 && mirror < p.joints ? mirror : -1;
}

// The vectors let +infinity win; where it did, this finds the highest of the rest. Rare, so kept out of line.
template <class M>
__attribute__((noinline)) Peak find_peak_beside_infinity(const DecodeParams& p, const M& map) {
    Peak peak{-1, -kInfinity};
    for (int32_t y = 0; y < p.height; ++y)
        for (int32_t x = 0; x < p.width; ++x)
            if (const float value = map(x, y); value > peak.value && value < kInfinity)
                peak = {y * p.width + x, value};
    return peak;
}

// Blurred values around (x, y), down the columns first and then along the rows. Every sum of the decoders and
// of the reference adds the same products in the same order.
template <class M>
void blur_near(const DecodeParams& p, const M& map, int32_t x, int32_t y, double (&near)[5][5]) {
    constexpr int32_t kMost = 2 * (kMaxBlurRadius + kReach) + 1;
    const int32_t radius = p.blur_radius, reach = radius + kReach, count = 2 * reach + 1;
    double columns[5][kMost] = {};
    for (int32_t row = std::max(y - reach, 0); row <= std::min(y + reach, p.height - 1); ++row) {
        double values[kMost];
        for (int32_t i = 0; i < count; ++i) {
            const int32_t column = x - reach + i;
            values[i] = column >= 0 && column < p.width ? static_cast<double>(map(column, row)) : 0.0;
        }
        for (int32_t dy = -kReach; dy <= kReach; ++dy) {
            const int32_t distance = std::abs(row - y - dy);
            if (distance > radius) continue;
            const double weight = p.blur[distance];
            for (int32_t i = 0; i < count; ++i) columns[dy + kReach][i] += weight * values[i];
        }
    }
    for (int32_t dy = -kReach; dy <= kReach; ++dy) {
        for (int32_t dx = -kReach; dx <= kReach; ++dx) {
            double sum = 0.0;
            const double* from = columns[dy + kReach] + dx + kReach;
            for (int32_t i = 0; i <= 2 * radius; ++i) sum += p.blur[std::abs(i - radius)] * from[i];
            near[dy + kReach][dx + kReach] = rounded(sum);
        }
    }
}

// Highest finite value of the whole blurred map.
template <class M>
double blurred_max(const DecodeParams& p, const M& map) {
    const int32_t width = p.width, radius = p.blur_radius;
    const size_t size = static_cast<size_t>(p.height) * width;
    std::vector<double> values(size), column(width);
    for (int32_t y = 0; y < p.height; ++y)
        for (int32_t x = 0; x < width; ++x) values[static_cast<size_t>(y) * width + x] = map(x, y);
    double highest = -std::numeric_limits<double>::infinity();
    for (int32_t y = 0; y < p.height; ++y) {
        std::fill(column.begin(), column.end(), 0.0);
        for (int32_t row = std::max(y - radius, 0); row <= std::min(y + radius, p.height - 1); ++row) {
            const double weight = p.blur[std::abs(row - y)];
            const double* from = values.data() + static_cast<size_t>(row) * width;
            for (int32_t x = 0; x < width; ++x) column[x] += weight * from[x];
        }
        for (int32_t x = 0; x < width; ++x) {
            double sum = 0.0;
            for (int32_t i = std::max(x - radius, 0); i <= std::min(x + radius, width - 1); ++i)
                sum += p.blur[std::abs(i - x)] * column[i];
            if (const double value = rounded(sum); std::isfinite(value)) highest = std::max(highest, value);
        }
    }
    return highest;
}

template <class M>
__attribute__((noinline)) Point refine_dark(const DecodeParams& p, const M& map, int32_t x, int32_t y,
                                            float peak) {
    if (!has_dark_neighbours(p, x, y)) return whole_pixel(x, y);
    double near[5][5];
    blur_near(p, map, x, y, near);
    double lowest = near[kReach][kReach];
    for (int32_t dy = -kReach; dy <= kReach; ++dy) {
        for (int32_t dx = -kReach; dx <= kReach; ++dx) {
            if (!is_dark_point(dx, dy)) continue;
            const double value = near[dy + kReach][dx + kReach];
            if (!std::isfinite(value)) return whole_pixel(x, y);
            lowest = std::min(lowest, value);
        }
    }
    const double scale = lowest < kLeastValue ? peak / blurred_max(p, map) : 1.0;
    return newton_step(x, y, [&near, scale](int32_t dx, int32_t dy) {
        return dark_level(near[dy + kReach][dx + kReach], scale);
    });
}

template <class M>
FASTPOSE_INLINE void finish_map(const DecodeParams& p, int64_t image, int64_t joint, const M& map,
                                Peak peak) {
    if (peak.value == kInfinity) peak = find_peak_beside_infinity(p, map);
    Point point{0.0f, 0.0f};
    if (is_located(peak.index, peak.value)) {
        const int32_t y = peak.index / p.width, x = peak.index - y * p.width;
        switch (p.refine) {
            case Refine::none: point = whole_pixel(x, y); break;
            case Refine::quarter: point = refine_quarter(p, map, x, y); break;
            case Refine::dark: point = refine_dark(p, map, x, y, peak.value); break;
        }
    }
    write_keypoint(p, image, joint, peak.index, peak.value, point);
}

// For an entry of flip_index that is no joint.
inline void refuse_map(const DecodeParams& p, int64_t image, int64_t joint) {
    write_keypoint(p, image, joint, -1, 0.0f, {0.0f, 0.0f});
}

}  // namespace fastpose
