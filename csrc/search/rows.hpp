// The stored rows of a search, where they are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "search/row_types.hpp"

namespace gte {

constexpr size_t max_rows = UINT32_MAX;
// Integer sums of int8 rows stay within 32 bits up to here.
constexpr size_t max_dim = 65536;

struct Rows {
    RowType type;
    const char* data;
    ptrdiff_t row_stride;      // bytes between rows; the words of one row are adjacent
    size_t dim;                // values, at most max_dim
    const float* scales;       // int8 and binary: one factor for each stored row; not read for the float types
    const uint32_t* selected;  // the rows to search, ascending; nullptr for the first `count`
    size_t count;              // how many are searched, at most max_rows
};

}  // namespace gte
