#include <algorithm>

#include "machine/cpu.hpp"
#include "search/kernels/dot.hpp"

#if defined(GTE_X86)
#include <immintrin.h>
#elif defined(GTE_ARM)
#include <arm_neon.h>
#endif

namespace gte {

void dot_binary_scalar(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                       int32_t* dots) {
    for (size_t query = 0; query < query_count; ++query, dots += panel_rows) {
        for (size_t word = 0; word < word_count; ++word) {
            const uint32_t value = queries[word * tile_queries + query];
            for (size_t row = 0; row < panel_rows; ++row) {
                // Sums of neighbouring fields of 1, 2, 4, 8 and 16 bits.
                uint32_t bits = panel[word * panel_rows + row] ^ value;
                bits -= (bits >> 1) & 0x55555555u;
                bits = (bits & 0x33333333u) + ((bits >> 2) & 0x33333333u);
                bits = (bits + (bits >> 4)) & 0x0f0f0f0fu;
                bits += bits >> 8;
                bits += bits >> 16;
                dots[row] -= 2 * static_cast<int32_t>(bits & 0x3fu);
            }
        }
    }
}

#if defined(GTE_X86) || defined(GTE_ARM)
namespace {
// Counts of up to 8 are gathered in bytes; after so many words they might overflow.
constexpr size_t words_before_bytes_overflow = 31;
}  // namespace
#endif

#if defined(GTE_X86)

GTE_AVX2 void dot_binary_avx2(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                              int32_t* dots) {
    const __m256i nibble_counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2,
                                                   3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low_nibbles = _mm256_set1_epi8(0x0f), ones_i8x32 = _mm256_set1_epi8(1);
    const __m256i twos_i16x16 = _mm256_set1_epi16(2);
    for (size_t query = 0; query < query_count; ++query, dots += panel_rows) {
        for (size_t first = 0; first < word_count; first += words_before_bytes_overflow) {
            const size_t last = std::min(first + words_before_bytes_overflow, word_count);
            __m256i count_u8x32[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                                      _mm256_setzero_si256()};
            for (size_t word = first; word < last; ++word) {
                const __m256i value = _mm256_set1_epi32(static_cast<int>(queries[word * tile_queries + query]));
                const __m256i* rows = reinterpret_cast<const __m256i*>(panel + word * panel_rows);
#pragma GCC unroll 4
                for (int part = 0; part < 4; ++part) {
                    const __m256i bits = _mm256_xor_si256(_mm256_loadu_si256(rows + part), value);
                    const __m256i low = _mm256_and_si256(bits, low_nibbles);
                    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), low_nibbles);
                    const __m256i counts = _mm256_add_epi8(_mm256_shuffle_epi8(nibble_counts, low),
                                                           _mm256_shuffle_epi8(nibble_counts, high));
                    count_u8x32[part] = _mm256_add_epi8(count_u8x32[part], counts);
                }
            }
            for (int part = 0; part < 4; ++part) {
                __m256i* sums = reinterpret_cast<__m256i*>(dots) + part;
                const __m256i counts_i16x16 = _mm256_maddubs_epi16(count_u8x32[part], ones_i8x32);
                const __m256i twice_i32x8 = _mm256_madd_epi16(counts_i16x16, twos_i16x16);
                _mm256_storeu_si256(sums, _mm256_sub_epi32(_mm256_loadu_si256(sums), twice_i32x8));
            }
        }
    }
}

namespace {

template <int query_count>
GTE_AVX512VNNI void tile_avx512vnni(const uint32_t* panel, const uint32_t* queries, size_t word_count, int32_t* dots) {
    __m512i count_i32x16[query_count][2];
#pragma GCC unroll 12
    for (int q = 0; q < query_count; ++q) {
        count_i32x16[q][0] = _mm512_setzero_si512();
        count_i32x16[q][1] = _mm512_setzero_si512();
    }
    for (size_t word = 0; word < word_count; ++word, panel += panel_rows, queries += tile_queries) {
        const __m512i low = _mm512_loadu_si512(panel), high = _mm512_loadu_si512(panel + 16);
#pragma GCC unroll 12
        for (int q = 0; q < query_count; ++q) {
            const __m512i value = _mm512_set1_epi32(static_cast<int>(queries[q]));
            const __m512i low_count = _mm512_popcnt_epi32(_mm512_xor_si512(low, value));
            const __m512i high_count = _mm512_popcnt_epi32(_mm512_xor_si512(high, value));
            count_i32x16[q][0] = _mm512_add_epi32(count_i32x16[q][0], low_count);
            count_i32x16[q][1] = _mm512_add_epi32(count_i32x16[q][1], high_count);
        }
    }
#pragma GCC unroll 12
    for (int q = 0; q < query_count; ++q) {
        for (int half = 0; half < 2; ++half) {
            int32_t* sums = dots + q * panel_rows + 16 * half;
            const __m512i twice = _mm512_slli_epi32(count_i32x16[q][half], 1);
            _mm512_storeu_si512(sums, _mm512_sub_epi32(_mm512_loadu_si512(sums), twice));
        }
    }
}

}  // namespace

void dot_binary_avx512vnni(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                           int32_t* dots) {
    const Tile<uint32_t, int32_t> tiles[] = {
        {12, tile_avx512vnni<12>}, {4, tile_avx512vnni<4>}, {1, tile_avx512vnni<1>}};
    multiply_in_tiles(tiles, panel, queries, word_count, query_count, dots);
}

#elif defined(GTE_ARM)

void dot_binary_neon(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                     int32_t* dots) {
    for (size_t query = 0; query < query_count; ++query, dots += panel_rows) {
        for (size_t first = 0; first < word_count; first += words_before_bytes_overflow) {
            const size_t last = std::min(first + words_before_bytes_overflow, word_count);
            uint8x16_t count_u8x16[8];
            for (int part = 0; part < 8; ++part) {
                count_u8x16[part] = vdupq_n_u8(0);
            }
            for (size_t word = first; word < last; ++word) {
                const uint32x4_t value = vld1q_dup_u32(queries + word * tile_queries + query);
                for (int part = 0; part < 8; ++part) {
                    const uint32x4_t bits = veorq_u32(vld1q_u32(panel + word * panel_rows + 4 * part), value);
                    count_u8x16[part] = vaddq_u8(count_u8x16[part], vcntq_u8(vreinterpretq_u8_u32(bits)));
                }
            }
            for (int part = 0; part < 8; ++part) {
                const uint32x4_t counts = vpaddlq_u16(vpaddlq_u8(count_u8x16[part]));
                const int32x4_t twice = vreinterpretq_s32_u32(vshlq_n_u32(counts, 1));
                vst1q_s32(dots + 4 * part, vsubq_s32(vld1q_s32(dots + 4 * part), twice));
            }
        }
    }
}

#endif

}  // namespace gte
