#include "machine/cpu.hpp"
#include "search/kernels/dot.hpp"

#if defined(GTE_X86)
#include <immintrin.h>
#elif defined(GTE_ARM)
#include <arm_neon.h>
#endif

namespace gte {

// Two roundings for each step where the others have one: plain C++ has no fused multiply-add that is fast without the
// instruction. The compiler vectorizes the loops over rows with what the baseline has.
void sum_of_squares_scalar(const float* panel, size_t dim, float* sums) {
    for (size_t i = 0; i < dim; ++i, panel += panel_rows) {
        for (size_t row = 0; row < panel_rows; ++row) {
            sums[row] += panel[row] * panel[row];
        }
    }
}

void dot_float_scalar(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots) {
    for (size_t query = 0; query < query_count; ++query, dots += panel_rows) {
        for (size_t i = 0; i < dim; ++i) {
            const float value = queries[i * tile_queries + query];
            for (size_t row = 0; row < panel_rows; ++row) {
                dots[row] += panel[i * panel_rows + row] * value;
            }
        }
    }
}

#if defined(GTE_X86)

GTE_AVX2 void sum_of_squares_avx2(const float* panel, size_t dim, float* sums) {
    __m256 sum_f32x8[4];
    for (int part = 0; part < 4; ++part) {
        sum_f32x8[part] = _mm256_loadu_ps(sums + 8 * part);
    }
    for (size_t i = 0; i < dim; ++i, panel += panel_rows) {
        for (int part = 0; part < 4; ++part) {
            const __m256 rows_f32x8 = _mm256_loadu_ps(panel + 8 * part);
            sum_f32x8[part] = _mm256_fmadd_ps(rows_f32x8, rows_f32x8, sum_f32x8[part]);
        }
    }
    for (int part = 0; part < 4; ++part) {
        _mm256_storeu_ps(sums + 8 * part, sum_f32x8[part]);
    }
}

GTE_AVX512 void sum_of_squares_avx512(const float* panel, size_t dim, float* sums) {
    __m512 low_f32x16 = _mm512_loadu_ps(sums), high_f32x16 = _mm512_loadu_ps(sums + 16);
    for (size_t i = 0; i < dim; ++i, panel += panel_rows) {
        const __m512 rows_low = _mm512_loadu_ps(panel), rows_high = _mm512_loadu_ps(panel + 16);
        low_f32x16 = _mm512_fmadd_ps(rows_low, rows_low, low_f32x16);
        high_f32x16 = _mm512_fmadd_ps(rows_high, rows_high, high_f32x16);
    }
    _mm512_storeu_ps(sums, low_f32x16);
    _mm512_storeu_ps(sums + 16, high_f32x16);
}

namespace {

// 16 registers: 2 of rows, 1 broadcast, 12 sums. One pass covers half of the panel's rows.
template <int query_count>
GTE_AVX2 void tile_avx2(const float* panel, const float* queries, size_t dim, float* dots) {
    for (size_t half = 0; half < panel_rows; half += 16) {
        __m256 sum_f32x8[query_count][2];
#pragma GCC unroll 6
        for (int q = 0; q < query_count; ++q) {
            sum_f32x8[q][0] = _mm256_loadu_ps(dots + q * panel_rows + half);
            sum_f32x8[q][1] = _mm256_loadu_ps(dots + q * panel_rows + half + 8);
        }
        const float* rows = panel + half;
        const float* query = queries;
        for (size_t i = 0; i < dim; ++i, rows += panel_rows, query += tile_queries) {
            const __m256 low_f32x8 = _mm256_loadu_ps(rows), high_f32x8 = _mm256_loadu_ps(rows + 8);
#pragma GCC unroll 6
            for (int q = 0; q < query_count; ++q) {
                const __m256 value = _mm256_broadcast_ss(query + q);
                sum_f32x8[q][0] = _mm256_fmadd_ps(low_f32x8, value, sum_f32x8[q][0]);
                sum_f32x8[q][1] = _mm256_fmadd_ps(high_f32x8, value, sum_f32x8[q][1]);
            }
        }
#pragma GCC unroll 6
        for (int q = 0; q < query_count; ++q) {
            _mm256_storeu_ps(dots + q * panel_rows + half, sum_f32x8[q][0]);
            _mm256_storeu_ps(dots + q * panel_rows + half + 8, sum_f32x8[q][1]);
        }
    }
}

// 32 registers: 2 of rows, 1 broadcast, 24 sums.
template <int query_count>
GTE_AVX512 void tile_avx512(const float* panel, const float* queries, size_t dim, float* dots) {
    __m512 sum_f32x16[query_count][2];
#pragma GCC unroll 12
    for (int q = 0; q < query_count; ++q) {
        sum_f32x16[q][0] = _mm512_loadu_ps(dots + q * panel_rows);
        sum_f32x16[q][1] = _mm512_loadu_ps(dots + q * panel_rows + 16);
    }
    for (size_t i = 0; i < dim; ++i, panel += panel_rows, queries += tile_queries) {
        const __m512 low_f32x16 = _mm512_loadu_ps(panel), high_f32x16 = _mm512_loadu_ps(panel + 16);
#pragma GCC unroll 12
        for (int q = 0; q < query_count; ++q) {
            const __m512 value = _mm512_set1_ps(queries[q]);
            sum_f32x16[q][0] = _mm512_fmadd_ps(low_f32x16, value, sum_f32x16[q][0]);
            sum_f32x16[q][1] = _mm512_fmadd_ps(high_f32x16, value, sum_f32x16[q][1]);
        }
    }
#pragma GCC unroll 12
    for (int q = 0; q < query_count; ++q) {
        _mm512_storeu_ps(dots + q * panel_rows, sum_f32x16[q][0]);
        _mm512_storeu_ps(dots + q * panel_rows + 16, sum_f32x16[q][1]);
    }
}

}  // namespace

void dot_float_avx2(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots) {
    const Tile<float, float> tiles[] = {{6, tile_avx2<6>}, {3, tile_avx2<3>}, {1, tile_avx2<1>}};
    multiply_in_tiles(tiles, panel, queries, dim, query_count, dots);
}

void dot_float_avx512(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots) {
    const Tile<float, float> tiles[] = {
        {12, tile_avx512<12>}, {8, tile_avx512<8>}, {4, tile_avx512<4>}, {2, tile_avx512<2>}, {1, tile_avx512<1>}};
    multiply_in_tiles(tiles, panel, queries, dim, query_count, dots);
}

#elif defined(GTE_ARM)

void sum_of_squares_neon(const float* panel, size_t dim, float* sums) {
    float32x4_t sum_f32x4[8];
    for (int part = 0; part < 8; ++part) {
        sum_f32x4[part] = vld1q_f32(sums + 4 * part);
    }
    for (size_t i = 0; i < dim; ++i, panel += panel_rows) {
        for (int part = 0; part < 8; ++part) {
            const float32x4_t rows_f32x4 = vld1q_f32(panel + 4 * part);
            sum_f32x4[part] = vfmaq_f32(sum_f32x4[part], rows_f32x4, rows_f32x4);
        }
    }
    for (int part = 0; part < 8; ++part) {
        vst1q_f32(sums + 4 * part, sum_f32x4[part]);
    }
}

namespace {

// 32 registers: 4 of rows, 1 broadcast, 16 sums. One pass covers half of the panel's rows.
template <int query_count>
void tile_neon(const float* panel, const float* queries, size_t dim, float* dots) {
    for (size_t half = 0; half < panel_rows; half += 16) {
        float32x4_t sum_f32x4[query_count][4];
        for (int q = 0; q < query_count; ++q) {
            for (int part = 0; part < 4; ++part) {
                sum_f32x4[q][part] = vld1q_f32(dots + q * panel_rows + half + 4 * part);
            }
        }
        const float* rows = panel + half;
        const float* query = queries;
        for (size_t i = 0; i < dim; ++i, rows += panel_rows, query += tile_queries) {
            float32x4_t rows_f32x4[4];
            for (int part = 0; part < 4; ++part) {
                rows_f32x4[part] = vld1q_f32(rows + 4 * part);
            }
            for (int q = 0; q < query_count; ++q) {
                const float32x4_t value = vld1q_dup_f32(query + q);
                for (int part = 0; part < 4; ++part) {
                    sum_f32x4[q][part] = vfmaq_f32(sum_f32x4[q][part], rows_f32x4[part], value);
                }
            }
        }
        for (int q = 0; q < query_count; ++q) {
            for (int part = 0; part < 4; ++part) {
                vst1q_f32(dots + q * panel_rows + half + 4 * part, sum_f32x4[q][part]);
            }
        }
    }
}

}  // namespace

void dot_float_neon(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots) {
    const Tile<float, float> tiles[] = {{4, tile_neon<4>}, {1, tile_neon<1>}};
    multiply_in_tiles(tiles, panel, queries, dim, query_count, dots);
}

#endif

}  // namespace gte
