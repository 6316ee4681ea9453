#include "search/kernels/panel.hpp"

#include <cstring>

#include "machine/cpu.hpp"
#include "machine/half.hpp"
#include "search/kernels/transpose_avx512.hpp"

#if defined(GTE_X86)
#include <immintrin.h>
#elif defined(GTE_ARM)
#include <arm_neon.h>
#endif

namespace gte {
namespace {

constexpr size_t word_bytes = sizeof(uint32_t);

void pack_words(const char* const* rows, size_t first_word, size_t word_count, uint32_t* panel) {
    for (size_t word = 0; word < word_count; ++word) {
        for (size_t row = 0; row < panel_rows; ++row) {
            std::memcpy(panel + word * panel_rows + row, rows[row] + (first_word + word) * word_bytes, word_bytes);
        }
    }
}

uint32_t mask_above(const float* scores, float threshold) {
    int any = 0;
    for (size_t i = 0; i < panel_rows; ++i) {
        any |= scores[i] > threshold;
    }
    uint32_t mask = 0;
    if (any) {
        for (size_t i = 0; i < panel_rows; ++i) {
            mask |= static_cast<uint32_t>(scores[i] > threshold) << i;
        }
    }
    return mask;
}

}  // namespace

void pack_panel_scalar(const char* const* rows, const char* const* next_rows, size_t first_word, size_t word_count,
                       uint32_t* panel) {
    static_cast<void>(next_rows);
    pack_words(rows, first_word, word_count, panel);
}

void widen_halves_scalar(const uint32_t* panel, size_t word_count, float* values) {
    for (size_t word = 0; word < word_count; ++word, panel += panel_rows, values += 2 * panel_rows) {
        for (size_t row = 0; row < panel_rows; ++row) {
            values[row] = float_from_half(static_cast<uint16_t>(panel[row]));
            values[row + panel_rows] = float_from_half(static_cast<uint16_t>(panel[row] >> 16));
        }
    }
}

uint32_t score_float_scalar(const float* dots, const float* scales, float threshold, float* scores) {
    for (size_t i = 0; i < panel_rows; ++i) {
        scores[i] = dots[i] * scales[i];
    }
    return mask_above(scores, threshold);
}

uint32_t score_int_scalar(const int32_t* dots, const float* scales, float query_scale, float threshold, float* scores) {
    for (size_t i = 0; i < panel_rows; ++i) {
        scores[i] = (static_cast<float>(dots[i]) * scales[i]) * query_scale;
    }
    return mask_above(scores, threshold);
}

#if defined(GTE_X86)

GTE_AVX2 void pack_panel_avx2(const char* const* rows, const char* const* next_rows, size_t first_word,
                              size_t word_count, uint32_t* panel) {
    const size_t whole = word_count / 8 * 8;
    for (size_t word = 0; word < whole; word += 8) {
        for (size_t first = 0; first < panel_rows; first += 8) {
            __m256 r[8], t[8];
            for (int i = 0; i < 8; ++i) {
                const size_t offset = (first_word + word) * word_bytes;
                _mm_prefetch(next_rows[first + i] + offset, _MM_HINT_T0);
                r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(rows[first + i] + offset));
            }
            for (int i = 0; i < 4; ++i) {
                t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for (int i = 0; i < 2; ++i) {
                r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
                r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
                r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
                r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
            }
            float* out = reinterpret_cast<float*>(panel) + word * panel_rows + first;
            for (int i = 0; i < 4; ++i) {
                _mm256_storeu_ps(out + i * panel_rows, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
                _mm256_storeu_ps(out + (i + 4) * panel_rows, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
            }
        }
    }
    pack_words(rows, first_word + whole, word_count - whole, panel + whole * panel_rows);
}

GTE_AVX2 void widen_halves_avx2(const uint32_t* panel, size_t word_count, float* values) {
    // The even bytes of each word, low halves first, for both lanes.
    const __m256i low_then_high = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8,
                                                   9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    for (size_t word = 0; word < word_count; ++word, panel += panel_rows, values += 2 * panel_rows) {
        for (size_t row = 0; row < panel_rows; row += 8) {
            const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + row));
            const __m256i sorted = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(words, low_then_high), 0xd8);
            _mm256_storeu_ps(values + row, _mm256_cvtph_ps(_mm256_castsi256_si128(sorted)));
            _mm256_storeu_ps(values + row + panel_rows, _mm256_cvtph_ps(_mm256_extracti128_si256(sorted, 1)));
        }
    }
}

GTE_AVX512 void widen_halves_avx512(const uint32_t* panel, size_t word_count, float* values) {
    for (size_t word = 0; word < word_count; ++word, panel += panel_rows, values += 2 * panel_rows) {
        for (size_t row = 0; row < panel_rows; row += 16) {
            const __m512i words = _mm512_loadu_si512(panel + row);
            const __m512 low_f32x16 = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
            const __m512 high_f32x16 = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
            _mm512_storeu_ps(values + row, low_f32x16);
            _mm512_storeu_ps(values + row + panel_rows, high_f32x16);
        }
    }
}

GTE_AVX512 void pack_panel_avx512(const char* const* rows, const char* const* next_rows, size_t first_word,
                                  size_t word_count, uint32_t* panel) {
    for (size_t word = 0; word < word_count; word += 16) {
        const size_t left = word_count - word < 16 ? word_count - word : 16;
        for (size_t first = 0; first < panel_rows; first += 16) {
            const size_t offset = (first_word + word) * word_bytes;
            for (size_t i = first; i < first + 16; ++i) {
                _mm_prefetch(next_rows[i] + offset, _MM_HINT_T0);
            }
            __m512i column[16];
            transpose_16_rows(rows + first, offset, left, column);
            uint32_t* out = panel + word * panel_rows + first;
            if (left == 16) {
                for (int i = 0; i < 16; ++i) {
                    _mm512_storeu_si512(out + i * panel_rows, column[i]);
                }
            } else {
                for (size_t i = 0; i < left; ++i) {
                    _mm512_storeu_si512(out + i * panel_rows, column[i]);
                }
            }
        }
    }
}

