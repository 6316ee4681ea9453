#include "search/kernels/one_query.hpp"

#include "machine/cpu.hpp"

#if defined(GTE_X86)

#include <immintrin.h>

#include <cstring>

#include "search/kernels/transpose_avx512.hpp"

namespace gte {
namespace {

// Lane i of the result is the sum of all lanes of sums[i].
GTE_AVX2 GTE_INLINE __m256i sum_each_of_8(const __m256i* sums) {
    __m256i fours[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        fours[i] = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[4 * i], sums[4 * i + 1]),
                                     _mm256_hadd_epi32(sums[4 * i + 2], sums[4 * i + 3]));
    }
    // fours[i] has, in each of its lanes of 128 bits, a half of the sums of rows 4i .. 4i+3.
    return _mm256_add_epi32(_mm256_permute2x128_si256(fours[0], fours[1], 0x20),
                            _mm256_permute2x128_si256(fours[0], fours[1], 0x31));
}

GTE_AVX2 GTE_INLINE __m256i load_words(const void* words) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(words));
}

// The first `count` of 8 words, then zeros.
GTE_AVX2 GTE_INLINE __m256i load_words(const void* words, size_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
    return _mm256_maskload_epi32(static_cast<const int*>(words), there);
}

// |row| x (query with the row's sign), as in dot_int8_avx2. A row's code may be -128, whose size fits.
GTE_AVX2 GTE_INLINE __m256i add_products(__m256i sums, __m256i query, __m256i row) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(row), _mm256_sign_epi8(query, row));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

constexpr size_t rows_counted = 4;

// Adds to rows_counted sums. AVX2 counts no bits; the registers of integers do. Bits is one word, or two at a time.
template <class Bits>
GTE_AVX2 GTE_INLINE void add_differing_bits(const char* const* rows, const uint32_t* query, size_t word,
                                            int64_t* differing) {
    Bits values;
    std::memcpy(&values, query + word, sizeof values);
#pragma GCC unroll 4
    for (size_t i = 0; i < rows_counted; ++i) {
        Bits bits;
        std::memcpy(&bits, rows[i] + word * 4, sizeof bits);
        differing[i] += _mm_popcnt_u64(bits ^ values);
    }
}

// A word of a row is one float, or two halves. Words beyond a row's end are read as zero, which adds nothing to the
// sums.
template <bool halves>
GTE_AVX512 GTE_INLINE void one_query_floats(const char* const* rows, const char* const* next_rows, const float* query,
                                            size_t word_count, float* dots, float* squares) {
    constexpr size_t values_in_word = halves ? 2 : 1;
    __m512 dot_f32x16[2] = {_mm512_loadu_ps(dots), _mm512_loadu_ps(dots + 16)};
    __m512 square_f32x16[2] = {_mm512_loadu_ps(squares), _mm512_loadu_ps(squares + 16)};
    for (size_t word = 0; word < word_count; word += 16, query += 16 * values_in_word) {
        const size_t left = word_count - word < 16 ? word_count - word : 16;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m512i column[16];
            for (int i = 16 * half; i < 16 * half + 16; ++i) {
                _mm_prefetch(next_rows[i] + word * 4, _MM_HINT_T0);
            }
            transpose_16_rows(rows + 16 * half, word * 4, left, column);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; ++i) {
#pragma GCC unroll 2
                for (size_t part = 0; part < values_in_word && i < left; ++part) {
                    const __m512i high_or_low = _mm512_srli_epi32(column[i], 16 * part);
                    const __m512 values =
                        halves ? _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high_or_low)) : _mm512_castsi512_ps(column[i]);
                    const __m512 factor = _mm512_set1_ps(query[i * values_in_word + part]);
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

// Lane i of the result is the sum of all lanes of sums[i]: 30 shuffles, where transposing every block of words
// takes 64.
GTE_AVX512VNNI GTE_INLINE __m512i sum_each_of_16(const __m512i* sums) {
    __m512i pairs[8], fours[4], halves[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        pairs[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2 * i], sums[2 * i + 1]),
                                    _mm512_unpackhi_epi32(sums[2 * i], sums[2 * i + 1]));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        fours[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]),
                                    _mm512_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
    }
    // fours[i] has, in each of its lanes of 128 bits, a quarter of the sums of rows 4i .. 4i+3.
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        halves[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                                     _mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
    }
    return _mm512_add_epi32(_mm512_shuffle_i32x4(halves[0], halves[1], 0x88),
                            _mm512_shuffle_i32x4(halves[0], halves[1], 0xdd));
}

