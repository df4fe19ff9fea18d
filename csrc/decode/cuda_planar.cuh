// Maps of any other layout on a GPU: one block for each map, neighbouring threads on neighbouring pixels.
#pragma once

#include "cuda_finish.cuh"

namespace fastpose {

constexpr int kThreads = 128;
constexpr int kBlocksPerSM = 8;  // leaves the registers that the loads in flight need

// A map whose rows follow one another, read with 32-bit addresses.
template <class T, bool kFlip>
struct DenseMap {
    const T* values;
    const T* mirrored;
    int32_t width;
    bool shift;

    __device__ __forceinline__ explicit DenseMap(const Map<T, kFlip>& map)
        : values(map.values), mirrored(map.mirrored), width(map.width), shift(map.shift) {}
    __device__ __forceinline__ float operator()(int32_t x, int32_t y) const {
        const float value = widen(values[y * width + x]);
        if constexpr (!kFlip) return value;
        return (value + widen(mirrored[y * width + mirrored_column(x, width, shift)])) * 0.5f;
    }
};

__device__ __forceinline__ PeakKey block_max(PeakKey key) {
    __shared__ PeakKey warp_keys[kThreads / kWarp];
    for (int step = kWarp / 2; step > 0; step /= 2) key = max(key, __shfl_xor_sync(kAllLanes, key, step));
    if (threadIdx.x % kWarp == 0) warp_keys[threadIdx.x / kWarp] = key;
    __syncthreads();
    for (int warp = 0; warp < kThreads / kWarp; ++warp) key = max(key, warp_keys[warp]);
    return key;
}

// Each thread strides over the map, so that neighbouring threads read neighbouring values, and asks for a
// chunk of them before it compares any.
template <class M>
__device__ __forceinline__ PeakKey thread_max(const M& map, int32_t height, int32_t width) {
    constexpr int kChunk = 8;
    const int32_t step_y = kThreads / width;
    const int32_t step_x = kThreads % width;
    int32_t x = threadIdx.x % width;
    int32_t y = threadIdx.x / width;
    float best = -INFINITY;
    int32_t index = -1;
    for (int32_t chunk = 0; y < height; ++chunk) {
        float value[kChunk];
#pragma unroll
        for (int u = 0; u < kChunk; ++u) {
            const float read = map(x, min(y, height - 1));  // no branch, so no load waits for one
            value[u] = y < height ? read : -INFINITY;
            x += step_x;
            y += step_y + (x >= width);
            x -= x >= width ? width : 0;
        }
#pragma unroll
        for (int u = 0; u < kChunk; ++u) {
            if (value[u] > best && value[u] < INFINITY) {  // NaN fails both
                best = value[u];
                index = (chunk * kChunk + u) * kThreads + static_cast<int32_t>(threadIdx.x);
            }
        }
    }
    return peak_key(best, index);
}

template <class M>
__device__ __forceinline__ void decode_map(const DecodeParams& p, const M& map, int64_t image, int64_t joint,
                                           bool known) {
    const PeakKey key = block_max(known ? thread_max(map, p.height, p.width) : 0);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < (p.refine == Refine::dark ? kWarp : 1)) finish_map(p, map, image, joint, key, thread);
}

template <class T, bool kFlip, bool kDense>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    decode_planar_kernel(const __grid_constant__ DecodeParams p) {
    const int64_t number = blockIdx.x;
    const int64_t image = number / p.joints, joint = number - image * p.joints;
    const int64_t mirror = kFlip ? p.flip_index[joint] : joint;
    const bool known = mirror >= 0 && mirror < p.joints;  // the same for the whole block
    const Map<T, kFlip> map = map_of<T, kFlip>(p, image, joint, known ? mirror : 0);
    if constexpr (kDense)
        decode_map(p, DenseMap<T, kFlip>(map), image, joint, known);
    else
        decode_map(p, map, image, joint, known);
}

}  // namespace fastpose