GTE_AVX2 uint32_t score_float_avx2(const float* dots, const float* scales, float threshold, float* scores) {
    const __m256 threshold_f32x8 = _mm256_set1_ps(threshold);
    uint32_t mask = 0;
    for (size_t i = 0; i < panel_rows; i += 8) {
        const __m256 scores_f32x8 = _mm256_mul_ps(_mm256_loadu_ps(dots + i), _mm256_loadu_ps(scales + i));
        _mm256_storeu_ps(scores + i, scores_f32x8);
        const __m256 above = _mm256_cmp_ps(scores_f32x8, threshold_f32x8, _CMP_GT_OQ);
        mask |= static_cast<uint32_t>(_mm256_movemask_ps(above)) << i;
    }
    return mask;
}

GTE_AVX2 uint32_t score_int_avx2(const int32_t* dots, const float* scales, float query_scale, float threshold,
                                 float* scores) {
    const __m256 threshold_f32x8 = _mm256_set1_ps(threshold), query_scale_f32x8 = _mm256_set1_ps(query_scale);
    uint32_t mask = 0;
    for (size_t i = 0; i < panel_rows; i += 8) {
        const __m256 dots_f32x8 = _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(dots + i)));
        const __m256 scores_f32x8 =
            _mm256_mul_ps(_mm256_mul_ps(dots_f32x8, _mm256_loadu_ps(scales + i)), query_scale_f32x8);
        _mm256_storeu_ps(scores + i, scores_f32x8);
        const __m256 above = _mm256_cmp_ps(scores_f32x8, threshold_f32x8, _CMP_GT_OQ);
        mask |= static_cast<uint32_t>(_mm256_movemask_ps(above)) << i;
    }
    return mask;
}

GTE_AVX512 uint32_t score_float_avx512(const float* dots, const float* scales, float threshold, float* scores) {
    const __m512 threshold_f32x16 = _mm512_set1_ps(threshold);
    uint32_t mask = 0;
    for (size_t i = 0; i < panel_rows; i += 16) {
        const __m512 scores_f32x16 = _mm512_mul_ps(_mm512_loadu_ps(dots + i), _mm512_loadu_ps(scales + i));
        _mm512_storeu_ps(scores + i, scores_f32x16);
        mask |= static_cast<uint32_t>(_mm512_cmp_ps_mask(scores_f32x16, threshold_f32x16, _CMP_GT_OQ)) << i;
    }
    return mask;
}

GTE_AVX512 uint32_t score_int_avx512(const int32_t* dots, const float* scales, float query_scale, float threshold,
                                     float* scores) {
    const __m512 threshold_f32x16 = _mm512_set1_ps(threshold), query_scale_f32x16 = _mm512_set1_ps(query_scale);
    uint32_t mask = 0;
    for (size_t i = 0; i < panel_rows; i += 16) {
        const __m512 dots_f32x16 = _mm512_cvtepi32_ps(_mm512_loadu_si512(dots + i));
        const __m512 scores_f32x16 =
            _mm512_mul_ps(_mm512_mul_ps(dots_f32x16, _mm512_loadu_ps(scales + i)), query_scale_f32x16);
        _mm512_storeu_ps(scores + i, scores_f32x16);
        mask |= static_cast<uint32_t>(_mm512_cmp_ps_mask(scores_f32x16, threshold_f32x16, _CMP_GT_OQ)) << i;
    }
    return mask;
}

#elif defined(GTE_ARM)

void pack_panel_neon(const char* const* rows, const char* const* next_rows, size_t first_word, size_t word_count,
                     uint32_t* panel) {
    const size_t whole = word_count / 4 * 4;
    for (size_t word = 0; word < whole; word += 4) {
        for (size_t first = 0; first < panel_rows; first += 4) {
            uint32x4_t r[4];
            for (int i = 0; i < 4; ++i) {
                const size_t offset = (first_word + word) * word_bytes;
                __builtin_prefetch(next_rows[first + i] + offset);
                // Through bytes, because a row need not be aligned to words.
                r[i] = vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(rows[first + i]) + offset));
            }
            const uint64x2_t low01 = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1]));
            const uint64x2_t high01 = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1]));
            const uint64x2_t low23 = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3]));
            const uint64x2_t high23 = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
            uint32_t* out = panel + word * panel_rows + first;
            vst1q_u32(out, vreinterpretq_u32_u64(vtrn1q_u64(low01, low23)));
            vst1q_u32(out + panel_rows, vreinterpretq_u32_u64(vtrn1q_u64(high01, high23)));
            vst1q_u32(out + 2 * panel_rows, vreinterpretq_u32_u64(vtrn2q_u64(low01, low23)));
            vst1q_u32(out + 3 * panel_rows, vreinterpretq_u32_u64(vtrn2q_u64(high01, high23)));
        }
    }
    pack_words(rows, first_word + whole, word_count - whole, panel + whole * panel_rows);
}

void widen_halves_neon(const uint32_t* panel, size_t word_count, float* values) {
    for (size_t word = 0; word < word_count; ++word, panel += panel_rows, values += 2 * panel_rows) {
        for (size_t row = 0; row < panel_rows; row += 4) {
            const uint32x4_t words = vld1q_u32(panel + row);
            vst1q_f32(values + row, vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(words))));
            vst1q_f32(values + row + panel_rows, vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(words, 16))));
        }
    }
}

#endif

}  // namespace gte
