// The encoder on NEON with the dot product of ARMv8.2, which multiplies signed bytes only: the codes are stored 128
// lower.
#include "encoder/encoder.hpp"
#include "machine/cpu.hpp"

#if defined(GTE_ARM)
#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/target_region.hpp"
#if defined(__clang__)
GTE_REGION_BEGIN("dotprod")
#else
GTE_REGION_BEGIN("arch=armv8.2-a+dotprod")
#endif
#define GTE_INSTRUCTION_SET neon

namespace gte {
namespace {

struct Floats {
    float32x4_t part[4];
};

using Code = uint8_t;
constexpr size_t tile_rows = 4, row_step = 1, tile_columns = 1, float_rows = 6, float_columns = 1;
constexpr int activation_bias = 128;

GTE_INLINE Floats load(const float* p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
GTE_INLINE void store(float* p, Floats v) {
    for (size_t i = 0; i < 4; ++i) {
        vst1q_f32(p + 4 * i, v.part[i]);
    }
}
GTE_INLINE Floats set(float v) { return {{vdupq_n_f32(v), vdupq_n_f32(v), vdupq_n_f32(v), vdupq_n_f32(v)}}; }
GTE_INLINE Floats zero_floats() { return set(0.0f); }

#define GTE_BINARY(name, intrinsic)                                                                                 \
    GTE_INLINE Floats name(Floats a, Floats b) {                                                                    \
        return {{intrinsic(a.part[0], b.part[0]), intrinsic(a.part[1], b.part[1]), intrinsic(a.part[2], b.part[2]), \
                 intrinsic(a.part[3], b.part[3])}};                                                                 \
    }
GTE_BINARY(add, vaddq_f32)
GTE_BINARY(sub, vsubq_f32)
GTE_BINARY(mul, vmulq_f32)
GTE_BINARY(div, vdivq_f32)
GTE_BINARY(min, vminq_f32)
GTE_BINARY(max, vmaxq_f32)
#undef GTE_BINARY

GTE_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return {{vfmaq_f32(c.part[0], a.part[0], b.part[0]), vfmaq_f32(c.part[1], a.part[1], b.part[1]),
             vfmaq_f32(c.part[2], a.part[2], b.part[2]), vfmaq_f32(c.part[3], a.part[3], b.part[3])}};
}
GTE_INLINE Floats absolute(Floats a) {
    return {{vabsq_f32(a.part[0]), vabsq_f32(a.part[1]), vabsq_f32(a.part[2]), vabsq_f32(a.part[3])}};
}
GTE_INLINE Floats nearest(Floats a) {
    return {{vrndnq_f32(a.part[0]), vrndnq_f32(a.part[1]), vrndnq_f32(a.part[2]), vrndnq_f32(a.part[3])}};
}
GTE_INLINE float32x4_t part_power_of_two(float32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
GTE_INLINE Floats power_of_two(Floats n) {
    return {{part_power_of_two(n.part[0]), part_power_of_two(n.part[1]), part_power_of_two(n.part[2]),
             part_power_of_two(n.part[3])}};
}
GTE_INLINE Floats load_int8(const int8_t* p) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
GTE_INLINE void store_codes(uint8_t* p, Floats v, int zero) {
    const int32x4_t offset = vdupq_n_s32(zero);
    int16x4_t shorts[4];
    for (size_t i = 0; i < 4; ++i) {
        shorts[i] = vmovn_s32(vaddq_s32(vcvtnq_s32_f32(v.part[i]), offset));
    }
    const int8x8_t low = vmovn_s16(vcombine_s16(shorts[0], shorts[1])),
                   high = vmovn_s16(vcombine_s16(shorts[2], shorts[3]));
    vst1q_u8(p, vreinterpretq_u8_s8(vcombine_s8(low, high)));
}
GTE_INLINE Floats load_sums(const int32_t* p) {
    return {{vcvtq_f32_s32(vld1q_s32(p)), vcvtq_f32_s32(vld1q_s32(p + 4)), vcvtq_f32_s32(vld1q_s32(p + 8)),
             vcvtq_f32_s32(vld1q_s32(p + 12))}};
}

template <size_t R>
GTE_INLINE void dot_tile(const uint8_t* a, size_t a_stride, const int8_t* b, size_t, size_t input_count,
                         const int32_t* start, int32_t* out) {
    int32x4_t sums[R][4];
    GTE_UNROLL
    for (size_t quarter = 0; quarter < 4; ++quarter) {
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            sums[r][quarter] = vld1q_s32(start + 4 * quarter);
        }
    }
    for (size_t i = 0; i < input_count; i += inputs_per_word) {
        int8x16_t weights[4];
        GTE_UNROLL
        for (size_t quarter = 0; quarter < 4; ++quarter) {
            weights[quarter] = vld1q_s8(b + i * lanes + quarter * lanes);
        }
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, a + r * a_stride + i, sizeof four);
            const int8x16_t codes = vreinterpretq_s8_s32(vdupq_n_s32(four));
            GTE_UNROLL
            for (size_t quarter = 0; quarter < 4; ++quarter) {
                sums[r][quarter] = vdotq_s32(sums[r][quarter], weights[quarter], codes);
            }
        }
    }
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        GTE_UNROLL
        for (size_t quarter = 0; quarter < 4; ++quarter) {
            vst1q_s32(out + r * lanes + 4 * quarter, sums[r][quarter]);
        }
    }
}

}  // namespace
}  // namespace gte

#include "encoder/forward_pass.hpp"

namespace gte {
extern const EncoderKernels encoder_neon;
const EncoderKernels encoder_neon = {"neon", sizeof(Code), encode_batch, help_with_batch};
}  // namespace gte
GTE_REGION_END
#endif
