// The encoder on AVX2. Its own byte product saturates, so the bytes are widened to 16 bits first, where nothing can overflow.
#include "bert.hpp"
#include "cpu.hpp"

#if defined(GTE_X86)
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "target_region.hpp"
GTE_REGION_BEGIN("avx2,fma")
#define GTE_BERT_VARIANT avx2
#include "bert_floats_avx2.hpp"

namespace gte {
namespace {

constexpr size_t tile_rows = 3, tile_columns = 1;

// Two partial sums for each of 16 columns.
struct Sums {
    __m256i columns[4];
};

GTE_INLINE __m256 add_pairs(__m256i first, __m256i second) {
    return _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(_mm256_hadd_epi32(first, second), 0xd8));
}
GTE_INLINE Floats to_floats(const Sums& sums) {
    return {add_pairs(sums.columns[0], sums.columns[1]), add_pairs(sums.columns[2], sums.columns[3])};
}

template <size_t R>
GTE_INLINE void dot_tile(const uint8_t* a, size_t a_stride, const int8_t* b, size_t, size_t input_count,
                         const int32_t* weight_sums, int factor, Sums (&sums)[R][tile_columns]) {
    for (size_t quarter = 0; quarter < 4; ++quarter) {
        const __m128i start = _mm_mullo_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weight_sums + 4 * quarter)),
                                              _mm_set1_epi32(factor));
        for (size_t r = 0; r < R; ++r) {
            sums[r][0].columns[quarter] = _mm256_cvtepu32_epi64(start);  // the other partial sum starts at 0
        }
    }
    for (size_t i = 0; i < input_count; i += inputs_per_step) {
        __m256i steps[R];
        for (size_t r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, a + r * a_stride + i, sizeof four);
            steps[r] = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
        }
        for (size_t quarter = 0; quarter < 4; ++quarter) {
            const __m256i weights = _mm256_cvtepi8_epi16(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i * lanes + 4 * quarter * inputs_per_step)));
            for (size_t r = 0; r < R; ++r) {
                __m256i& sum = sums[r][0].columns[quarter];
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(steps[r], weights));
            }
        }
    }
}

}  // namespace
}  // namespace gte

#include "bert_forward.hpp"

namespace gte {
extern const EncodeBatch bert_avx2;
const EncodeBatch bert_avx2 = encode_batch;
}  // namespace gte
GTE_REGION_END
#endif