// A word of a row is four int8, multiplied with those of the query, or 32 bits, of which those count that differ.
template <bool bytes>
GTE_AVX512VNNI GTE_INLINE void one_query_words(const char* const* rows, const char* const* next_rows,
                                               const uint32_t* query, size_t word_count, int32_t* dots) {
    const __m512i flip_sign_bits = _mm512_set1_epi32(static_cast<int>(0x80808080u));
    for (size_t half = 0; half < panel_rows; half += 16) {
        __m512i sums_i32x16[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            sums_i32x16[i] = _mm512_setzero_si512();
        }
        for (size_t word = 0; word < word_count; word += 16) {
            const size_t left = word_count - word < 16 ? word_count - word : 16;
            const __mmask16 mask = static_cast<__mmask16>((1u << left) - 1);
            const __m512i values = _mm512_maskz_loadu_epi32(mask, query + word);
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                _mm_prefetch(next_rows[half + i] + word * 4, _MM_HINT_T0);
                const __m512i row = _mm512_maskz_loadu_epi32(mask, rows[half + i] + word * 4);
                if (bytes) {
                    sums_i32x16[i] = _mm512_dpbusd_epi32(sums_i32x16[i], _mm512_xor_si512(row, flip_sign_bits), values);
                } else {
                    const __m512i differing = _mm512_popcnt_epi32(_mm512_xor_si512(row, values));
                    sums_i32x16[i] = _mm512_add_epi32(sums_i32x16[i], differing);
                }
            }
        }
        const __m512i started = _mm512_loadu_si512(dots + half), sums = sum_each_of_16(sums_i32x16);
        _mm512_storeu_si512(dots + half, bytes ? _mm512_add_epi32(started, sums)
                                               : _mm512_sub_epi32(started, _mm512_slli_epi32(sums, 1)));
    }
}

}  // namespace

GTE_AVX2 void one_query_int8_avx2(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                                  size_t word_count, int32_t* dots) {
    for (size_t first = 0; first < panel_rows; first += 8) {
        __m256i sums_i32x8[8];
        for (size_t i = 0; i < 8; ++i) {
            const char *row = rows[first + i], *ahead = row_ahead(rows, next_rows, first + i);
            __m256i even = _mm256_setzero_si256(), odd = even;
            size_t word = 0;
            for (; word + 16 <= word_count; word += 16) {
                _mm_prefetch(ahead + word * 4, _MM_HINT_T0);
                even = add_products(even, load_words(query + word), load_words(row + word * 4));
                odd = add_products(odd, load_words(query + word + 8), load_words(row + word * 4 + 32));
            }
            for (; word < word_count; word += 8) {
                _mm_prefetch(ahead + word * 4, _MM_HINT_T0);
                const size_t left = word_count - word;
                even = add_products(even, load_words(query + word, left), load_words(row + word * 4, left));
            }
            sums_i32x8[i] = _mm256_add_epi32(even, odd);
        }
        __m256i* sums = reinterpret_cast<__m256i*>(dots + first);
        _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), sum_each_of_8(sums_i32x8)));
    }
}

GTE_AVX2 void one_query_binary_avx2(const char* const* rows, const char* const* next_rows, const uint32_t* query,
                                    size_t word_count, int32_t* dots) {
    for (size_t first = 0; first < panel_rows; first += rows_counted) {
        int64_t differing[rows_counted] = {};
        size_t word = 0;
        for (; word + 2 <= word_count; word += 2) {
            add_differing_bits<uint64_t>(rows + first, query, word, differing);
        }
        if (word < word_count) {
            add_differing_bits<uint32_t>(rows + first, query, word, differing);
        }
#pragma GCC unroll 4
        for (size_t i = 0; i < rows_counted; ++i) {
            for (size_t byte = 0; byte < word_count * 4; byte += 64) {
                _mm_prefetch(next_rows[first + i] + byte, _MM_HINT_T0);
            }
            dots[first + i] -= static_cast<int32_t>(2 * differing[i]);
        }
    }
}

GTE_AVX512 void one_query_float_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                                       size_t word_count, float* dots, float* squares) {
    one_query_floats<false>(rows, next_rows, query, word_count, dots, squares);
}

GTE_AVX512 void one_query_half_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                                      size_t word_count, float* dots, float* squares) {
    one_query_floats<true>(rows, next_rows, query, word_count, dots, squares);
}

GTE_AVX512VNNI void one_query_int8_avx512vnni(const char* const* rows, const char* const* next_rows,
                                              const uint32_t* query, size_t word_count, int32_t* dots) {
    one_query_words<true>(rows, next_rows, query, word_count, dots);
}

GTE_AVX512VNNI void one_query_binary_avx512vnni(const char* const* rows, const char* const* next_rows,
                                                const uint32_t* query, size_t word_count, int32_t* dots) {
    one_query_words<false>(rows, next_rows, query, word_count, dots);
}

}  // namespace gte

#endif
