// Peaks of maps in channels_last memory: one pass over an image, vectors along the joints of a pixel.
#pragma once

#include "cpu_finish.h"

namespace fastpose {

constexpr int kVectors = 4;  // of joints at a time; as many maxima and their places fit into registers

// Joints `first` to `last` in N vectors, the last of which may overlap the one before.
template <int W, int N>
struct Lanes {
    int64_t first;
    int64_t last;

    FASTPOSE_INLINE int64_t start(int v) const { return std::min(first + v * W, last - W); }
    FASTPOSE_INLINE int32_t count() const { return static_cast<int32_t>(last - first); }
};

// How the partners of a pixel's joints are fetched from the mirrored maps.
struct NoPartner {
    template <int W, int N, class T>
    struct Reader {
        FASTPOSE_INLINE Reader(const DecodeParams&, int64_t, const Lanes<W, N>&, T*) {}
        FASTPOSE_INLINE void start_row(int32_t) {}
        FASTPOSE_INLINE void average(int32_t, typename Vector<W>::Float (&)[N]) {}
    };
};

// An entry of flip_index that is no joint reads joint 0; the map is refused when it is finished.
inline int64_t readable_mirror(const DecodeParams& p, int64_t joint) {
    return std::max<int64_t>(mirror_of(p, joint), 0);
}

// One by one, a row ahead, from maps of any strides.
struct GatheredPartner {
    template <int W, int N, class T>
    struct Reader {
        const DecodeParams& p;
        const Lanes<W, N> lanes;
        const T* image;
        T* row;
        int64_t offsets[N * W];

        FASTPOSE_INLINE Reader(const DecodeParams& params, int64_t number, const Lanes<W, N>& joints,
                               T* scratch)
            : p(params), lanes(joints), row(scratch) {
            image = static_cast<const T*>(p.flipped) + number * p.flipped_strides.batch;
            for (int32_t k = 0; k < lanes.count(); ++k)
                offsets[k] = readable_mirror(p, lanes.first + k) * p.flipped_strides.joint;
        }
        FASTPOSE_INLINE void start_row(int32_t y) {
            T* out = row;
            for (int32_t x = 0; x < p.width; ++x) {
                const int64_t column = mirrored_column(x, p.width, p.shift) * p.flipped_strides.column;
                const T* from = image + y * p.flipped_strides.row + column;
                for (int32_t k = 0; k < lanes.count(); ++k) *out++ = from[offsets[k]];
            }
        }
        FASTPOSE_INLINE void average(int32_t x, typename Vector<W>::Float (&value)[N]) {
            for (int v = 0; v < N; ++v) {
                typename Vector<W>::Float other;
                load<W>(row + x * lanes.count() + (lanes.start(v) - lanes.first), other);
                value[v] = (value[v] + other) * 0.5f;
            }
        }
    };
};

// In registers, where the same lanes hold all partners: every output vector picks from each of the N read.
struct PermutedPartner {
    template <int W, int N, class T>
    struct Reader {
        using Float = typename Vector<W>::Float;
        using Int = typename Vector<W>::Int;
        const DecodeParams& p;
        const Lanes<W, N> lanes;
        const T* image;
        const T* row;
        Int order[N][N];
        Int chosen[N][N];

