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
    RowType type = RowType::float32;
    const char* data = nullptr;
    ptrdiff_t row_stride = 0;       // bytes between rows; the words of one row are adjacent
    size_t dim = 0;                 // values, at most max_dim
    const float* scales = nullptr;  // int8 and binary: one factor for each stored row; not read for the float types
    const uint32_t* selected = nullptr;  // the rows to search, ascending; nullptr for the first `count`
    size_t count = 0;                    // how many are searched, at most max_rows
    size_t stored_count = 0;             // how many there are at data and scales; no row from here on is read
};

}  // namespace gte
