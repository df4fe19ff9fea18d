// The decoder on CPU threads, in the widest vectors of the processor it runs on.
#include <memory>

#include "cpu_dense.h"
#include "cpu_interleaved.h"

namespace fastpose {
namespace {

enum class Layout { dense, interleaved, strided };

constexpr int kLeastWidth = 4;                 // of a vector
constexpr int64_t kValuesPerThread = 1 << 17;  // less work than this costs more to hand out than to do

Layout layout_of(const DecodeParams& p) {
    const bool flip = p.flipped != nullptr;
    if (is_dense(p.heatmap_strides, p) && (!flip || is_dense(p.flipped_strides, p))) return Layout::dense;
    if (is_interleaved(p.heatmap_strides, p) && p.joints >= kLeastWidth) return Layout::interleaved;
    return Layout::strided;
}

// Vectors as wide as asked, but not wider than a pixel has joints.
int width_of(const DecodeParams& p, Layout layout, int widest) {
    return layout == Layout::interleaved && p.joints < widest ? kLeastWidth : widest;
}

// How the work falls into pieces, and the floats of scratch that one thread needs.
struct Plan {
    Layout layout;
    int64_t pieces;
    int64_t scratch;
};

Plan plan_of(const DecodeParams& p, int widest) {
    const Layout layout = layout_of(p);
    const int64_t size = static_cast<int64_t>(p.height) * p.width;
    if (layout == Layout::interleaved) {
        const int64_t block = kVectors * width_of(p, layout, widest);
        const int64_t row = p.flipped == nullptr ? 0 : p.width * std::min(block, p.joints);
        return {layout, p.batch * count_blocks(p.joints, block), row};
    }
    return {layout, p.batch * p.joints, layout == Layout::dense && p.flipped == nullptr ? 0 : size};
}

template <int W, class T, bool kFlip, Layout kLayout>
FASTPOSE_INLINE void decode_pieces(const DecodeParams& p, int64_t begin, int64_t end, float* own) {
    if constexpr (kLayout != Layout::interleaved)
        decode_maps<W, T, kFlip, kLayout == Layout::dense>(p, begin, end, own);
    else if (width_of(p, kLayout, W) == W)
        decode_images<W, T, kFlip>(p, begin, end, reinterpret_cast<T*>(own));
    else
        decode_images<kLeastWidth, T, kFlip>(p, begin, end, reinterpret_cast<T*>(own));
}

// One function for each case: a single one of them all would be compiled into slower loops.
struct Vectors128 {
    static constexpr int kWidth = 4;
    template <class T, bool kFlip, Layout kLayout>
    __attribute__((noinline)) static void run(const DecodeParams& p, int64_t begin, int64_t end, float* own) {
        decode_pieces<kWidth, T, kFlip, kLayout>(p, begin, end, own);
    }
};

#if defined(__x86_64__)
struct Vectors256 {
    static constexpr int kWidth = 8;
    template <class T, bool kFlip, Layout kLayout>
    __attribute__((target("avx2"), noinline)) static void run(const DecodeParams& p, int64_t begin,
                                                              int64_t end, float* own) {
        decode_pieces<kWidth, T, kFlip, kLayout>(p, begin, end, own);
    }
};

struct Vectors512 {
    static constexpr int kWidth = 16;
    template <class T, bool kFlip, Layout kLayout>
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl"), noinline)) static void run(
        const DecodeParams& p, int64_t begin, int64_t end, float* own) {
        decode_pieces<kWidth, T, kFlip, kLayout>(p, begin, end, own);
    }
};
#endif

using Run = void (*)(const DecodeParams&, int64_t, int64_t, float*);

template <class V, class T, bool kFlip>
Run pick_layout(Layout layout) {
    switch (layout) {
        case Layout::dense: return V::template run<T, kFlip, Layout::dense>;
        case Layout::interleaved: return V::template run<T, kFlip, Layout::interleaved>;
        case Layout::strided: break;
    }
    return V::template run<T, kFlip, Layout::strided>;
}

template <class V, class T>
Run pick_flip(const DecodeParams& p, Layout layout) {
    return p.flipped == nullptr ? pick_layout<V, T, false>(layout) : pick_layout<V, T, true>(layout);
}

template <class V>
Run pick_run(const DecodeParams& p, Layout layout) {
    switch (p.dtype) {
        case DType::float32: return pick_flip<V, float>(p, layout);
        case DType::bfloat16: return pick_flip<V, bf16>(p, layout);
        case DType::float16: break;
    }
    return pick_flip<V, fp16>(p, layout);
}

struct Decoder {
    int width;
    Run (*pick)(const DecodeParams&, Layout);
};

// Chosen at run time, not by -march: a wheel travels between processors.
Decoder pick_decoder() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return {Vectors512::kWidth, pick_run<Vectors512>};
    if (__builtin_cpu_supports("avx2")) return {Vectors256::kWidth, pick_run<Vectors256>};
#endif
    return {Vectors128::kWidth, pick_run<Vectors128>};
}

}  // namespace

void decode_cpu(const DecodeParams& p, int threads) {
    static const Decoder decoder = pick_decoder();
    const Plan plan = plan_of(p, decoder.width);
    const Run run = decoder.pick(p, plan.layout);
    const int64_t values = p.batch * p.joints * p.height * p.width;
    const int64_t useful = std::min(plan.pieces, values / kValuesPerThread);
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, useful));
    const std::unique_ptr<float[]> scratch(plan.scratch == 0 ? nullptr : new float[parts * plan.scratch]);
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static) if (parts > 1)
    for (int64_t part = 0; part < parts; ++part) {
        float* own = scratch ? scratch.get() + part * plan.scratch : nullptr;
        run(p, plan.pieces * part / parts, plan.pieces * (part + 1) / parts, own);
    }
}

}  // namespace fastpose
