// A panel: 32 rows, transposed, so that one SIMD register holds the same position of many rows.
//
// A row is a run of 32-bit words (one float, two halves, four int8 or 32 bits), a panel is [word][row]. Every score is
// then summed along the row in one fixed order, word by word, whatever the width of the registers, the place of the row
// or the number of queries: equal rows tie exactly, and all instruction sets with a fused multiply-add agree to the
// bit. The transposition costs four shuffles for a register of 16 words, less than the memory that it reads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gte {

constexpr size_t panel_rows = 32;

// The row to fetch from memory while `row` of a panel is read, one after another: a few rows ahead, if need be of the
// next panel.
inline const char* row_ahead(const char* const* rows, const char* const* next_rows, size_t row) {
    constexpr size_t ahead = 4;
    return row + ahead < panel_rows ? rows[row + ahead] : next_rows[row + ahead - panel_rows];
}

// Packs words first_word .. first_word + word_count of each row. rows: panel_rows pointers to whole rows, any
// alignment. next_rows: the rows that will be packed next; their words are prefetched meanwhile. panel:
// [word_count][rows].
using PackPanel = void (*)(const char* const* rows, const char* const* next_rows, size_t first_word, size_t word_count,
                           uint32_t* panel);

// Words of two halves to floats: in [word_count][panel_rows], out [2 * word_count][panel_rows], exact.
using WidenHalves = void (*)(const uint32_t* panel, size_t word_count, float* values);

#define GTE_DECLARE_PANEL(instruction_set)                                                                      \
    void pack_panel_##instruction_set(const char* const* rows, const char* const* next_rows, size_t first_word, \
                                      size_t word_count, uint32_t* panel);                                      \
    void widen_halves_##instruction_set(const uint32_t* panel, size_t word_count, float* values);

GTE_DECLARE_PANEL(scalar)
GTE_DECLARE_PANEL(avx2)
GTE_DECLARE_PANEL(avx512)
GTE_DECLARE_PANEL(neon)
#undef GTE_DECLARE_PANEL

// From the dot products of one query with a panel to scores. dots, scales, scores: [panel_rows]; scores may be dots.
// Each product is rounded in this order in every instruction set. Returns a bit for each row whose score is above the
// threshold. score = dot * scale
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
