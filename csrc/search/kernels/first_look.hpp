// One query's first look at a panel of float rows: which of them can score above a threshold.
//
// Only a few of all rows are among the best k, so most of a search is this look. It reads row after row, as memory is
// read fastest, and adds in whatever order its registers like: no score comes from here. What it cannot rule out is
// scored as any panel is, and what it rules out could not have entered, whatever was lost to rounding: see look_margin.
#pragma once

#include <cstddef>
#include <cstdint>

#include "search/kernels/panel.hpp"

namespace gte {

// The most by which a score may exceed the one that is found in another order of sums. A sum of n products in floats,
// in any order, is off by at most g |row| |query|, g = n u / (1 - n u), u = 2^-24 (Higham, Accuracy and Stability of
// Numerical Algorithms, 2002, section 3.1), and a sum of squares by g |row|^2, which halves under the root. Both scores
// together: 3 g, and a few u for the products, roots and quotients behind the sums.
inline float look_margin(size_t value_count) { return 4 * static_cast<float>(value_count + 16) * 0x1p-24f; }

// Sums of squares outside of these bounds may have lost digits, or their root, to overflow or underflow.
constexpr float least_regular_square = 1e-30f;
constexpr float largest_regular_square = 1e30f;

// A bit for each row whose cosine is above `bound` as it is found here, which is off by rounding, or whose sum of
// squares is not regular, NaN included. rows, next_rows: panel_rows pointers, as in PackPanel. value_count: of a row,
// even for halves. query: as many values. bound: above 0.
using RowsAbove = uint32_t (*)(const char* const* rows, const char* const* next_rows, const float* query,
                               size_t value_count, float bound);

#define GTE_DECLARE_ROWS_ABOVE(instruction_set)                                                        \
    uint32_t rows_above_float_##instruction_set(const char* const* rows, const char* const* next_rows, \
                                                const float* query, size_t value_count, float bound);  \
    uint32_t rows_above_half_##instruction_set(const char* const* rows, const char* const* next_rows,  \
                                               const float* query, size_t value_count, float bound);

GTE_DECLARE_ROWS_ABOVE(avx2)
GTE_DECLARE_ROWS_ABOVE(avx512)
GTE_DECLARE_ROWS_ABOVE(neon)
#undef GTE_DECLARE_ROWS_ABOVE

}  // namespace gte