        FASTPOSE_INLINE Reader(const DecodeParams& params, int64_t number, const Lanes<W, N>& joints, T*)
            : p(params), lanes(joints) {
            image = static_cast<const T*>(p.flipped) + number * p.flipped_strides.batch;
            for (int v = 0; v < N; ++v) {
                for (int j = 0; j < W; ++j) {
                    const int64_t mirror = readable_mirror(p, lanes.start(v) + j);
                    const int source = static_cast<int>(std::min<int64_t>(mirror / W, N - 1));
                    for (int s = 0; s < N; ++s) {
                        chosen[v][s][j] = s == source ? -1 : 0;
                        order[v][s][j] = s == source ? static_cast<int32_t>(mirror - lanes.start(s)) : 0;
                    }
                }
            }
        }
        FASTPOSE_INLINE void start_row(int32_t y) { row = image + y * p.flipped_strides.row; }
        FASTPOSE_INLINE void average(int32_t x, Float (&value)[N]) {
            const T* from = row + mirrored_column(x, p.width, p.shift) * p.flipped_strides.column;
            __builtin_prefetch(from + kAhead);
            Float given[N];
            for (int s = 0; s < N; ++s) load<W>(from + lanes.start(s), given[s]);
            for (int v = 0; v < N; ++v) {
                Float other = given[0];
                permute<W>(other, order[v][0]);
                for (int s = 1; s < N; ++s) {
                    Float there = given[s];
                    permute<W>(there, order[v][s]);
                    const Int bits = reinterpret_cast<Int>(there) & chosen[v][s];  // GCC takes ?: apart here
                    other = reinterpret_cast<Float>(bits | (reinterpret_cast<Int>(other) & ~chosen[v][s]));
                }
                value[v] = (value[v] + other) * 0.5f;
            }
        }
    };
};

template <int W, int N, class T, class Partner>
FASTPOSE_INLINE void decode_joints(const DecodeParams& p, int64_t image, Lanes<W, N> lanes, T* scratch) {
    using Float = typename Vector<W>::Float;
    using Int = typename Vector<W>::Int;
    typename Partner::template Reader<W, N, T> partner(p, image, lanes, scratch);
    const T* values = static_cast<const T*>(p.heatmaps) + image * p.heatmap_strides.batch;
    Float best[N];
    Int at[N];
    for (int v = 0; v < N; ++v) {
        best[v] = Float{} - kInfinity;
        at[v] = Int{} - 1;
    }
    Int now = Int{};
    for (int32_t y = 0; y < p.height; ++y) {
        partner.start_row(y);
        const T* pixel = values + y * p.heatmap_strides.row;
        for (int32_t x = 0; x < p.width; ++x, pixel += p.heatmap_strides.column, now += 1) {
            Float value[N];
            __builtin_prefetch(pixel + kAhead);
            for (int v = 0; v < N; ++v) load<W>(pixel + lanes.start(v), value[v]);
            partner.average(x, value);
            for (int v = 0; v < N; ++v) {
                const Int higher = value[v] > best[v];
                best[v] = value[v] > best[v] ? value[v] : best[v];
                at[v] = higher ? now : at[v];
            }
        }
    }
    for (int v = 0; v < N; ++v) {
        const int64_t from = lanes.first + v * W, to = std::min(from + W, lanes.last);
        for (int64_t joint = from; joint < to; ++joint) {
            constexpr bool kFlip = !std::is_same_v<Partner, NoPartner>;
            const int64_t mirror = kFlip ? mirror_of(p, joint) : joint, lane = joint - lanes.start(v);
            if (mirror < 0)
                refuse_map(p, image, joint);
            else
                finish_map(p, image, joint, map_of<T, kFlip>(p, image, joint, mirror),
                           {at[v][lane], best[v][lane]});
        }
    }
}

inline int64_t count_blocks(int64_t joints, int64_t block) { return (joints + block - 1) / block; }

// Blocks `begin` to `end` of up to kVectors * W joints, image by image. The joints are W or more, and the
// blocks of an image as equal as can be, so that each fills a vector. `scratch` holds one row of a block.
template <int W, class T, class Partner>
FASTPOSE_INLINE void decode_blocks(const DecodeParams& p, int64_t begin, int64_t end, T* scratch) {
    const int64_t blocks = count_blocks(p.joints, kVectors * W);
    for (int64_t number = begin; number < end; ++number) {
        const int64_t image = number / blocks, block = number - image * blocks;
        const int64_t first = p.joints * block / blocks, last = p.joints * (block + 1) / blocks;
        switch (count_blocks(last - first, W)) {
            case 1: decode_joints<W, 1, T, Partner>(p, image, {first, last}, scratch); break;
            case 2: decode_joints<W, 2, T, Partner>(p, image, {first, last}, scratch); break;
            case 3: decode_joints<W, 3, T, Partner>(p, image, {first, last}, scratch); break;
            case 4: decode_joints<W, 4, T, Partner>(p, image, {first, last}, scratch); break;
        }
    }
}

// SSE2 has no permutation by a variable, and more joints than one block would need all its vectors for each.
template <int W, class T, bool kFlip>
FASTPOSE_INLINE void decode_images(const DecodeParams& p, int64_t begin, int64_t end, T* scratch) {
    if constexpr (!kFlip)
        decode_blocks<W, T, NoPartner>(p, begin, end, scratch);
    else if (W > 4 && p.joints <= kVectors * W && is_interleaved(p.flipped_strides, p))
        decode_blocks<W, T, PermutedPartner>(p, begin, end, scratch);
    else
        decode_blocks<W, T, GatheredPartner>(p, begin, end, scratch);
}

}  // namespace fastpose
