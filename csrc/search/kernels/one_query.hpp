// A panel of rows against one query, where memory is the limit: the panel is not stored.
//
// Integers are multiplied row by row: their sums are exact in any order. Floats are transposed in registers, and summed
// in the order of panel.hpp and dot.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "search/kernels/panel.hpp"

namespace gte {

// rows, next_rows: panel_rows pointers, as in PackPanel. query: its values, or its words, one after the other. dots,
// squares: [panel_rows], added to.
using OneQueryFloat = void (*)(const char* const* rows, const char* const* next_rows, const float* query,
                               size_t word_count, float* dots, float* squares);
using OneQueryWords = void (*)(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                               size_t word_count, int32_t* dots);

void one_query_float_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                            size_t word_count, float* dots, float* squares);
// Rows of float16; the query has a value for each half of their words.
void one_query_half_avx512(const char* const* rows, const char* const* next_rows, const float* query, size_t word_count,
                           float* dots, float* squares);
void one_query_int8_avx2(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                         size_t word_count, int32_t* dots);
void one_query_binary_avx2(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                           size_t word_count, int32_t* dots);
// Rows of int8 are read 128 higher, as dot_int8_avx512vnni does.
void one_query_int8_avx512vnni(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                               size_t word_count, int32_t* dots);
void one_query_binary_avx512vnni(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                                 size_t word_count, int32_t* dots);

}  // namespace gte
