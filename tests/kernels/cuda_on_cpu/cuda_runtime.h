// Runs CUDA kernels on the CPU, one thread of a block at a time, for tests on machines without a GPU. Threads
// are fibers that give way at barriers and at warp operations. A kernel whose threads do not all arrive where
// they must ends the program. What it cannot show: races between barriers, speed, the GPU's own arithmetic.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ thread_local  // all fibers of a block run in one thread

namespace cuda_on_cpu {

struct Index {
    unsigned int x;
};
enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state;
};

constexpr size_t kStack = 1 << 16;
constexpr unsigned int kWarpSize = 32;
inline thread_local Index thread_index, block_index, block_size;
inline thread_local std::vector<Fiber> fibers;
inline thread_local std::vector<uint64_t> slots;  // what each thread hands to its warp
inline thread_local ucontext_t scheduler;
inline thread_local std::function<void()> kernel;
inline thread_local int launches = 0;

inline void run_fiber() {
    kernel();
    fibers[thread_index.x].state = State::done;
}

inline void wait_in(State state) {
    Fiber& fiber = fibers[thread_index.x];
    fiber.state = state;
    swapcontext(&fiber.context, &scheduler);
}

// Lets threads `begin` to `end` go on if all that are not done wait at `barrier`.
inline bool release(State barrier, size_t begin, size_t end, bool all) {
    size_t waiting = 0, gone = 0;
    for (size_t i = begin; i < end; ++i) {
        waiting += fibers[i].state == barrier;
        gone += fibers[i].state == State::done;
    }
    if (waiting == 0 || waiting + (all ? 0 : gone) < end - begin) return false;
    for (size_t i = begin; i < end; ++i)
        if (fibers[i].state == barrier) fibers[i].state = State::ready;
    return true;
}

inline void run_block() {
    for (unsigned int i = 0; i < fibers.size(); ++i) {
        Fiber& fiber = fibers[i];
        if (!fiber.stack) fiber.stack.reset(new char[kStack]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStack;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, run_fiber, 0);
        fiber.state = State::ready;
    }
    for (;;) {
        for (unsigned int i = 0; i < fibers.size(); ++i) {
            if (fibers[i].state != State::ready) continue;
            thread_index.x = i;
            swapcontext(&scheduler, &fibers[i].context);
        }
        bool any = release(State::at_block_barrier, 0, fibers.size(), false);
        for (size_t i = 0; i < fibers.size(); i += kWarpSize)
            any |= release(State::at_warp_barrier, i, std::min<size_t>(i + kWarpSize, fibers.size()), true);
        if (std::all_of(fibers.begin(), fibers.end(), [](auto& f) { return f.state == State::done; })) return;
        if (!any) {
            std::fprintf(stderr, "block %u: threads wait for others that never come\n", block_index.x);
            std::abort();
        }
    }
}

template <class Kernel, class Params>
void launch(Kernel run, unsigned int blocks, unsigned int threads, const Params& params) {
    ++launches;
    block_size.x = threads;
    fibers.resize(threads);
    slots.assign(threads, 0);
    kernel = [run, &params] { run(params); };
    for (block_index.x = 0; block_index.x < blocks; ++block_index.x) run_block();
}

template <class T>
T exchange(T value, unsigned int lane) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    std::memcpy(&slots[thread_index.x], &value, sizeof value);
    wait_in(State::at_warp_barrier);
    std::memcpy(&value, &slots[thread_index.x / kWarpSize * kWarpSize + lane % kWarpSize], sizeof value);
    wait_in(State::at_warp_barrier);
    return value;
}

template <class Combine>
bool vote(bool own, Combine combine) {
    slots[thread_index.x] = own;
    wait_in(State::at_warp_barrier);
    const auto first = slots.begin() + thread_index.x / kWarpSize * kWarpSize;
    const bool result = combine(first, first + kWarpSize);
    wait_in(State::at_warp_barrier);
    return result;
}

}  // namespace cuda_on_cpu

#define threadIdx cuda_on_cpu::thread_index
#define blockIdx cuda_on_cpu::block_index
#define blockDim cuda_on_cpu::block_size

using std::isfinite;
using std::max;
using std::min;

inline void __syncthreads() { cuda_on_cpu::wait_in(cuda_on_cpu::State::at_block_barrier); }
inline void __syncwarp() { cuda_on_cpu::wait_in(cuda_on_cpu::State::at_warp_barrier); }
template <class T>
T __shfl_sync(unsigned int, T value, int lane) {
    return cuda_on_cpu::exchange(value, static_cast<unsigned int>(lane));
}
template <class T>
T __shfl_xor_sync(unsigned int, T value, int step) {
    return cuda_on_cpu::exchange(value, threadIdx.x ^ static_cast<unsigned int>(step));
}
inline bool __all_sync(unsigned int, bool own) {
    return cuda_on_cpu::vote(own, [](auto a, auto b) { return std::find(a, b, 0u) == b; });
}
inline bool __any_sync(unsigned int, bool own) {
    return cuda_on_cpu::vote(own, [](auto a, auto b) { return std::find(a, b, 1u) != b; });
}
inline uint32_t __float_as_uint(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The runtime of a machine with one GPU of two multiprocessors.
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum { cudaDevAttrMultiProcessorCount = 16 };
struct cudaFuncAttributes {};
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) { return *value = 2, cudaSuccess; }
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
    return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
