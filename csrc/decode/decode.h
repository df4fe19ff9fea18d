// Heatmaps to keypoints: the one interface of the CPU and the CUDA decoder. No Python, no torch.
#pragma once

#include <cstdint>

namespace fastpose {

enum class DType : int { float32 = 0, bfloat16 = 1, float16 = 2 };

// Contiguous arrays in (x, y) order. The caller has checked every size and keeps the memory alive.
struct DecodeParams {
    const void* heatmaps;       // (batch, joints, height, width) of `dtype`
    const void* flipped;        // the same for the mirrored batch, as the network gave it; null: no flip test
    const int64_t* flip_index;  // (joints), used with `flipped`
    const float* center;        // (batch, 2) image pixels; null: keypoints stay in heatmap pixels
    const float* scale;         // (batch, 2) box size / 200 pixels, used with `center`
    float* keypoints;           // (batch, joints, 2)
    float* score;               // (batch, joints)
    bool* valid;                // (batch, joints)
    int64_t batch;
    int64_t joints;
    int32_t height;
    int32_t width;  // height * width < 2^30
    DType dtype;
    bool shift;   // move the mirrored-back maps one pixel to the right before averaging
    bool refine;  // quarter pixel towards the higher neighbour
};

// A map whose entry of flip_index is no joint gets no peak: score 0, valid false.
void decode_cpu(const DecodeParams& params, int threads);

// Launches on `stream` (a cudaStream_t) of `device` and returns its cudaError_t; 0 is success.
int decode_cuda(const DecodeParams& params, int device, void* stream);

// cudaError_t of asking whether `device` can run the kernel, and the text of such a code.
int decode_cuda_status(int device);
const char* cuda_error_text(int code);

}  // namespace fastpose
