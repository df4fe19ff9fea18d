// The assignment solver on a GPU: one launch, one warp for each problem, its state in shared memory.
#include <cuda_runtime.h>

#include <limits>

#include "../device_guard.cuh"
#include "solve.h"

namespace fastpose {

extern __shared__ double assignment_memory[];

namespace {

struct Warp {
    static constexpr int kCount = 32;
    static constexpr unsigned int kAll = 0xffffffffu;

    __device__ __forceinline__ int32_t first() const { return static_cast<int32_t>(threadIdx.x); }
    __device__ __forceinline__ bool owns(int32_t column) const { return column % kCount == first(); }
    __device__ __forceinline__ void sync() const { __syncwarp(); }
    template <class T>
    __device__ __forceinline__ T least(T value) const {
        for (int step = kCount / 2; step > 0; step /= 2) {
            const T other = __shfl_xor_sync(kAll, value, step);
            value = other < value ? other : value;
        }
        return value;
    }
    __device__ __forceinline__ double least_of(const double* values, int32_t count) const {
        double own = kInfinity;
        for (int32_t j = first(); j < count; j += kCount) own = values[j] < own ? values[j] : own;
        return least(own);
    }
};

template <class T>
__global__ void __launch_bounds__(Warp::kCount) assign_kernel(const __grid_constant__ AssignParams p) {
    const Sides sides = sides_of(p);
    const Warp warp;
    const Scratch scratch = carve(assignment_memory, sides);
    const int64_t problem = blockIdx.x;
    const Costs<T> cost = costs_of<T>(p, sides, warp, problem);
    solve(warp, cost, sides, scratch);
    write_queries(p, warp, sides, scratch, problem);
}

template <class T>
cudaError_t launch(const AssignParams& p, cudaStream_t stream) {
    const unsigned int blocks = static_cast<unsigned int>(p.problems);
    const unsigned int threads = Warp::kCount;
    assign_kernel<T><<<blocks, threads, static_cast<size_t>(scratch_bytes(p)), stream>>>(p);
    return cudaGetLastError();
}

}  // namespace

int assign_cuda(const AssignParams& p, int device, void* stream) {
    if (p.problems == 0 || p.joints == 0) return cudaSuccess;
    if (p.problems > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidConfiguration;
    if (p.queries > kMostCudaColumns || p.joints > kMostCudaColumns) return cudaErrorInvalidValue;
    const DeviceGuard guard(device);
    if (guard.error() != cudaSuccess) return guard.error();
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    return p.type == CostType::float32 ? launch<float>(p, on) : launch<double>(p, on);
}

}  // namespace fastpose
