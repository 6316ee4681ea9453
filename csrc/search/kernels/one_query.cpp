#include "search/kernels/one_query.hpp"

#include <cstdint>
#include <cstring>

#include "machine/cpu.hpp"
#include "search/kernels/dot.hpp"
#include "search/kernels/transpose_avx512.hpp"

#if defined(GTE_X86)
#include <immintrin.h>
#elif defined(GTE_ARM)
#include <arm_neon.h>
#endif

namespace gte {

// Four sums of products and four of squares for each row, so that no multiply-add waits for another. After four rows
// their sums stand side by side in one register of four, and are compared without a root: dot / |row| is at most the
// bound if dot is not positive, or dot^2 is at most bound^2 |row|^2. What is not so is in the mask, NaN included.

namespace {

constexpr size_t rows_at_a_time = 4;
// Rows between the one that is read and the one that is fetched from memory.
constexpr size_t rows_ahead = 4;

inline const char* row_ahead(const char* const* rows, const char* const* next_rows, size_t row) {
    return row + rows_ahead < panel_rows ? rows[row + rows_ahead] : next_rows[row + rows_ahead - panel_rows];
}

}  // namespace

#if defined(GTE_X86)

namespace {

// The sums of four registers of four, side by side.
GTE_AVX2 GTE_INLINE __m128 sum_each_of_4(const __m128* sums) {
    const __m128 low = _mm_hadd_ps(sums[0], sums[1]), high = _mm_hadd_ps(sums[2], sums[3]);
    return _mm_hadd_ps(low, high);
}

GTE_AVX2 GTE_INLINE uint32_t mask_of_4_above(const __m128* row_dots, const __m128* row_squares, float bound) {
    const __m128 dots = sum_each_of_4(row_dots), squares = sum_each_of_4(row_squares);
    const __m128 allowed = _mm_mul_ps(_mm_set1_ps(bound * bound), squares);
    const __m128 below = _mm_or_ps(_mm_cmple_ps(dots, _mm_setzero_ps()), _mm_cmple_ps(_mm_mul_ps(dots, dots), allowed));
    const __m128 regular = _mm_and_ps(_mm_cmpge_ps(squares, _mm_set1_ps(least_regular_square)),
                                      _mm_cmple_ps(squares, _mm_set1_ps(largest_regular_square)));
    return ~static_cast<uint32_t>(_mm_movemask_ps(_mm_and_ps(below, regular))) & 0xf;
}

template <bool halves>
GTE_AVX2 GTE_INLINE __m256 load_8(const char* values) {
    return halves ? _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)))
                  : _mm256_loadu_ps(reinterpret_cast<const float*>(values));
}

template <bool halves>
GTE_AVX2 GTE_INLINE uint32_t rows_above_8_lanes(const char* const* rows, const char* const* next_rows,
                                                const float* query, size_t value_count, float bound) {
    constexpr size_t value_bytes = halves ? 2 : 4;
    uint32_t mask = 0;
    for (size_t first = 0; first < panel_rows; first += rows_at_a_time) {
        __m128 dots[rows_at_a_time], squares[rows_at_a_time];
        for (size_t i = 0; i < rows_at_a_time; ++i) {
            const char *row = rows[first + i], *ahead = row_ahead(rows, next_rows, first + i);
            __m256 dot[4], square[4];
#pragma GCC unroll 4
            for (int part = 0; part < 4; ++part) {
                dot[part] = square[part] = _mm256_setzero_ps();
            }
            size_t position = 0;
            for (; position + 32 <= value_count; position += 32) {
                _mm_prefetch(ahead + position * value_bytes, _MM_HINT_T0);
                _mm_prefetch(ahead + position * value_bytes + 16 * value_bytes, _MM_HINT_T0);
#pragma GCC unroll 4
                for (int part = 0; part < 4; ++part) {
                    const __m256 values = load_8<halves>(row + (position + 8 * part) * value_bytes);
                    dot[part] = _mm256_fmadd_ps(values, _mm256_loadu_ps(query + position + 8 * part), dot[part]);
                    square[part] = _mm256_fmadd_ps(values, values, square[part]);
                }
            }
            for (; position < value_count; position += 8) {
                const size_t left = value_count - position < 8 ? value_count - position : 8;
                alignas(32) char row_tail[32] = {};
                alignas(32) float query_tail[8] = {};
                std::memcpy(row_tail, row + position * value_bytes, left * value_bytes);
                std::memcpy(query_tail, query + position, left * sizeof(float));
                const __m256 values = load_8<halves>(row_tail);
                dot[0] = _mm256_fmadd_ps(values, _mm256_load_ps(query_tail), dot[0]);
                square[0] = _mm256_fmadd_ps(values, values, square[0]);
            }
            const __m256 all_dots = _mm256_add_ps(_mm256_add_ps(dot[0], dot[1]), _mm256_add_ps(dot[2], dot[3]));
            const __m256 all_squares =
                _mm256_add_ps(_mm256_add_ps(square[0], square[1]), _mm256_add_ps(square[2], square[3]));
            dots[i] = _mm_add_ps(_mm256_castps256_ps128(all_dots), _mm256_extractf128_ps(all_dots, 1));
            squares[i] = _mm_add_ps(_mm256_castps256_ps128(all_squares), _mm256_extractf128_ps(all_squares, 1));
        }
        mask |= mask_of_4_above(dots, squares, bound) << first;
    }
    return mask;
}

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

