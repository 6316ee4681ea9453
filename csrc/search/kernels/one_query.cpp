#include "search/kernels/one_query.hpp"

#include "search/kernels/dot.hpp"
#include "search/kernels/transpose_avx512.hpp"

#if defined(GTE_X86)

namespace gte {

// Words beyond a row's end are read as zero, which adds nothing to any of these sums. Integers are summed row by row
// and transposed once at the end; floats keep the order of panel.hpp, so every word is transposed.

namespace {

// Prefetches the next panel, 16 cache lines at a time. Where its rows are adjacent it goes line by line, which memory
// answers faster than one line of each of 32 rows.
class NextPanel {
  public:
    NextPanel(const char* const* rows, size_t word_count)
        : rows_(rows),
          line_(rows[0]),
          adjacent_(rows[panel_rows - 1] - rows[0] == static_cast<ptrdiff_t>((panel_rows - 1) * word_count * 4)) {}

    // For rows that are not adjacent: this word of 16 rows from first_row on.
    GTE_INLINE void prefetch_lines(size_t first_row, size_t word) {
        if (adjacent_) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i, line_ += 64) {
                _mm_prefetch(line_, _MM_HINT_T0);
            }
        } else {
            for (size_t i = first_row; i < first_row + 16; ++i) {
                _mm_prefetch(rows_[i] + word * 4, _MM_HINT_T0);
            }
        }
    }

  private:
    const char* const* rows_;
    const char* line_;
    bool adjacent_;
};

// A word of a row is one float, or two halves.
template <bool halves>
GTE_AVX512 GTE_INLINE void one_query_floats(const char* const* rows, const char* const* next_rows, const float* query,
                                            size_t word_count, float* dots, float* squares) {
    constexpr size_t values_in_word = halves ? 2 : 1;
    NextPanel next(next_rows, word_count);
    __m512 dot_f32x16[2] = {_mm512_loadu_ps(dots), _mm512_loadu_ps(dots + 16)};
    __m512 square_f32x16[2] = {_mm512_loadu_ps(squares), _mm512_loadu_ps(squares + 16)};
    for (size_t word = 0; word < word_count; word += 16, query += 16 * values_in_word) {
        const size_t left = word_count - word < 16 ? word_count - word : 16;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m512i column[16];
            next.prefetch_lines(16 * half, word);
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

// 16 words of the query, which lie tile_queries apart.
GTE_AVX512VNNI GTE_INLINE __m512i query_words(const uint32_t* query, __mmask16 mask) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(tile_queries)));
    return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, places, query, 4);
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
            const __m512i values = query_words(query + word * tile_queries, mask);
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

}  // namespace gte

#endif
