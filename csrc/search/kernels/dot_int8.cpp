#include "machine/cpu.hpp"
#include "search/kernels/dot.hpp"

#if defined(GTE_X86)
#include <immintrin.h>
#elif defined(GTE_ARM)
#include <arm_neon.h>
#endif

namespace gte {

void dot_int8_scalar(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                     int32_t* dots) {
    for (size_t query = 0; query < query_count; ++query, dots += panel_rows) {
        for (size_t word = 0; word < word_count; ++word) {
            const int8_t* rows = reinterpret_cast<const int8_t*>(panel + word * panel_rows);
            const int8_t* values = reinterpret_cast<const int8_t*>(queries + word * tile_queries + query);
            for (size_t row = 0; row < panel_rows; ++row, rows += 4) {
                dots[row] += rows[0] * values[0] + rows[1] * values[1] + rows[2] * values[2] + rows[3] * values[3];
            }
        }
    }
}

#if defined(GTE_X86)

namespace {

// |row| x (query with the row's sign): with codes in -127 .. 127 two products are at most 32258 and fit into 16 bits,
// where the plain unsigned x signed product would saturate.
template <int query_count>
GTE_AVX2 void tile_avx2(const uint32_t* panel, const uint32_t* queries, size_t word_count, int32_t* dots) {
    const __m256i ones_i16x16 = _mm256_set1_epi16(1);
    for (size_t half = 0; half < panel_rows; half += 16) {
        __m256i sum_i32x8[query_count][2];
#pragma GCC unroll 4
        for (int q = 0; q < query_count; ++q) {
            const __m256i* sums = reinterpret_cast<const __m256i*>(dots + q * panel_rows + half);
            sum_i32x8[q][0] = _mm256_loadu_si256(sums);
            sum_i32x8[q][1] = _mm256_loadu_si256(sums + 1);
        }
        const uint32_t* query = queries;
        for (size_t word = 0; word < word_count; ++word, query += tile_queries) {
            const __m256i* rows = reinterpret_cast<const __m256i*>(panel + word * panel_rows + half);
            const __m256i low_i8x32 = _mm256_loadu_si256(rows), high_i8x32 = _mm256_loadu_si256(rows + 1);
            const __m256i low_sizes = _mm256_abs_epi8(low_i8x32), high_sizes = _mm256_abs_epi8(high_i8x32);
#pragma GCC unroll 4
            for (int q = 0; q < query_count; ++q) {
                const __m256i values = _mm256_set1_epi32(static_cast<int>(query[q]));
                const __m256i low_pairs = _mm256_maddubs_epi16(low_sizes, _mm256_sign_epi8(values, low_i8x32));
                const __m256i high_pairs = _mm256_maddubs_epi16(high_sizes, _mm256_sign_epi8(values, high_i8x32));
                sum_i32x8[q][0] = _mm256_add_epi32(sum_i32x8[q][0], _mm256_madd_epi16(low_pairs, ones_i16x16));
                sum_i32x8[q][1] = _mm256_add_epi32(sum_i32x8[q][1], _mm256_madd_epi16(high_pairs, ones_i16x16));
            }
        }
#pragma GCC unroll 4
        for (int q = 0; q < query_count; ++q) {
            __m256i* sums = reinterpret_cast<__m256i*>(dots + q * panel_rows + half);
            _mm256_storeu_si256(sums, sum_i32x8[q][0]);
            _mm256_storeu_si256(sums + 1, sum_i32x8[q][1]);
        }
    }
}

// VNNI multiplies unsigned by signed: the row's values are read 128 higher, which the caller's sums begin below.
template <int query_count>
GTE_AVX512VNNI void tile_avx512vnni(const uint32_t* panel, const uint32_t* queries, size_t word_count, int32_t* dots) {
    const __m512i flip_sign_bits = _mm512_set1_epi32(static_cast<int>(0x80808080u));
    __m512i sum_i32x16[query_count][2];
#pragma GCC unroll 12
    for (int q = 0; q < query_count; ++q) {
        sum_i32x16[q][0] = _mm512_loadu_si512(dots + q * panel_rows);
        sum_i32x16[q][1] = _mm512_loadu_si512(dots + q * panel_rows + 16);
    }
    for (size_t word = 0; word < word_count; ++word, panel += panel_rows, queries += tile_queries) {
        const __m512i low_u8x64 = _mm512_xor_si512(_mm512_loadu_si512(panel), flip_sign_bits);
        const __m512i high_u8x64 = _mm512_xor_si512(_mm512_loadu_si512(panel + 16), flip_sign_bits);
#pragma GCC unroll 12
        for (int q = 0; q < query_count; ++q) {
            const __m512i values = _mm512_set1_epi32(static_cast<int>(queries[q]));
            sum_i32x16[q][0] = _mm512_dpbusd_epi32(sum_i32x16[q][0], low_u8x64, values);
            sum_i32x16[q][1] = _mm512_dpbusd_epi32(sum_i32x16[q][1], high_u8x64, values);
        }
    }
#pragma GCC unroll 12
    for (int q = 0; q < query_count; ++q) {
        _mm512_storeu_si512(dots + q * panel_rows, sum_i32x16[q][0]);
        _mm512_storeu_si512(dots + q * panel_rows + 16, sum_i32x16[q][1]);
    }
}

}  // namespace

void dot_int8_avx2(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                   int32_t* dots) {
    const Tile<uint32_t, int32_t> tiles[] = {{4, tile_avx2<4>}, {1, tile_avx2<1>}};
    multiply_in_tiles(tiles, panel, queries, word_count, query_count, dots);
}

void dot_int8_avx512vnni(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                         int32_t* dots) {
    const Tile<uint32_t, int32_t> tiles[] = {
        {12, tile_avx512vnni<12>}, {4, tile_avx512vnni<4>}, {1, tile_avx512vnni<1>}};
    multiply_in_tiles(tiles, panel, queries, word_count, query_count, dots);
}

#elif defined(GTE_ARM)

void dot_int8_neon(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                   int32_t* dots) {
    for (size_t query = 0; query < query_count; ++query, dots += panel_rows) {
        int32x4_t sum_i32x4[8];
        for (int part = 0; part < 8; ++part) {
            sum_i32x4[part] = vld1q_s32(dots + 4 * part);
        }
        for (size_t word = 0; word < word_count; ++word) {
            const int8x16_t values = vreinterpretq_s8_u32(vld1q_dup_u32(queries + word * tile_queries + query));
            for (int part = 0; part < 8; ++part) {
                const int8x16_t rows = vreinterpretq_s8_u32(vld1q_u32(panel + word * panel_rows + 4 * part));
                const int16x8_t low_products = vmull_s8(vget_low_s8(rows), vget_low_s8(values));
                const int16x8_t high_products = vmull_high_s8(rows, values);
                const int32x4_t sums = vpaddq_s32(vpaddlq_s16(low_products), vpaddlq_s16(high_products));
                sum_i32x4[part] = vaddq_s32(sum_i32x4[part], sums);
            }
        }
        for (int part = 0; part < 8; ++part) {
            vst1q_s32(dots + 4 * part, sum_i32x4[part]);
        }
    }
}

GTE_NEON_DOT void dot_int8_neondot(const uint32_t* panel, const uint32_t* queries, size_t word_count,
                                   size_t query_count, int32_t* dots) {
    for (size_t query = 0; query < query_count; ++query, dots += panel_rows) {
        int32x4_t sum_i32x4[8];
        for (int part = 0; part < 8; ++part) {
            sum_i32x4[part] = vld1q_s32(dots + 4 * part);
        }
        for (size_t word = 0; word < word_count; ++word) {
            const int8x16_t values = vreinterpretq_s8_u32(vld1q_dup_u32(queries + word * tile_queries + query));
            for (int part = 0; part < 8; ++part) {
                const int8x16_t rows = vreinterpretq_s8_u32(vld1q_u32(panel + word * panel_rows + 4 * part));
                sum_i32x4[part] = vdotq_s32(sum_i32x4[part], rows, values);
            }
        }
        for (int part = 0; part < 8; ++part) {
            vst1q_s32(dots + 4 * part, sum_i32x4[part]);
        }
    }
}

#endif

}  // namespace gte
