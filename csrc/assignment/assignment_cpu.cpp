// The assignment solver on CPU threads.
#include <algorithm>
#include <memory>

#include "solve.h"

namespace fastpose {
namespace {

constexpr int64_t kCellsPerThread = 1 << 14;  // less work than this costs more to hand out than to do

struct OneLane {
    static constexpr int kCount = 1;
    FASTPOSE_INLINE int32_t first() const { return 0; }
    FASTPOSE_INLINE bool owns(int32_t) const { return true; }
    FASTPOSE_INLINE void sync() const {}
    template <class T>
    FASTPOSE_INLINE T least(T value) const {
        return value;
    }
    FASTPOSE_INLINE double least_of(const double* values, int32_t count) const {
        double least[kChains];
        for (double& chain : least) chain = kInfinity;
        int32_t j = 0;
        for (; j + kChains <= count; j += kChains)
            for (int32_t k = 0; k < kChains; ++k) least[k] = values[j + k] < least[k] ? values[j + k] : least[k];
        for (; j < count; ++j) least[0] = values[j] < least[0] ? values[j] : least[0];
        for (const double chain : least) least[0] = chain < least[0] ? chain : least[0];
        return least[0];
    }

  private:
    static constexpr int32_t kChains = 16;  // comparisons under way at a time
};

// Rows without gaps, of values that are all usable.
struct DenseCosts {
    const double* values;
    int32_t columns;

    FASTPOSE_INLINE double operator()(int32_t row, int32_t column) const {
        return values[static_cast<int64_t>(row) * columns + column];
    }
};

int64_t count_cells(const AssignParams& p) { return static_cast<int64_t>(p.queries) * p.joints; }

// One problem's costs as dense rows, read column by column: in memory the rows' index usually runs fastest.
template <class T>
FASTPOSE_INLINE void load_costs(const AssignParams& p, const Sides& sides, const OneLane& lane,
                                int64_t problem, double* FASTPOSE_RESTRICT rows) {
    const T* FASTPOSE_RESTRICT values = static_cast<const T*>(p.cost) + problem * p.problem_stride;
    for (int32_t j = 0; j < sides.columns; ++j)
        for (int32_t i = 0; i < sides.rows; ++i)
            rows[static_cast<int64_t>(i) * sides.columns + j] =
                static_cast<double>(values[i * sides.row_stride + j * sides.column_stride]);
    int64_t unusable = 0;
    for (int64_t k = 0; k < count_cells(p); ++k) unusable += !is_usable(rows[k]);
    if (unusable == 0) return;
    const double bad = costs_of<T>(p, sides, lane, problem).bad;
    for (int64_t k = 0; k < count_cells(p); ++k) rows[k] = is_usable(rows[k]) ? rows[k] : bad;
}

// `own` holds the costs of a problem, then its scratch.
template <class T>
FASTPOSE_INLINE void assign_problems(const AssignParams& p, int64_t begin, int64_t end, double* own) {
    const Sides sides = sides_of(p);
    const OneLane lane;
    const Scratch scratch = carve(own + count_cells(p), sides);
    for (int64_t problem = begin; problem < end; ++problem) {
        load_costs<T>(p, sides, lane, problem, own);
        solve(lane, DenseCosts{own, sides.columns}, sides, scratch);
        write_queries(p, lane, sides, scratch, problem);
    }
}

template <class T>
void run_plain(const AssignParams& p, int64_t begin, int64_t end, double* own) {
    assign_problems<T>(p, begin, end, own);
}

using Run = void (*)(const AssignParams&, int64_t, int64_t, double*);

#if defined(__x86_64__)
template <class T>
__attribute__((target("avx2"))) void run_avx2(const AssignParams& p, int64_t begin, int64_t end, double* own) {
    assign_problems<T>(p, begin, end, own);
}

template <class T>
__attribute__((target("avx512f,avx512dq,avx512vl"))) void run_avx512(const AssignParams& p, int64_t begin,
                                                                     int64_t end, double* own) {
    assign_problems<T>(p, begin, end, own);
}
#endif

// Chosen at run time, not by -march: a wheel travels between processors.
template <class T>
Run pick_run() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) return run_avx512<T>;
    if (__builtin_cpu_supports("avx2")) return run_avx2<T>;
#endif
    return run_plain<T>;
}

}  // namespace

void assign_cpu(const AssignParams& p, int threads) {
    const int64_t useful = std::min(p.problems, p.problems * count_cells(p) / kCellsPerThread);
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, useful));
    const int64_t size = count_cells(p) + (scratch_bytes(p) + sizeof(double) - 1) / sizeof(double);
    const std::unique_ptr<double[]> scratch(new double[parts * size]);
    static const Run run32 = pick_run<float>(), run64 = pick_run<double>();
    const Run run = p.type == CostType::float32 ? run32 : run64;
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static) if (parts > 1)
    for (int64_t part = 0; part < parts; ++part)
        run(p, p.problems * part / parts, p.problems * (part + 1) / parts, scratch.get() + part * size);
}

}  // namespace fastpose
