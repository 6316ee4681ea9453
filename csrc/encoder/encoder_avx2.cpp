// The encoder on AVX2. Its own byte product saturates, so bytes are widened to 16 bits, where nothing can overflow: the
// codes when they are made, the weights of a panel before all rows pass.
#include "encoder/encoder.hpp"
#include "machine/cpu.hpp"

#if defined(GTE_X86)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/target_region.hpp"
GTE_REGION_BEGIN("avx2,fma")
#define GTE_INSTRUCTION_SET avx2
#include "encoder/lanes/avx2.hpp"

namespace gte {
namespace {

using Code = int16_t;
constexpr size_t tile_rows = 6, row_step = 1, tile_columns = 1;

GTE_INLINE __m256i load_16(const int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

GTE_INLINE void store_codes(int16_t* p, Floats v, int zero) {
    const __m256i offset = _mm256_set1_epi32(zero);
    const __m256i low = _mm256_add_epi32(_mm256_cvtps_epi32(v.low), offset);
    const __m256i high = _mm256_add_epi32(_mm256_cvtps_epi32(v.high), offset);
    // Within the two halves of a register: low 0-3, high 0-3 | low 4-7, high 4-7.
    const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), shorts);
}

// Four inputs of four columns in 16 bits: a word of 32 bits holds two inputs of a column.
GTE_INLINE __m256 load_pairs(const int8_t* p) {
    return _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// Weights of 16 columns from [input / 4][16][4] to [input / 2][16][2].
void widen_weights(const int8_t* weights, size_t input_count, int16_t* out) {
    for (size_t i = 0; i < input_count; i += inputs_per_word) {
        GTE_UNROLL
        for (size_t half = 0; half < 2; ++half) {
            const int8_t* columns = weights + i * lanes + half * 8 * inputs_per_word;
            const __m256 first = load_pairs(columns), second = load_pairs(columns + 4 * inputs_per_word);
            const __m256i low = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0x88));
            const __m256i high = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0xdd));
            __m256i* pairs = reinterpret_cast<__m256i*>(out + i * lanes + half * 16);
            _mm256_storeu_si256(pairs, _mm256_permute4x64_epi64(low, 0xd8));
            _mm256_storeu_si256(pairs + 2, _mm256_permute4x64_epi64(high, 0xd8));
        }
    }
}

template <size_t R>
GTE_INLINE void dot_tile(const int16_t* a, size_t a_stride, const int16_t* b, size_t, size_t input_count,
                         const int32_t* start, int32_t* out) {
    __m256i low_sums[R], high_sums[R];
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        low_sums[r] = _mm256_load_si256(reinterpret_cast<const __m256i*>(start));
        high_sums[r] = _mm256_load_si256(reinterpret_cast<const __m256i*>(start + 8));
    }
    for (size_t i = 0; i < input_count; i += 2) {
        const __m256i low = load_16(b + i * lanes), high = load_16(b + i * lanes + 16);
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            int32_t two;
            std::memcpy(&two, a + r * a_stride + i, sizeof two);
            const __m256i codes = _mm256_set1_epi32(two);
            low_sums[r] = _mm256_add_epi32(low_sums[r], _mm256_madd_epi16(codes, low));
            high_sums[r] = _mm256_add_epi32(high_sums[r], _mm256_madd_epi16(codes, high));
        }
    }
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * lanes), low_sums[r]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * lanes + 8), high_sums[r]);
    }
}

}  // namespace
}  // namespace gte

#include "encoder/forward_pass.hpp"

namespace gte {
extern const EncoderKernels encoder_avx2;
const EncoderKernels encoder_avx2 = {"avx2", sizeof(Code), encode_batch, help_with_batch};
}  // namespace gte
GTE_REGION_END
#endif
