// How a row is stored: float32, float16, int8 or one bit for each value, and the making of the smaller ones.
//
// A stored row is a direction; its score is the cosine of what is stored. float16 holds the unit vector. int8 holds the
// row stretched so that its largest value is 127: a range of its own, so that its codes depend on no other row. Binary
// holds the signs. Every row is padded with zeros to whole words of 32 bits. The making is plain scalar arithmetic:
// the same codes on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gte {

enum class RowType { float32, float16, int8, binary };

// 32-bit words of one stored row.
size_t row_words(RowType type, size_t dim);

double norm_in_double(const float* values, size_t dim);

// codes: dim bytes in -127 .. 127. Returns 1 / |codes|, 0 for a row of zeros, NaN for a row with a NaN or an infinity.
float encode_int8(const float* values, size_t dim, int8_t* codes);

// bits: row_words(binary, dim) words, bit i of word i / 32 set where value i is negative. Returns 1 / sqrt(dim), the
// reciprocal length of a vector of signs, or 0 for a row of zeros.
float encode_binary(const float* values, size_t dim, uint32_t* bits);

// row_count rows of float32, contiguous, to stored rows and the factors by which their dot products are multiplied.
// float32 is copied and float16 too has no use for factors: its length is found in the pass.
void encode_rows(RowType type, const float* values, size_t row_count, size_t dim, char* rows, float* scales);

}  // namespace gte
