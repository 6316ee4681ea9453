// 16 words of 16 rows, transposed in the registers of AVX-512: 64 shuffles, no store.
#pragma once

#include "machine/cpu.hpp"

#if defined(GTE_X86)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace gte {

// Words `offset` bytes into each row, of which the first word_count (1 to 16) are there; the others are read as zero.
// column[i]: word i of the 16 rows.
GTE_AVX512 GTE_INLINE void transpose_16_rows(const char* const* rows, size_t offset, size_t word_count,
                                             __m512i* column) {
    const __mmask16 mask = static_cast<__mmask16>((1u << word_count) - 1);
    __m512i r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
        r[i] = _mm512_maskz_loadu_epi32(mask, rows[i] + offset);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    // r[4i + j] then has word j, j + 4, j + 8 and j + 12 of rows 4i .. 4i+3 in its four lanes.
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512i even_low = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
        const __m512i odd_low = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        const __m512i even_high = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
        column[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        column[j + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        column[j + 8] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
        column[j + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
}

}  // namespace gte
#endif
