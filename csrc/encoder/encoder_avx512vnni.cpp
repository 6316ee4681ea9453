// The encoder on AVX-512 with VNNI: 64 products in one instruction.
#include "encoder/encoder.hpp"
#include "machine/cpu.hpp"

#if defined(GTE_X86)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/target_region.hpp"
GTE_REGION_BEGIN("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#define GTE_INSTRUCTION_SET avx512vnni

#include "encoder/lanes/avx512.hpp"

namespace gte {
namespace {

using Code = uint8_t;
constexpr size_t tile_rows = 6, row_step = 1, tile_columns = 4;

template <size_t R>
GTE_INLINE void dot_tile(const uint8_t* a, size_t a_stride, const int8_t* b, size_t b_stride, size_t input_count,
                         const int32_t* start, int32_t* out) {
    __m512i sums[R][tile_columns];
    GTE_UNROLL
    for (size_t c = 0; c < tile_columns; ++c) {
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            sums[r][c] = _mm512_load_si512(start + c * lanes);
        }
    }
    for (size_t i = 0; i < input_count; i += inputs_per_word) {
        __m512i weights[tile_columns];
        GTE_UNROLL
        for (size_t c = 0; c < tile_columns; ++c) {
            weights[c] = _mm512_loadu_si512(b + c * b_stride + i * lanes);
        }
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, a + r * a_stride + i, sizeof four);
            const __m512i codes = _mm512_set1_epi32(four);
            GTE_UNROLL
            for (size_t c = 0; c < tile_columns; ++c) {
                sums[r][c] = _mm512_dpbusd_epi32(sums[r][c], codes, weights[c]);
            }
        }
    }
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        GTE_UNROLL
        for (size_t c = 0; c < tile_columns; ++c) {
            _mm512_store_si512(out + (r * tile_columns + c) * lanes, sums[r][c]);
        }
    }
}

}  // namespace
}  // namespace gte

#include "encoder/forward_pass.hpp"

namespace gte {
extern const EncoderKernels encoder_avx512vnni;
const EncoderKernels encoder_avx512vnni = {"avx512vnni", sizeof(Code), encode_batch, help_with_batch};
}  // namespace gte
GTE_REGION_END
#endif