// AVX2 counts no bits; the registers of integers do. Bits is one word, or two at a time.
template <class Bits>
GTE_AVX2 GTE_INLINE void add_differing_bits(const char* const* rows, const uint32_t* query, size_t word,
                                            int64_t* differing) {
    Bits values;
    std::memcpy(&values, query + word, sizeof values);
#pragma GCC unroll 4
    for (size_t i = 0; i < rows_at_a_time; ++i) {
        Bits bits;
        std::memcpy(&bits, rows[i] + word * 4, sizeof bits);
        differing[i] += _mm_popcnt_u64(bits ^ values);
    }
}

template <bool halves>
GTE_AVX512 GTE_INLINE __m512 load_16(const char* values, __mmask16 mask) {
    return halves ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, values)) : _mm512_maskz_loadu_ps(mask, values);
}

// The sum of its four quarters.
GTE_AVX512 GTE_INLINE __m128 fold_512(__m512 sums) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

template <bool halves>
GTE_AVX512 GTE_INLINE uint32_t rows_above_16_lanes(const char* const* rows, const char* const* next_rows,
                                                   const float* query, size_t value_count, float bound) {
    constexpr size_t value_bytes = halves ? 2 : 4;
    constexpr __mmask16 all = 0xffff;
    uint32_t mask = 0;
    for (size_t first = 0; first < panel_rows; first += rows_at_a_time) {
        __m128 dots[rows_at_a_time], squares[rows_at_a_time];
#pragma GCC unroll 4
        for (size_t i = 0; i < rows_at_a_time; ++i) {
            const char *row = rows[first + i], *ahead = row_ahead(rows, next_rows, first + i);
            __m512 dot[4], square[4];
#pragma GCC unroll 4
            for (int part = 0; part < 4; ++part) {
                dot[part] = square[part] = _mm512_setzero_ps();
            }
            size_t position = 0;
            for (; position + 64 <= value_count; position += 64) {
#pragma GCC unroll 4
                for (int part = 0; part < 4; ++part) {
                    const size_t place = position + 16 * part;
                    _mm_prefetch(ahead + place * value_bytes, _MM_HINT_T0);
                    const __m512 values = load_16<halves>(row + place * value_bytes, all);
                    dot[part] = _mm512_fmadd_ps(values, _mm512_loadu_ps(query + place), dot[part]);
                    square[part] = _mm512_fmadd_ps(values, values, square[part]);
                }
            }
            for (; position < value_count; position += 16) {
                const size_t left = value_count - position;
                const __mmask16 there = left < 16 ? static_cast<__mmask16>((1u << left) - 1) : all;
                _mm_prefetch(ahead + position * value_bytes, _MM_HINT_T0);
                const __m512 values = load_16<halves>(row + position * value_bytes, there);
                dot[0] = _mm512_fmadd_ps(values, _mm512_maskz_loadu_ps(there, query + position), dot[0]);
                square[0] = _mm512_fmadd_ps(values, values, square[0]);
            }
            dots[i] = fold_512(_mm512_add_ps(_mm512_add_ps(dot[0], dot[1]), _mm512_add_ps(dot[2], dot[3])));
            squares[i] =
                fold_512(_mm512_add_ps(_mm512_add_ps(square[0], square[1]), _mm512_add_ps(square[2], square[3])));
        }
        mask |= mask_of_4_above(dots, squares, bound) << first;
    }
    return mask;
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

GTE_AVX2 uint32_t rows_above_float_avx2(const char* const* rows, const char* const* next_rows, const float* query,
                                        size_t value_count, float bound) {
    return rows_above_8_lanes<false>(rows, next_rows, query, value_count, bound);
}

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
    for (size_t first = 0; first < panel_rows; first += rows_at_a_time) {
        int64_t differing[rows_at_a_time] = {};
        size_t word = 0;
        for (; word + 2 <= word_count; word += 2) {
            add_differing_bits<uint64_t>(rows + first, query, word, differing);
        }
        if (word < word_count) {
            add_differing_bits<uint32_t>(rows + first, query, word, differing);
        }
#pragma GCC unroll 4
        for (size_t i = 0; i < rows_at_a_time; ++i) {
            for (size_t byte = 0; byte < word_count * 4; byte += 64) {
                _mm_prefetch(next_rows[first + i] + byte, _MM_HINT_T0);
            }
            dots[first + i] -= static_cast<int32_t>(2 * differing[i]);
        }
    }
}

