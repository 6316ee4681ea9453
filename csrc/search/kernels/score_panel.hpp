// From the dot products of one query with a panel to scores, and which of them are worth a closer look.
#pragma once

#include <cstddef>
#include <cstdint>

#include "search/kernels/panel.hpp"

namespace gte {

// dots, scales, scores: [panel_rows]; scores may be dots. Each product is rounded in this order in every instruction
// set. Returns a bit for each row whose score is above the threshold. score = dot * scale
using ScoreFloat = uint32_t (*)(const float* dots, const float* scales, float threshold, float* scores);
// score = (dot * scale) * query_scale
using ScoreInt = uint32_t (*)(const int32_t* dots, const float* scales, float query_scale, float threshold,
                              float* scores);

uint32_t score_float_scalar(const float* dots, const float* scales, float threshold, float* scores);
uint32_t score_float_avx2(const float* dots, const float* scales, float threshold, float* scores);
uint32_t score_float_avx512(const float* dots, const float* scales, float threshold, float* scores);

uint32_t score_int_scalar(const int32_t* dots, const float* scales, float query_scale, float threshold, float* scores);
uint32_t score_int_avx2(const int32_t* dots, const float* scales, float query_scale, float threshold, float* scores);
uint32_t score_int_avx512(const int32_t* dots, const float* scales, float query_scale, float threshold, float* scores);

}  // namespace gte
