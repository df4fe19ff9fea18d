// Shortest augmenting paths (Crouse 2016, "On implementing 2D rectangular assignment algorithms"): shared by
// the CPU solver, where one thread solves a problem, and the CUDA solver, where a warp does.
#pragma once

#include <limits>

#include "../inline.h"
#include "assignment.h"

namespace fastpose {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Rows are the smaller side of a problem, each of which gets a column of its own.
struct Sides {
    int32_t rows;
    int32_t columns;
    int64_t row_stride;
    int64_t column_stride;
    bool joints_are_rows;
};

FASTPOSE_INLINE Sides sides_of(const AssignParams& p) {
    if (p.joints <= p.queries) return {p.joints, p.queries, p.joint_stride, p.query_stride, true};
    return {p.queries, p.joints, p.query_stride, p.joint_stride, false};
}

// What a problem is worked out in. Of a column that the search has scanned, `price` and `distance` hold minus
// and plus infinity, so that it can neither be reached nor chosen again; their values wait in the list.
struct Scratch {
    double* row_price;         // (rows)
    double* scanned_price;     // (rows), of the columns in `scanned`
    double* scanned_distance;  // (rows)
    double* price;             // (columns)
    double* distance;          // (columns), of the shortest path found so far
    int64_t* previous;         // (columns), the row that it comes from; as wide as a distance, for vectors
    int32_t* row_of;           // (columns), -1 where the column is free
    int32_t* column_of;        // (rows)
    int32_t* scanned;          // (rows), columns in the order of the search
};

constexpr int64_t kBytesPerRow = 3 * sizeof(double) + 2 * sizeof(int32_t);
constexpr int64_t kBytesPerColumn = 2 * sizeof(double) + sizeof(int64_t) + sizeof(int32_t);

inline int64_t scratch_bytes(const AssignParams& p) {
    const int64_t rows = p.joints <= p.queries ? p.joints : p.queries;
    const int64_t columns = p.joints <= p.queries ? p.queries : p.joints;
    return rows * kBytesPerRow + columns * kBytesPerColumn;
}

// `memory` is aligned for a double and has `scratch_bytes`.
FASTPOSE_INLINE Scratch carve(void* memory, const Sides& sides) {
    Scratch s;
    s.row_price = static_cast<double*>(memory);
    s.scanned_price = s.row_price + sides.rows;
    s.scanned_distance = s.scanned_price + sides.rows;
    s.price = s.scanned_distance + sides.rows;
    s.distance = s.price + sides.columns;
    s.previous = reinterpret_cast<int64_t*>(s.distance + sides.columns);
    s.row_of = reinterpret_cast<int32_t*>(s.previous + sides.columns);
    s.column_of = s.row_of + sides.columns;
    s.scanned = s.column_of + sides.rows;
    return s;
}

// A column at the end of a path.
struct Reached {
    double distance;
    int32_t order;  // the column, plus `columns` where it is taken
};

// What a cost that is to be avoided counts as: so much that as few of them are taken as can be, and the rest
// is as cheap as it can be. `least` and `most` are those of the problem's other costs.
FASTPOSE_INLINE double price_of_bad(double least, double most, int32_t rows) {
    if (!(least <= most)) return 0.0;  // there are no others
    const double range = most - least;
    const double size = most < 0.0 ? -most : most;
    double margin = range > size ? range : size;
    margin = margin > 1.0 ? margin : 1.0;
    return most + rows * range + margin;
}

FASTPOSE_INLINE bool is_usable(double cost) { return cost >= -kMostCost && cost <= kMostCost; }  // not NaN

template <class T>
struct Costs {
    const T* values;
    int64_t row_stride;
    int64_t column_stride;
    double bad;

