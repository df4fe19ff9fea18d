// Peaks of maps whose rows follow one another: one pass over each map, vectors along the pixels.
#pragma once

#include "cpu_finish.h"

namespace fastpose {

// Each of 4 * W lanes keeps its first maximum; NaN and -infinity lose every comparison. No branch depends on
// the data, so the loads of the next map start while this one is reduced.
template <int W, class T>
FASTPOSE_INLINE Peak find_peak(const T* x, int32_t n) {
    using Float = typename Vector<W>::Float;
    using Int = typename Vector<W>::Int;
    constexpr int32_t kLast = std::numeric_limits<int32_t>::max();
    Float best[4];
    Int at[4];
    for (int u = 0; u < 4; ++u) {
        best[u] = Float{} - kInfinity;
        at[u] = Int{};
    }
    int32_t i = 0;
    for (Int now = Int{}; i <= n - 4 * W; i += 4 * W, now += 4 * W) {
        for (int u = 0; u < 4; ++u) {
            Float value;
            load<W>(x + i + W * u, value);
            const Int higher = value > best[u];
            best[u] = value > best[u] ? value : best[u];
            at[u] = higher ? now : at[u];
        }
    }
    Float high = best[0];
    for (int u = 1; u < 4; ++u) high = best[u] > high ? best[u] : high;
    Peak peak{kLast, -kInfinity};
    for (int j = 0; j < W; ++j) peak.value = high[j] > peak.value ? high[j] : peak.value;
    Int first = Int{} + kLast;
    for (int u = 0; u < 4; ++u) {
        const Int here = best[u] == peak.value ? at[u] + W * u : Int{} + kLast;
        first = here < first ? here : first;
    }
    for (int j = 0; j < W; ++j) peak.index = std::min(peak.index, first[j] < kLast ? first[j] + j : kLast);
    for (; i < n; ++i)
        if (const float value = widen(x[i]); value > peak.value) peak = {i, value};
    return peak.value == -kInfinity ? Peak{-1, peak.value} : peak;
}

// out[x] = (row[x] + mirrored[width - 1 - max(x - shift, 0)]) / 2
template <int W, class T>
FASTPOSE_INLINE void average_row(const T* row, const T* mirrored, float* out, int32_t width, int32_t shift) {
    const T* back = mirrored + width - 1 + shift;  // back[-x] for x > 0
    out[0] = (widen(row[0]) + widen(mirrored[width - 1])) * 0.5f;
    int32_t x = 1;
    while (x < width && width > W) {
        x = std::min(x, width - W);  // the last vector overlaps the one before
        __builtin_prefetch(row + x + kAhead);
        __builtin_prefetch(back - x + kAhead);
        typename Vector<W>::Float value, other;
        load<W>(row + x, value);
        load<W>(back - x - (W - 1), other);
        reverse<W>(other);
        value = (value + other) * 0.5f;
        std::memcpy(out + x, &value, sizeof value);
        x += W;
    }
    for (; x < width; ++x) out[x] = (widen(row[x]) + widen(back[-x])) * 0.5f;
}

// A map whose rows follow one another.
template <class T>
struct Rows {
    const T* values;
    int32_t width;

    FASTPOSE_INLINE float operator()(int32_t x, int32_t y) const { return widen(values[y * width + x]); }
};

template <int W, class T>
FASTPOSE_INLINE void decode_rows(const DecodeParams& p, int64_t image, int64_t joint, const T* values) {
    const Peak peak = find_peak<W>(values, p.height * p.width);
    finish_map(p, image, joint, Rows<T>{values, p.width}, peak);
}

template <int W, class T>
FASTPOSE_INLINE void average_rows(const DecodeParams& p, const Map<T, true>& map, float* scratch) {
    for (int32_t start = 0; start < p.height * p.width; start += p.width)
        average_row<W>(map.values + start, map.mirrored + start, scratch + start, p.width, p.shift ? 1 : 0);
}

// For strides that no vector follows: value by value.
template <class T, bool kFlip>
FASTPOSE_INLINE void copy_rows(const DecodeParams& p, const Map<T, kFlip>& map, float* scratch) {
    for (int32_t y = 0; y < p.height; ++y)
        for (int32_t x = 0; x < p.width; ++x) *scratch++ = map(x, y);
}

// Maps `begin` to `end`, numbered as in a contiguous tensor; `scratch` holds one map of floats.
template <int W, class T, bool kFlip, bool kDense>
FASTPOSE_INLINE void decode_maps(const DecodeParams& p, int64_t begin, int64_t end, float* scratch) {
    int64_t image = begin / p.joints, joint = begin % p.joints;
    for (int64_t left = end - begin; left > 0; --left) {
        const int64_t mirror = kFlip ? mirror_of(p, joint) : joint;
        if (mirror < 0) {
            refuse_map(p, image, joint);
        } else {
            const Map<T, kFlip> map = map_of<T, kFlip>(p, image, joint, mirror);
            if constexpr (kDense && !kFlip) {
                decode_rows<W>(p, image, joint, map.values);
            } else {
                if constexpr (kDense)
                    average_rows<W>(p, map, scratch);
                else
                    copy_rows(p, map, scratch);
                decode_rows<W>(p, image, joint, scratch);
            }
        }
        if (++joint == p.joints) joint = 0, ++image;
    }
}

}  // namespace fastpose
