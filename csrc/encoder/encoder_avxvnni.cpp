// The encoder on AVX2 with the VNNI of CPUs that have no AVX-512: 32 products in one instruction.
#include "encoder/encoder.hpp"
#include "machine/cpu.hpp"

#if defined(GTE_X86)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/target_region.hpp"
GTE_REGION_BEGIN("avxvnni,avx2,fma")
#define GTE_INSTRUCTION_SET avxvnni
#include "encoder/lanes/avx2.hpp"

namespace gte {
namespace {

using Code = uint8_t;
constexpr size_t tile_rows = 5, row_step = 1, tile_columns = 1;

GTE_INLINE __m256i load_8(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

template <size_t R>
GTE_INLINE void dot_tile(const uint8_t* a, size_t a_stride, const int8_t* b, size_t, size_t input_count,
                         const int32_t* start, int32_t* out) {
    __m256i low_sums[R], high_sums[R];
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        low_sums[r] = load_8(start);
        high_sums[r] = load_8(start + 8);
    }
    for (size_t i = 0; i < input_count; i += inputs_per_word) {
        const __m256i low = load_8(b + i * lanes), high = load_8(b + i * lanes + 32);
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, a + r * a_stride + i, sizeof four);
            const __m256i codes = _mm256_set1_epi32(four);
            low_sums[r] = _mm256_dpbusd_avx_epi32(low_sums[r], codes, low);
            high_sums[r] = _mm256_dpbusd_avx_epi32(high_sums[r], codes, high);
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
extern const EncoderKernels encoder_avxvnni;
const EncoderKernels encoder_avxvnni = {"avxvnni", sizeof(Code), encode_batch, help_with_batch};
}  // namespace gte
GTE_REGION_END
#endif
