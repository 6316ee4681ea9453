// Exact search: the k rows of highest cosine for each query, score and selection in one pass over the rows.
//
// Threads draw runs of rows from a counter and search them panel by panel (panel_search.hpp), each with its own
// reservoirs; the merge of those does not depend on who drew what. Queries are taken in groups that stay in the
// second-level cache. Memory is O(threads x queries of a group x k), never rows x queries.
#pragma once

#include <cstddef>
#include <cstdint>

#include "machine/stop.hpp"
#include "search/kernels/kernels.hpp"
#include "search/rows.hpp"

namespace gte {

// Writes scores [query_count][k] and indices [query_count][k], score descending, ties by lower index. A row's score is
// the cosine of what is stored of it and of the query, encoded likewise (float16 rows meet float32 queries), clamped to
// [-1, 1]; it is 0 for a row or query of zeros. It depends on that row and query only.
//
// queries: [query_count][dim] floats of any alignment, which are copied. Needs 1 <= k <= rows.count <=
// rows.stored_count. Returns the lowest row with values or a scale that no stored vector has (NaN, an infinity, a scale
// outside 0 .. 1), or -1. The results are valid if it is -1 and `stop` did not stop. Whatever the rows and the
// selection hold, and whatever another thread writes there meanwhile, indices are below rows.stored_count and nothing
// else is read or written. Throws std::bad_alloc, std::length_error (too large for a vector), and std::invalid_argument
// for queries not finite.
int64_t search(const Kernels& kernels, const Rows& rows, const void* queries, size_t query_count, size_t k,
               size_t thread_count, Stop& stop, float* scores, int64_t* indices);

// The same, but query i searches only rows candidates[i * candidate_count ..], ascending. rows.selected is not read.
// Needs 1 <= k <= candidate_count.
int64_t search_candidates(const Kernels& kernels, const Rows& rows, const void* queries, size_t query_count,
                          const uint32_t* candidates, size_t candidate_count, size_t k, size_t thread_count, Stop& stop,
                          float* scores, int64_t* indices);

}  // namespace gte
