#include "search/kernels/first_look.hpp"

#include <cstring>

#include "machine/cpu.hpp"

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

}  // namespace

GTE_AVX2 uint32_t rows_above_float_avx2(const char* const* rows, const char* const* next_rows, const float* query,
                                        size_t value_count, float bound) {
    return rows_above_8_lanes<false>(rows, next_rows, query, value_count, bound);
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
