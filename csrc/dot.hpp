// Dot products of a panel of rows with a tile of queries: the innermost loops, one function for each instruction set.
//
// A panel is [word][panel_rows] (panel.hpp), a query tile is [word][tile_queries]: at each word a kernel loads some rows,
// broadcasts some queries and keeps the sums of rows x queries in registers. All sums run along the words in order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "panel.hpp"

namespace gte {

constexpr size_t tile_queries = 12;

// dots: [tile_queries][panel_rows], of which the first query_count rows are written. 1 <= query_count <= tile_queries.
using DotFloat = void (*)(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots);
// sums: [panel_rows].
using SumOfSquares = void (*)(const float* panel, size_t dim, float* sums);

// One instruction set's kernels. A set without a faster way of its own for one of them holds the next lower set's.
struct Kernels {
    const char* name;
    PackPanel pack_panel;
    SumOfSquares sum_of_squares;
    DotFloat dot_float;
};

// The kernels called `name` ("scalar", "avx2", "avx512", "avx512vnni", "neon", "neondot"), the best ones of this CPU for
// an empty name, nullptr where the CPU or the build does not have them.
const Kernels* find_kernels(const char* name);
// The name of the position-th set that this CPU has, worst first; nullptr past the end.
const char* kernel_name(size_t position);

void sum_of_squares_scalar(const float* panel, size_t dim, float* sums);
void sum_of_squares_avx2(const float* panel, size_t dim, float* sums);
void sum_of_squares_avx512(const float* panel, size_t dim, float* sums);
void sum_of_squares_neon(const float* panel, size_t dim, float* sums);

void dot_float_scalar(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots);
void dot_float_avx2(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots);
void dot_float_avx512(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots);
void dot_float_neon(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots);

}  // namespace gte