    FASTPOSE_INLINE double raw(int32_t row, int32_t column) const {
        return static_cast<double>(values[row * row_stride + column * column_stride]);
    }
    FASTPOSE_INLINE double operator()(int32_t row, int32_t column) const {
        const double cost = raw(row, column);
        return is_usable(cost) ? cost : bad;
    }
};

template <class T, class Lanes>
FASTPOSE_INLINE Costs<T> costs_of(const AssignParams& p, const Sides& sides, const Lanes& lanes,
                                  int64_t problem) {
    const T* values = static_cast<const T*>(p.cost) + problem * p.problem_stride;
    Costs<T> costs{values, sides.row_stride, sides.column_stride, 0.0};
    double least = kInfinity, most = -kInfinity;
    for (int32_t i = 0; i < sides.rows; ++i) {
        for (int32_t j = lanes.first(); j < sides.columns; j += Lanes::kCount) {
            const double cost = costs.raw(i, j);
            if (!is_usable(cost)) continue;
            least = cost < least ? cost : least;
            most = cost > most ? cost : most;
        }
    }
    costs.bad = price_of_bad(lanes.least(least), -lanes.least(-most), sides.rows);
    return costs;
}

// Extends all paths by `row`, which was reached at `low`, and returns the nearest end of one. Among equally
// near ones a free column wins, then the lowest.
template <class Lanes, class C>
FASTPOSE_INLINE Reached relax(const Lanes& lanes, const C& cost, const Scratch& s, int32_t columns,
                              int32_t row, double low) {
    const double own = s.row_price[row];
    const double* FASTPOSE_RESTRICT price = s.price;
    double* FASTPOSE_RESTRICT distance = s.distance;
    int64_t* FASTPOSE_RESTRICT previous = s.previous;
    for (int32_t j = lanes.first(); j < columns; j += Lanes::kCount) {
        const double reach = low + cost(row, j) - own - price[j];
        const bool shorter = reach < distance[j];
        distance[j] = shorter ? reach : distance[j];
        previous[j] = shorter ? row : previous[j];
    }
    const double nearest = lanes.least_of(distance, columns);
    int32_t order = 2 * columns;
    for (int32_t j = lanes.first(); j < columns; j += Lanes::kCount) {
        if (distance[j] != nearest) continue;
        const int32_t own_order = s.row_of[j] < 0 ? j : j + columns;
        order = own_order < order ? own_order : order;
    }
    return {nearest, lanes.least(order)};
}

// From a row without a column along the shortest path to a free one; every row on it moves one column on.
template <class Lanes, class C>
FASTPOSE_INLINE void place_row(const Lanes& lanes, const C& cost, const Scratch& s, int32_t columns,
                               int32_t start) {
    for (int32_t j = lanes.first(); j < columns; j += Lanes::kCount) s.distance[j] = kInfinity;
    int32_t count = 0;
    Reached end = relax(lanes, cost, s, columns, start, 0.0);
    for (; end.order >= columns; ++count) {
        const int32_t column = end.order - columns;
        if (lanes.owns(column)) {
            s.scanned[count] = column;
            s.scanned_price[count] = s.price[column];
            s.scanned_distance[count] = end.distance;
            s.price[column] = -kInfinity;
            s.distance[column] = kInfinity;
        }
        end = relax(lanes, cost, s, columns, s.row_of[column], end.distance);
    }
    lanes.sync();
    for (int32_t k = lanes.first(); k < count; k += Lanes::kCount) {
        const int32_t column = s.scanned[k];
        const double gap = end.distance - s.scanned_distance[k];
        s.price[column] = s.scanned_price[k] - gap;
        s.row_price[s.row_of[column]] += gap;
    }
    lanes.sync();
    if (lanes.owns(0)) {
        s.row_price[start] += end.distance;
        for (int32_t column = end.order, row = -1; row != start;) {
            row = static_cast<int32_t>(s.previous[column]);
            s.row_of[column] = row;
            const int32_t left = s.column_of[row];
            s.column_of[row] = column;
            column = left;
        }
    }
    lanes.sync();
}

template <class Lanes, class C>
FASTPOSE_INLINE void solve(const Lanes& lanes, const C& cost, const Sides& sides, const Scratch& s) {
    for (int32_t j = lanes.first(); j < sides.columns; j += Lanes::kCount) {
        s.price[j] = 0.0;
        s.row_of[j] = -1;
    }
    for (int32_t i = lanes.first(); i < sides.rows; i += Lanes::kCount) s.row_price[i] = 0.0;
    lanes.sync();
    for (int32_t i = 0; i < sides.rows; ++i) place_row(lanes, cost, s, sides.columns, i);
}

// Writes one problem's queries.
template <class Lanes>
FASTPOSE_INLINE void write_queries(const AssignParams& p, const Lanes& lanes, const Sides& sides,
                                   const Scratch& s, int64_t problem) {
    int64_t* query = p.query + problem * p.joints;
    for (int32_t j = lanes.first(); j < p.joints; j += Lanes::kCount)
        query[j] = sides.joints_are_rows ? s.column_of[j] : s.row_of[j];
    lanes.sync();  // the next problem uses the scratch
}

}  // namespace fastpose
