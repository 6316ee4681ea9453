// A panel of rows against one query, where memory is the limit: the panel is transposed and used in registers, not
// stored. The sums are the same as those of panel.hpp and dot.hpp; those of floats are also in the same order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "search/kernels/panel.hpp"

namespace gte {

// rows, next_rows: panel_rows pointers, as in PackPanel. query: of floats its values one after the other; of words the
// tile of one query, [words][tile_queries], of which only the first column is read. dots, squares: [panel_rows], added
// to.
using OneQueryFloat = void (*)(const char* const* rows, const char* const* next_rows, const float* query,
                               size_t word_count, float* dots, float* squares);
using OneQueryWords = void (*)(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                               size_t word_count, int32_t* dots);

void one_query_float_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                            size_t word_count, float* dots, float* squares);
// Rows of float16; the query has a value for each half of their words.
void one_query_half_avx512(const char* const* rows, const char* const* next_rows, const float* query, size_t word_count,
                           float* dots, float* squares);
// Rows of int8 are read 128 higher, as dot_int8_avx512vnni does.
void one_query_int8_avx512vnni(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                               size_t word_count, int32_t* dots);
void one_query_binary_avx512vnni(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                                 size_t word_count, int32_t* dots);

}  // namespace gte
