// Heatmaps to keypoints: the one interface of the CPU and the CUDA decoder. No Python, no torch.
#pragma once

#include <cstdint>

namespace fastpose {

enum class DType : int { float32 = 0, bfloat16 = 1, float16 = 2 };
enum class Refine : int { none = 0, quarter = 1, dark = 2 };

constexpr int32_t kMaxBlurRadius = 31;

struct Strides {  // in elements; 0 where a dimension is expanded
    int64_t batch;
    int64_t joint;
    int64_t row;
    int64_t column;
};

// Arrays in (x, y) order, contiguous but for the maps. The caller has checked every size and keeps the memory
// alive.
struct DecodeParams {
    const void* heatmaps;       // (batch, joints, height, width) of `dtype`
    const void* flipped;        // the same for the mirrored batch, as the network gave it; null: no flip test
    const int64_t* flip_index;  // (joints), used with `flipped`
    const float* center;        // (batch, 2) image pixels; null: keypoints stay in heatmap pixels
    const float* scale;         // (batch, 2) box size / 200 pixels, used with `center`
    float* keypoints;           // (batch, joints, 2)
    float* score;               // (batch, joints)
    bool* valid;                // (batch, joints)
    Strides heatmap_strides;
    Strides flipped_strides;  // used with `flipped`
    int64_t batch;
    int64_t joints;
    int32_t height;
    int32_t width;  // height * width < 2^30
    DType dtype;
    bool shift;  // move the mirrored-back maps one pixel to the right before averaging
    Refine refine;
    int32_t blur_radius;              // of `dark`, at most kMaxBlurRadius
    double blur[kMaxBlurRadius + 1];  // weights of the blur by distance from its centre
};

// Rows that follow one another without gaps, as in a contiguous tensor.
inline bool is_dense(const Strides& s, const DecodeParams& p) {
    return (p.width == 1 || s.column == 1) && (p.height == 1 || s.row == p.width);
}

// The joints of a pixel side by side, as in channels_last memory.
inline bool is_interleaved(const Strides& s, const DecodeParams& p) { return p.joints == 1 || s.joint == 1; }

// A map whose entry of flip_index is no joint gets no peak: score 0, valid false.
void decode_cpu(const DecodeParams& params, int threads);

// Launches on `stream` (a cudaStream_t) of `device` and returns its cudaError_t; 0 is success.
int decode_cuda(const DecodeParams& params, int device, void* stream);

// cudaError_t of asking whether `device` can run the kernel, and the text of such a code.
int decode_cuda_status(int device);
const char* cuda_error_text(int code);

}  // namespace fastpose
