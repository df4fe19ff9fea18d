// Maps in channels_last memory on a GPU: one block an image, neighbouring threads on neighbouring joints.
#pragma once

#include "cuda_finish.cuh"

namespace fastpose {

constexpr int kMostThreads = 1024;

// A thread's way through an image: `step` pixels at a time, addresses only by addition.
template <bool kFlip>
struct Walk {
    int32_t x;
    int32_t y;
    int64_t at;    // of the map
    int64_t back;  // of its partner, before the shift

    __device__ Walk(const DecodeParams& p, int32_t start) : x(start % p.width), y(start / p.width) {
        at = y * p.heatmap_strides.row + x * p.heatmap_strides.column;
        if constexpr (kFlip) back = y * p.flipped_strides.row + (p.width - 1 - x) * p.flipped_strides.column;
    }
    __device__ void advance(const DecodeParams& p, const Walk& step) {
        const bool wraps = x + step.x >= p.width;
        x += step.x - (wraps ? p.width : 0);
        y += step.y + wraps;
        at += step.at + (wraps ? p.heatmap_strides.row - p.width * p.heatmap_strides.column : 0);
        if constexpr (kFlip)
            back += step.back + (wraps ? p.flipped_strides.row + p.width * p.flipped_strides.column : 0);
    }
};

// Highest finite value of every `step`th pixel from `start` on, a chunk of loads before any comparison.
template <class T, bool kFlip>
__device__ __forceinline__ PeakKey joint_max(const DecodeParams& p, const Map<T, kFlip>& map, int32_t start,
                                             int32_t step) {
    constexpr int kChunk = kFlip ? 8 : 16;
    Walk<kFlip> walk(p, start);
    Walk<kFlip> stride(p, step);
    if constexpr (kFlip) stride.back -= (p.width - 1) * p.flipped_strides.column;
    const int64_t shifted = p.shift ? p.flipped_strides.column : 0;
    float best = -INFINITY;
    int32_t index = -1;
    int32_t pixel = start;
    while (walk.y < p.height) {
        float value[kChunk];
#pragma unroll
        for (int u = 0; u < kChunk; ++u) {
            const bool inside = walk.y < p.height;  // no branch, so no load waits for one
            float read = widen(map.values[inside ? walk.at : 0]);
            if constexpr (kFlip) {
                const int64_t back = walk.back + (walk.x > 0 ? shifted : 0);
                read = (read + widen(map.mirrored[inside ? back : 0])) * 0.5f;
            }
            value[u] = inside ? read : -INFINITY;
            walk.advance(p, stride);
        }
#pragma unroll
        for (int u = 0; u < kChunk; ++u, pixel += step) {
            if (value[u] > best && value[u] < INFINITY) {  // NaN fails both
                best = value[u];
                index = pixel;
            }
        }
    }
    return peak_key(best, index);
}

// Maximum over the `rows` keys of each of `group` joints, left in the first row.
__device__ __forceinline__ void reduce_rows(PeakKey* keys, int rows, int group) {
    const int row = static_cast<int>(threadIdx.x) / group;
    while (rows > 1) {
        const int half = (rows + 1) / 2;
        if (row + half < rows) keys[threadIdx.x] = max(keys[threadIdx.x], keys[threadIdx.x + half * group]);
        __syncthreads();
        rows = half;
    }
}

// Thread t looks at joint t % group, so that a warp reads neighbouring addresses. Images of more joints than
// a block has threads are read in several groups. Dynamic shared memory: one key for each thread.
template <class T, bool kFlip>
__global__ void __launch_bounds__(kMostThreads, 1)
    decode_interleaved_kernel(const __grid_constant__ DecodeParams p) {
    extern __shared__ PeakKey keys[];
    const int64_t image = blockIdx.x;
    const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
    const bool dark = p.refine == Refine::dark;
    for (int64_t first = 0; first < p.joints; first += threads) {
        const int group = static_cast<int>(min(p.joints - first, static_cast<int64_t>(threads)));
        const int rows = threads / group;
        const int64_t joint = first + thread % group;
        const int64_t mirror = kFlip ? p.flip_index[joint] : joint;
        const bool known = mirror >= 0 && mirror < p.joints;
        PeakKey key = 0;
        if (known && thread < rows * group)
            key = joint_max(p, map_of<T, kFlip>(p, image, joint, mirror), thread / group, rows);
        keys[thread] = key;
        __syncthreads();
        reduce_rows(keys, rows, group);
        for (int k = dark ? thread / kWarp : thread; k < group; k += dark ? threads / kWarp : threads) {
            const int64_t of = first + k;
            const int64_t partner = kFlip && keys[k] != 0 ? p.flip_index[of] : 0;
            finish_map(p, map_of<T, kFlip>(p, image, of, partner), image, of, keys[k],
                       dark ? thread % kWarp : 0);
        }
        __syncthreads();  // the keys are free again
    }
}

}  // namespace fastpose
