// The decoder on a GPU: one launch, one block for each map.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <limits>
#include <type_traits>

#include "peak.h"

namespace fastpose {
namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kChunk = 8;        // loads in flight of each thread
constexpr int kBlocksPerSM = 8;  // leaves the registers that kChunk needs

struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) {
    return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
__device__ __forceinline__ float widen(fp16 value) { return __half2float(__ushort_as_half(value.bits)); }

// One map, averaged with its mirrored partner if there is one.
template <class T, bool kFlip>
struct Map {
    const T* values;
    const T* mirrored;
    int32_t width;
    int32_t shift;

    __device__ float at(int32_t x, int32_t row_start) const {
        const float value = widen(values[row_start + x]);
        if constexpr (!kFlip) return value;
        const int32_t back = row_start + width - 1 - (x > 0 ? x - shift : 0);
        return (value + widen(mirrored[back])) * 0.5f;
    }
    __device__ float operator()(int32_t index) const {
        const int32_t row_start = index / width * width;
        return at(index - row_start, row_start);
    }
};

// Orders as the pair (value, lower index first), so that a maximum of keys breaks ties the same way in any
// order of reduction. 0 is below every finite value. -0 sorts below +0, which shows nowhere: a peak of 0 has
// no place.
__device__ __forceinline__ unsigned long long peak_key(float value, int32_t index) {
    if (index < 0) return 0;
    const uint32_t bits = __float_as_uint(value);
    const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<unsigned long long>(ordered) << 32 | ~static_cast<uint32_t>(index);
}

__device__ __forceinline__ unsigned long long block_max(unsigned long long key) {
    __shared__ unsigned long long warp_keys[kThreads / kWarp];
    for (int step = kWarp / 2; step > 0; step /= 2) key = max(key, __shfl_xor_sync(0xffffffffu, key, step));
    if (threadIdx.x % kWarp == 0) warp_keys[threadIdx.x / kWarp] = key;
    __syncthreads();
    for (int warp = 0; warp < kThreads / kWarp; ++warp) key = max(key, warp_keys[warp]);
    return key;
}

// Each thread strides over the map, so that neighbouring threads read neighbouring values, and asks for a
// chunk of them before it compares any.
template <class M>
__device__ __forceinline__ unsigned long long thread_max(const M& map, int32_t height, int32_t width) {
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
            const float read = map.at(x, min(y, height - 1) * width);  // no branch, so no load waits for one
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

template <class T, bool kFlip>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) decode_kernel(const DecodeParams p) {
    const int64_t map = blockIdx.x;
    const int64_t size = static_cast<int64_t>(p.height) * p.width;
    const int64_t joint = map % p.joints;
    const int64_t mirror = kFlip ? p.flip_index[joint] : joint;
    const bool known = mirror >= 0 && mirror < p.joints;  // the same for the whole block
    const Map<T, kFlip> values{static_cast<const T*>(p.heatmaps) + map * size,
                               static_cast<const T*>(p.flipped) + (map - joint + mirror) * size, p.width,
                               p.shift ? 1 : 0};
    const unsigned long long key = block_max(known ? thread_max(values, p.height, p.width) : 0);
    if (threadIdx.x != 0) return;
    const int32_t index = key == 0 ? -1 : static_cast<int32_t>(~static_cast<uint32_t>(key));
    write_keypoint(p, map, index, index < 0 ? 0.0f : values(index), values);
}

template <class T>
void launch(const DecodeParams& p, cudaStream_t stream) {
    const unsigned int blocks = static_cast<unsigned int>(p.batch * p.joints);
    if (p.flipped != nullptr)
        decode_kernel<T, true><<<blocks, kThreads, 0, stream>>>(p);
    else
        decode_kernel<T, false><<<blocks, kThreads, 0, stream>>>(p);
}

// The current device of the calling thread is what torch set; it is the same after the call.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) : error_(cudaGetDevice(&previous_)) {
        if (error_ == cudaSuccess) error_ = cudaSetDevice(device);
    }
    ~DeviceGuard() {
        if (error_ == cudaSuccess) cudaSetDevice(previous_);
    }
    cudaError_t error() const { return error_; }

  private:
    int previous_ = 0;
    cudaError_t error_;
};

}  // namespace

int decode_cuda(const DecodeParams& p, int device, void* stream) {
    const int64_t maps = p.batch * p.joints;
    if (maps == 0) return cudaSuccess;
    if (maps > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidConfiguration;
    const DeviceGuard guard(device);
    if (guard.error() != cudaSuccess) return guard.error();
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    switch (p.dtype) {
        case DType::float32: launch<float>(p, on); break;
        case DType::bfloat16: launch<bf16>(p, on); break;
        case DType::float16: launch<fp16>(p, on); break;
    }
    return cudaGetLastError();
}

int decode_cuda_status(int device) {
    const DeviceGuard guard(device);
    if (guard.error() != cudaSuccess) return guard.error();
    cudaFuncAttributes attributes;  // fails where no machine code and no PTX fits the device
    return cudaFuncGetAttributes(&attributes, decode_kernel<float, false>);
}

const char* cuda_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // namespace fastpose
