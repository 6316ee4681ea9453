// Exact search: the k rows of highest cosine for each query, score and selection in one pass over the rows.
//
// Threads draw blocks of rows from a counter; each packs its block into panels and scores every query against them while
// the panels are in the cache. Memory is O(threads x queries x k) and one block for each thread, never rows x queries.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dot.hpp"

namespace gte {

constexpr size_t max_rows = UINT32_MAX;

struct Rows {
    const char* data;           // float32 rows
    ptrdiff_t row_stride;       // bytes between rows; the values of one row are adjacent
    size_t dim;
    const uint32_t* selected;   // the rows to search, ascending; nullptr for the first `count`
    size_t count;               // how many are searched, at most max_rows
};

// Writes scores [query_count][k] and indices [query_count][k], score descending, ties by lower index. A row's score is
// q.d / (|q||d|), clamped to [-1, 1]; it is 0 for a row or query of zeros. It depends on that row and query only.
// Needs 1 <= k <= rows.count and finite queries. Returns the lowest row with a NaN or an infinity, or -1 (and then only
// are the results valid). Throws std::bad_alloc and nothing else.
int64_t search(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count, size_t k,
               size_t thread_count, float* scores, int64_t* indices);

}  // namespace gte
