// The decoder on a GPU: one launch, whatever the layout of the maps.
#include <limits>

#include "../device_guard.cuh"
#include "cuda_interleaved.cuh"
#include "cuda_planar.cuh"

namespace fastpose {
namespace {

constexpr int kFewerThreads = 512;  // two blocks a multiprocessor, so that one loads while the other refines

template <class T, bool kFlip>
void launch_planar(const DecodeParams& p, cudaStream_t stream) {
    const unsigned int blocks = static_cast<unsigned int>(p.batch * p.joints);
    if (is_dense(p.heatmap_strides, p) && (!kFlip || is_dense(p.flipped_strides, p)))
        decode_planar_kernel<T, kFlip, true><<<blocks, kThreads, 0, stream>>>(p);
    else
        decode_planar_kernel<T, kFlip, false><<<blocks, kThreads, 0, stream>>>(p);
}

template <class T, bool kFlip>
void launch_interleaved(const DecodeParams& p, int processors, cudaStream_t stream) {
    const int threads = p.batch < 2 * processors ? kMostThreads : kFewerThreads;
    const unsigned int blocks = static_cast<unsigned int>(p.batch);
    decode_interleaved_kernel<T, kFlip><<<blocks, threads, threads * sizeof(PeakKey), stream>>>(p);
}

template <class T>
cudaError_t launch(const DecodeParams& p, int device, cudaStream_t stream) {
    if (is_dense(p.heatmap_strides, p) || !is_interleaved(p.heatmap_strides, p)) {
        p.flipped != nullptr ? launch_planar<T, true>(p, stream) : launch_planar<T, false>(p, stream);
        return cudaGetLastError();
    }
    int processors = 0;
    const cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess) return error;
    if (p.flipped != nullptr)
        launch_interleaved<T, true>(p, processors, stream);
    else
        launch_interleaved<T, false>(p, processors, stream);
    return cudaGetLastError();
}

}  // namespace

int decode_cuda(const DecodeParams& p, int device, void* stream) {
    const int64_t maps = p.batch * p.joints;
    if (maps == 0) return cudaSuccess;
    if (maps > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidConfiguration;
    const DeviceGuard guard(device);
    if (guard.error() != cudaSuccess) return guard.error();
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    switch (p.dtype) {
        case DType::float32: return launch<float>(p, device, on);
        case DType::bfloat16: return launch<bf16>(p, device, on);
        case DType::float16: return launch<fp16>(p, device, on);
    }
    return cudaErrorInvalidValue;
}

int decode_cuda_status(int device) {
    const DeviceGuard guard(device);
    if (guard.error() != cudaSuccess) return guard.error();
    cudaFuncAttributes attributes;  // fails where no machine code and no PTX fits the device
    return cudaFuncGetAttributes(&attributes, decode_planar_kernel<float, false, true>);
}

const char* cuda_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // namespace fastpose
