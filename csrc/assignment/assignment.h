// One query for each joint at the least total cost, for many problems: the one interface of the CPU and the
// CUDA solver. No Python, no torch.
#pragma once

#include <cstdint>

namespace fastpose {

enum class CostType : int { float32 = 0, float64 = 1 };

// A cost beyond it, or one that is not finite at all, is avoided: see solve.h.
constexpr double kMostCost = 1e100;

// Of the larger side of a problem on a GPU, whose state must fit into the shared memory of one block.
constexpr int32_t kMostCudaColumns = 768;

// The caller has checked every size and keeps the memory alive.
struct AssignParams {
    const void* cost;         // (problems, queries, joints) of `type`, any strides
    int64_t* query;           // (problems, joints) contiguous; -1 for a joint left without
    int64_t problem_stride;   // in elements
    int64_t query_stride;
    int64_t joint_stride;
    int64_t problems;
    int32_t queries;
    int32_t joints;
    CostType type;
};

void assign_cpu(const AssignParams& params, int threads);

// Launches on `stream` (a cudaStream_t) of `device` and returns its cudaError_t; 0 is success.
int assign_cuda(const AssignParams& params, int device, void* stream);

}  // namespace fastpose
