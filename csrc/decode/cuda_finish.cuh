// Within a block: the order of peaks, and what follows once a map's peak is known.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "dark.h"

namespace fastpose {

constexpr int kWarp = 32;
constexpr unsigned int kAllLanes = 0xffffffffu;

__device__ __forceinline__ float widen(bf16 value) {
    return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
__device__ __forceinline__ float widen(fp16 value) { return __half2float(__ushort_as_half(value.bits)); }

using PeakKey = unsigned long long;

// Orders as the pair (value, lower index first), so that a maximum of keys breaks ties the same way in any
// order of reduction. 0 is below every finite value. -0 sorts below +0, which shows nowhere: a peak of 0 has
// no place.
__device__ __forceinline__ PeakKey peak_key(float value, int32_t index) {
    if (index < 0) return 0;
    const uint32_t bits = __float_as_uint(value);
    const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<PeakKey>(ordered) << 32 | ~static_cast<uint32_t>(index);
}

// The products in the same order as on the CPU: down the columns first.
template <class M>
__device__ __forceinline__ double blurred_at(const DecodeParams& p, const M& map, int32_t x, int32_t y) {
    const int32_t top = max(y - p.blur_radius, 0), bottom = min(y + p.blur_radius, p.height - 1);
    const int32_t left = max(x - p.blur_radius, 0), right = min(x + p.blur_radius, p.width - 1);
    double sum = 0.0;
    for (int32_t column = left; column <= right; ++column) {
        double part = 0.0;
#pragma unroll 2  // more would not fit into the registers
        for (int32_t row = top; row <= bottom; ++row)
            part += p.blur[abs(row - y)] * static_cast<double>(map(column, row));
        sum += p.blur[abs(column - x)] * part;
    }
    return rounded(sum);
}

// Highest finite value of the whole blurred map, found by one warp.
template <class M>
__device__ __forceinline__ double blurred_max(const DecodeParams& p, const M& map, int lane) {
    double highest = -INFINITY;
    for (int32_t at = lane; at < p.height * p.width; at += kWarp) {
        const double value = blurred_at(p, map, at % p.width, at / p.width);
        if (isfinite(value)) highest = fmax(highest, value);
    }
    for (int step = kWarp / 2; step > 0; step /= 2)
        highest = fmax(highest, __shfl_xor_sync(kAllLanes, highest, step));
    return highest;
}

// One warp, a point of the 5 x 5 around the peak for each of its first 25 lanes.
template <class M>
__device__ __forceinline__ Point refine_dark(const DecodeParams& p, const M& map, int32_t x, int32_t y,
                                             float peak, int lane) {
    if (!has_dark_neighbours(p, x, y)) return whole_pixel(x, y);
    const int32_t dx = lane % 5 - kReach, dy = lane / 5 - kReach;
    double blurred = 1.0;
    if (lane < 25 && is_dark_point(dx, dy)) blurred = blurred_at(p, map, x + dx, y + dy);
    if (!__all_sync(kAllLanes, isfinite(blurred))) return whole_pixel(x, y);
    double scale = 1.0;
    if (__any_sync(kAllLanes, blurred < kLeastValue)) scale = peak / blurred_max(p, map, lane);
    const double own = dark_level(blurred, scale);
    return newton_step(x, y, [own](int32_t to_x, int32_t to_y) {
        return __shfl_sync(kAllLanes, own, (to_y + kReach) * 5 + to_x + kReach);
    });
}

// For `dark` a whole warp calls this, otherwise one thread with lane 0.
template <class M>
__device__ __forceinline__ void finish_map(const DecodeParams& p, const M& map, int64_t image, int64_t joint,
                                           PeakKey key, int lane) {
    const int32_t index = key == 0 ? -1 : static_cast<int32_t>(~static_cast<uint32_t>(key));
    const int32_t y = max(index, 0) / p.width, x = max(index, 0) - y * p.width;
    const float peak = index < 0 ? 0.0f : map(x, y);
    Point point{0.0f, 0.0f};
    if (is_located(index, peak)) {
        if (p.refine == Refine::dark)
            point = refine_dark(p, map, x, y, peak, lane);
        else
            point = p.refine == Refine::quarter ? refine_quarter(p, map, x, y) : whole_pixel(x, y);
    }
    if (lane == 0) write_keypoint(p, image, joint, index, peak, point);
}

}  // namespace fastpose