GTE_AVX2 uint32_t rows_above_half_avx2(const char* const* rows, const char* const* next_rows, const float* query,
                                       size_t value_count, float bound) {
    return rows_above_8_lanes<true>(rows, next_rows, query, value_count, bound);
}

GTE_AVX512 uint32_t rows_above_float_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                                            size_t value_count, float bound) {
    return rows_above_16_lanes<false>(rows, next_rows, query, value_count, bound);
}

GTE_AVX512 uint32_t rows_above_half_avx512(const char* const* rows, const char* const* next_rows, const float* query,
                                           size_t value_count, float bound) {
    return rows_above_16_lanes<true>(rows, next_rows, query, value_count, bound);
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

#elif defined(GTE_ARM)

namespace {

// Through bytes, because a row need not be aligned to its values.
template <bool halves>
inline float32x4_t load_4(const char* values) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(values);
    return halves ? vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(bytes))) : vreinterpretq_f32_u8(vld1q_u8(bytes));
}

template <bool halves>
uint32_t rows_above_4_lanes(const char* const* rows, const char* const* next_rows, const float* query,
                            size_t value_count, float bound) {
    constexpr size_t value_bytes = halves ? 2 : 4;
    const uint32_t bits[4] = {1, 2, 4, 8};
    uint32_t mask = 0;
    for (size_t first = 0; first < panel_rows; first += rows_at_a_time) {
        float32x4_t dots[rows_at_a_time], squares[rows_at_a_time];
        for (size_t i = 0; i < rows_at_a_time; ++i) {
            const char *row = rows[first + i], *ahead = row_ahead(rows, next_rows, first + i);
            float32x4_t dot[4], square[4];
            for (int part = 0; part < 4; ++part) {
                dot[part] = square[part] = vdupq_n_f32(0);
            }
            size_t position = 0;
            for (; position + 16 <= value_count; position += 16) {
                __builtin_prefetch(ahead + position * value_bytes);
                for (int part = 0; part < 4; ++part) {
                    const float32x4_t values = load_4<halves>(row + (position + 4 * part) * value_bytes);
                    dot[part] = vfmaq_f32(dot[part], values, vld1q_f32(query + position + 4 * part));
                    square[part] = vfmaq_f32(square[part], values, values);
                }
            }
            for (; position < value_count; position += 4) {
                const size_t left = value_count - position < 4 ? value_count - position : 4;
                char row_tail[16] = {};
                float query_tail[4] = {};
                std::memcpy(row_tail, row + position * value_bytes, left * value_bytes);
                std::memcpy(query_tail, query + position, left * sizeof(float));
                const float32x4_t values = load_4<halves>(row_tail);
                dot[0] = vfmaq_f32(dot[0], values, vld1q_f32(query_tail));
                square[0] = vfmaq_f32(square[0], values, values);
            }
            dots[i] = vaddq_f32(vaddq_f32(dot[0], dot[1]), vaddq_f32(dot[2], dot[3]));
            squares[i] = vaddq_f32(vaddq_f32(square[0], square[1]), vaddq_f32(square[2], square[3]));
        }
        const float32x4_t all_dots = vpaddq_f32(vpaddq_f32(dots[0], dots[1]), vpaddq_f32(dots[2], dots[3]));
        const float32x4_t all_squares =
            vpaddq_f32(vpaddq_f32(squares[0], squares[1]), vpaddq_f32(squares[2], squares[3]));
        const uint32x4_t below =
            vorrq_u32(vcleq_f32(all_dots, vdupq_n_f32(0)),
                      vcleq_f32(vmulq_f32(all_dots, all_dots), vmulq_n_f32(all_squares, bound * bound)));
        const uint32x4_t regular = vandq_u32(vcgeq_f32(all_squares, vdupq_n_f32(least_regular_square)),
                                             vcleq_f32(all_squares, vdupq_n_f32(largest_regular_square)));
        const uint32x4_t ruled_out = vandq_u32(below, regular);
        mask |= vaddvq_u32(vbicq_u32(vld1q_u32(bits), ruled_out)) << first;
    }
    return mask;
}

}  // namespace

uint32_t rows_above_float_neon(const char* const* rows, const char* const* next_rows, const float* query,
                               size_t value_count, float bound) {
    return rows_above_4_lanes<false>(rows, next_rows, query, value_count, bound);
}

uint32_t rows_above_half_neon(const char* const* rows, const char* const* next_rows, const float* query,
                              size_t value_count, float bound) {
    return rows_above_4_lanes<true>(rows, next_rows, query, value_count, bound);
}

#endif

}  // namespace gte
