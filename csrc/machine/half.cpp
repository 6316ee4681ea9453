#include "machine/half.hpp"

#include <cstring>

namespace gte {

uint16_t half_from_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return static_cast<uint16_t>(sign | 0x7e00);  // NaN
    }
    if (magnitude >= 0x477ff000) {
        return static_cast<uint16_t>(sign | 0x7c00);  // rounds to 65536 or more
    }
    if (magnitude < 0x38800000) {
        // Below the least normal half: adding 0.5 aligns the last place to 2^-24 and rounds in the float unit.
        float aligned;
        std::memcpy(&aligned, &magnitude, sizeof aligned);
        aligned += 0.5f;
        uint32_t aligned_bits;
        std::memcpy(&aligned_bits, &aligned, sizeof aligned_bits);
        return static_cast<uint16_t>(sign | (aligned_bits - 0x3f000000));
    }
    // Exponent bias 127 to 15; the odd bit makes ties go to even.
    const uint32_t odd = (magnitude >> 13) & 1;
    return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0x0fff + odd) >> 13));
}

float float_from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t fraction = half & 0x03ff;
    float value;
    if (exponent == 0) {
        value = static_cast<float>(fraction) * 0x1p-24f;
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        bits |= sign;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }
    const uint32_t wide_exponent = exponent == 0x1f ? 0xff : exponent + 112;
    const uint32_t bits = sign | (wide_exponent << 23) | (fraction << 13);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace gte
