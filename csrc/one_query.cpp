#include "one_query.hpp"

#include "dot.hpp"
#include "turn_avx512.hpp"

#if defined(GTE_X86)

namespace gte {

// The words beyond a row's end are read as zero: they add nothing to any of these sums.

GTE_AVX512 void one_query_float_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                                       size_t word_count, float* dots, float* squares) {
    __m512 dot_f32x16[2] = {_mm512_loadu_ps(dots), _mm512_loadu_ps(dots + 16)};
    __m512 square_f32x16[2] = {_mm512_loadu_ps(squares), _mm512_loadu_ps(squares + 16)};
    for (size_t word = 0; word < word_count; word += 16, query += 16 * tile_queries) {
        const size_t left = word_count - word < 16 ? word_count - word : 16;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m512i column[16];
            turn_16_rows(rows + 16 * half, next_rows + 16 * half, word * 4, left, column);
            if (left == 16) {
#pragma GCC unroll 16
                for (int i = 0; i < 16; ++i) {
                    const __m512 values = _mm512_castsi512_ps(column[i]);
                    const __m512 factor = _mm512_set1_ps(query[i * tile_queries]);
                    dot_f32x16[half] = _mm512_fmadd_ps(values, factor, dot_f32x16[half]);
                    square_f32x16[half] = _mm512_fmadd_ps(values, values, square_f32x16[half]);
                }
            } else {
                for (size_t i = 0; i < left; ++i) {
                    const __m512 values = _mm512_castsi512_ps(column[i]);
                    const __m512 factor = _mm512_set1_ps(query[i * tile_queries]);
                    dot_f32x16[half] = _mm512_fmadd_ps(values, factor, dot_f32x16[half]);
                    square_f32x16[half] = _mm512_fmadd_ps(values, values, square_f32x16[half]);
                }
            }
        }
    }
    _mm512_storeu_ps(dots, dot_f32x16[0]);
    _mm512_storeu_ps(dots + 16, dot_f32x16[1]);
    _mm512_storeu_ps(squares, square_f32x16[0]);
    _mm512_storeu_ps(squares + 16, square_f32x16[1]);
}

GTE_AVX512 void one_query_half_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                                      size_t word_count, float* dots, float* squares) {
    __m512 dot_f32x16[2] = {_mm512_loadu_ps(dots), _mm512_loadu_ps(dots + 16)};
    __m512 square_f32x16[2] = {_mm512_loadu_ps(squares), _mm512_loadu_ps(squares + 16)};
    for (size_t word = 0; word < word_count; word += 16, query += 32 * tile_queries) {
        const size_t left = word_count - word < 16 ? word_count - word : 16;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m512i column[16];
            turn_16_rows(rows + 16 * half, next_rows + 16 * half, word * 4, left, column);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; ++i) {
                if (i < left) {
                    const __m512 even = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(column[i]));
                    const __m512 odd = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(column[i], 16)));
                    const __m512 even_factor = _mm512_set1_ps(query[2 * i * tile_queries]);
                    const __m512 odd_factor = _mm512_set1_ps(query[(2 * i + 1) * tile_queries]);
                    dot_f32x16[half] = _mm512_fmadd_ps(even, even_factor, dot_f32x16[half]);
                    square_f32x16[half] = _mm512_fmadd_ps(even, even, square_f32x16[half]);
                    dot_f32x16[half] = _mm512_fmadd_ps(odd, odd_factor, dot_f32x16[half]);
                    square_f32x16[half] = _mm512_fmadd_ps(odd, odd, square_f32x16[half]);
                }
            }
        }
    }
    _mm512_storeu_ps(dots, dot_f32x16[0]);
    _mm512_storeu_ps(dots + 16, dot_f32x16[1]);
    _mm512_storeu_ps(squares, square_f32x16[0]);
    _mm512_storeu_ps(squares + 16, square_f32x16[1]);
}

GTE_AVX512VNNI void one_query_int8_avx512vnni(const char* const* rows, const char* const* next_rows,
                                              const uint32_t* query, size_t word_count, int32_t* dots) {
    const __m512i flip_sign_bits = _mm512_set1_epi32(static_cast<int>(0x80808080u));
    __m512i sum_i32x16[2] = {_mm512_loadu_si512(dots), _mm512_loadu_si512(dots + 16)};
    for (size_t word = 0; word < word_count; word += 16, query += 16 * tile_queries) {
        const size_t left = word_count - word < 16 ? word_count - word : 16;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m512i column[16];
            turn_16_rows(rows + 16 * half, next_rows + 16 * half, word * 4, left, column);
            if (left == 16) {
#pragma GCC unroll 16
                for (int i = 0; i < 16; ++i) {
                    const __m512i values = _mm512_set1_epi32(static_cast<int>(query[i * tile_queries]));
                    const __m512i raised_u8x64 = _mm512_xor_si512(column[i], flip_sign_bits);
                    sum_i32x16[half] = _mm512_dpbusd_epi32(sum_i32x16[half], raised_u8x64, values);
                }
            } else {
                for (size_t i = 0; i < left; ++i) {
                    const __m512i values = _mm512_set1_epi32(static_cast<int>(query[i * tile_queries]));
                    const __m512i raised_u8x64 = _mm512_xor_si512(column[i], flip_sign_bits);
                    sum_i32x16[half] = _mm512_dpbusd_epi32(sum_i32x16[half], raised_u8x64, values);
                }
            }
        }
    }
    _mm512_storeu_si512(dots, sum_i32x16[0]);
    _mm512_storeu_si512(dots + 16, sum_i32x16[1]);
}

GTE_AVX512VNNI void one_query_binary_avx512vnni(const char* const* rows, const char* const* next_rows,
                                                const uint32_t* query, size_t word_count, int32_t* dots) {
    __m512i count_i32x16[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t word = 0; word < word_count; word += 16, query += 16 * tile_queries) {
        const size_t left = word_count - word < 16 ? word_count - word : 16;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m512i column[16];
            turn_16_rows(rows + 16 * half, next_rows + 16 * half, word * 4, left, column);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; ++i) {
                if (i < left) {
                    const __m512i values = _mm512_set1_epi32(static_cast<int>(query[i * tile_queries]));
                    const __m512i differing = _mm512_popcnt_epi32(_mm512_xor_si512(column[i], values));
                    count_i32x16[half] = _mm512_add_epi32(count_i32x16[half], differing);
                }
            }
        }
    }
    for (int half = 0; half < 2; ++half) {
        const __m512i twice = _mm512_slli_epi32(count_i32x16[half], 1);
        _mm512_storeu_si512(dots + 16 * half, _mm512_sub_epi32(_mm512_loadu_si512(dots + 16 * half), twice));
    }
}

}  // namespace gte

#endif
