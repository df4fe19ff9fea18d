// The decoder on CPU threads: one pass over each map, in the widest vectors of the processor it runs on.
#include <algorithm>
#include <limits>
#include <memory>

#include "peak.h"
#include "simd.h"

namespace fastpose {
namespace {

constexpr int32_t kAhead = 1024;  // two streams of one map each are too short for the hardware to foresee
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Peak {
    int32_t index;  // -1: nothing is finite
    float value;
};

template <class T>
FASTPOSE_INLINED Peak find_peak_beside_infinity(const T* x, int32_t n) {
    Peak peak{-1, -kInfinity};
    for (int32_t i = 0; i < n; ++i) {
        const float value = widen(x[i]);
        if (value > peak.value && value < kInfinity) peak = {i, value};
    }
    return peak;
}

// Each of 4 * W lanes keeps its first maximum; NaN and -infinity lose every comparison. No branch depends on
// the data, so the loads of the next map start while this one is reduced.
template <int W, class T>
FASTPOSE_INLINED Peak find_peak(const T* x, int32_t n) {
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
    if (peak.value == kInfinity) return find_peak_beside_infinity(x, n);
    return peak.value == -kInfinity ? Peak{-1, peak.value} : peak;
}

// out[x] = (row[x] + mirrored[width - 1 - max(x - shift, 0)]) / 2
template <int W, class T>
FASTPOSE_INLINED void average_row(const T* row, const T* mirrored, float* out, int32_t width, int32_t shift) {
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

template <int W, class T>
FASTPOSE_INLINED Peak find_peak_averaged(const DecodeParams& p, int64_t map, float* scratch) {
    const int32_t size = p.height * p.width;
    const int64_t joint = map % p.joints;
    const int64_t mirror = p.flip_index[joint];
    if (mirror < 0 || mirror >= p.joints) return {-1, 0.0f};
    const T* maps = static_cast<const T*>(p.heatmaps) + map * size;
    const T* mirrored = static_cast<const T*>(p.flipped) + (map - joint + mirror) * size;
    for (int32_t start = 0; start < size; start += p.width)
        average_row<W>(maps + start, mirrored + start, scratch + start, p.width, p.shift ? 1 : 0);
    return find_peak<W>(scratch, size);
}

template <int W, class T>
FASTPOSE_INLINED void decode_maps(const DecodeParams& p, int64_t begin, int64_t end, float* scratch) {
    const int32_t size = p.height * p.width;
    for (int64_t map = begin; map < end; ++map) {
        if (p.flipped != nullptr) {
            const Peak peak = find_peak_averaged<W, T>(p, map, scratch);
            write_keypoint(p, map, peak.index, peak.value, [scratch](int32_t at) { return scratch[at]; });
        } else {
            const T* x = static_cast<const T*>(p.heatmaps) + map * size;
            const Peak peak = find_peak<W>(x, size);
            write_keypoint(p, map, peak.index, peak.value, [x](int32_t at) { return widen(x[at]); });
        }
    }
}

template <int W>
FASTPOSE_INLINED void decode_maps(const DecodeParams& p, int64_t begin, int64_t end, float* scratch) {
    switch (p.dtype) {
        case DType::float32: return decode_maps<W, float>(p, begin, end, scratch);
        case DType::bfloat16: return decode_maps<W, bf16>(p, begin, end, scratch);
        case DType::float16: return decode_maps<W, fp16>(p, begin, end, scratch);
    }
}

using DecodeMaps = void (*)(const DecodeParams&, int64_t, int64_t, float*);

void decode_maps_128(const DecodeParams& p, int64_t begin, int64_t end, float* scratch) {
    decode_maps<4>(p, begin, end, scratch);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void decode_maps_256(const DecodeParams& p, int64_t begin, int64_t end,
                                                     float* scratch) {
    decode_maps<8>(p, begin, end, scratch);
}

__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl"))) void decode_maps_512(
    const DecodeParams& p, int64_t begin, int64_t end, float* scratch) {
    decode_maps<16>(p, begin, end, scratch);
}
#endif

// Chosen at run time, not by -march: a wheel travels between processors.
DecodeMaps pick_decode_maps() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return decode_maps_512;
    if (__builtin_cpu_supports("avx2")) return decode_maps_256;
#endif
    return decode_maps_128;
}

constexpr int64_t kValuesPerThread = 1 << 17;  // less work than this costs more to hand out than to do

}  // namespace

void decode_cpu(const DecodeParams& p, int threads) {
    static const DecodeMaps decode_range = pick_decode_maps();
    const int64_t maps = p.batch * p.joints;
    const int64_t size = static_cast<int64_t>(p.height) * p.width;
    const int64_t useful = std::min(maps, maps * size / kValuesPerThread);
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, useful));
    const std::unique_ptr<float[]> scratch(p.flipped == nullptr ? nullptr : new float[parts * size]);
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static) if (parts > 1)
    for (int64_t part = 0; part < parts; ++part) {
        float* own = scratch ? scratch.get() + part * size : nullptr;
        decode_range(p, maps * part / parts, maps * (part + 1) / parts, own);
    }
}

}  // namespace fastpose
