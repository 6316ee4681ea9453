#include "search/kernels/score_panel.hpp"

#include "machine/cpu.hpp"

#if defined(GTE_X86)
#include <immintrin.h>
#endif

namespace gte {
namespace {

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

#endif

}  // namespace gte
