// Exact search: the k rows of highest cosine for each query, score and selection in one pass over the rows.
//
// Threads draw runs of rows from a counter and search them panel by panel (panel_search.hpp), each with its own
// reservoirs; the merge of those does not depend on who drew what. Queries are taken in groups that stay in the
// second-level cache. Memory is O(threads x queries of a group x k), never rows x queries.
#pragma once

#include <cstddef>
#include <cstdint>

#include "search/kernels/kernels.hpp"
#include "search/rows.hpp"

namespace gte {

// Writes scores [query_count][k] and indices [query_count][k], score descending, ties by lower index. A row's score is
// the cosine of what is stored of it and of the query, encoded likewise (float16 rows meet float32 queries), clamped to
// [-1, 1]; it is 0 for a row or query of zeros. It depends on that row and query only.
// Needs 1 <= k <= rows.count and finite queries. Returns the lowest row with a NaN or an infinity, or -1 (and then only
// are the results valid). Throws std::bad_alloc and nothing else.
int64_t search(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count, size_t k,
               size_t thread_count, float* scores, int64_t* indices);

// The same, but query i searches only rows candidates[i * candidate_count ..], ascending. rows.selected is not read.
// Needs 1 <= k <= candidate_count.
int64_t search_candidates(const Kernels& kernels, const Rows& rows, const float* queries, size_t query_count,
                          const uint32_t* candidates, size_t candidate_count, size_t k, size_t thread_count,
                          float* scores, int64_t* indices);

}  // namespace gte
