// The encoder on AVX2. Its own byte product saturates, so the bytes are widened to 16 bits first, where nothing can
// overflow.
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

constexpr size_t tile_rows = 3, last_rows = 1, tile_columns = 1;

GTE_INLINE void store_pair_sums(int32_t* p, __m256i first, __m256i second) {
    const __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(first, second), 0xd8);
    _mm256_store_si256(reinterpret_cast<__m256i*>(p), sums);
}

template <size_t R>
GTE_INLINE void dot_tile(const uint8_t* a, size_t a_stride, const int8_t* b, size_t, size_t input_count,
                         const int32_t* start, int32_t* out) {
    __m256i sums[R][4];  // two partial sums for each of 16 columns
    GTE_UNROLL
    for (size_t quarter = 0; quarter < 4; ++quarter) {
        const __m128i four = _mm_load_si128(reinterpret_cast<const __m128i*>(start + 4 * quarter));
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            sums[r][quarter] = _mm256_cvtepu32_epi64(four);  // the other partial sum starts at 0
        }
    }
    for (size_t i = 0; i < input_count; i += inputs_per_word) {
        __m256i codes[R];
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, a + r * a_stride + i, sizeof four);
            codes[r] = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
        }
        GTE_UNROLL
        for (size_t quarter = 0; quarter < 4; ++quarter) {
            const __m256i weights = _mm256_cvtepi8_epi16(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i * lanes + 4 * quarter * inputs_per_word)));
            GTE_UNROLL
            for (size_t r = 0; r < R; ++r) {
                sums[r][quarter] = _mm256_add_epi32(sums[r][quarter], _mm256_madd_epi16(codes[r], weights));
            }
        }
    }
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        store_pair_sums(out + r * lanes, sums[r][0], sums[r][1]);
        store_pair_sums(out + r * lanes + 8, sums[r][2], sums[r][3]);
    }
}

}  // namespace
}  // namespace gte

#include "encoder/forward_pass.hpp"

namespace gte {
extern const EncoderKernels encoder_avx2;
const EncoderKernels encoder_avx2 = {"avx2", encode_batch, help_with_batch};
}  // namespace gte
GTE_REGION_END
#endif
