// The encoder on any CPU: the same lanes, one after another. Slow where there is no fused multiply-add.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "encoder/encoder.hpp"
#include "machine/cpu.hpp"
#include "machine/fused.hpp"
#include "machine/target_region.hpp"
#define GTE_INSTRUCTION_SET scalar

namespace gte {
namespace {

struct Floats {
    float lane[lanes];
};

using Code = uint8_t;
constexpr size_t tile_rows = 2, row_step = 1, tile_columns = 1, float_rows = 2, float_columns = 1;
constexpr int activation_bias = 0;

// NaN and what int does not hold, from weights that are not finite, become the least int, as x86's instruction has it.
int integer(float value) { return value >= -2e9f && value <= 2e9f ? static_cast<int>(value) : INT32_MIN; }

template <typename Operation>
GTE_INLINE Floats each_lane(Operation operation) {
    Floats result;
    for (size_t i = 0; i < lanes; ++i) {
        result.lane[i] = operation(i);
    }
    return result;
}

Floats load(const float* p) {
    return each_lane([=](size_t i) { return p[i]; });
}
void store(float* p, const Floats& v) { std::memcpy(p, v.lane, sizeof v.lane); }
Floats set(float v) {
    return each_lane([=](size_t) { return v; });
}
Floats zero_floats() { return set(0.0f); }
Floats add(const Floats& a, const Floats& b) {
    return each_lane([&](size_t i) { return a.lane[i] + b.lane[i]; });
}
Floats sub(const Floats& a, const Floats& b) {
    return each_lane([&](size_t i) { return a.lane[i] - b.lane[i]; });
}
Floats mul(const Floats& a, const Floats& b) {
    return each_lane([&](size_t i) { return a.lane[i] * b.lane[i]; });
}
Floats div(const Floats& a, const Floats& b) {
    return each_lane([&](size_t i) { return a.lane[i] / b.lane[i]; });
}
Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    return each_lane([&](size_t i) { return fused_multiply_add(a.lane[i], b.lane[i], c.lane[i]); });
}
Floats min(const Floats& a, const Floats& b) {
    return each_lane([&](size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
Floats max(const Floats& a, const Floats& b) {
    return each_lane([&](size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
Floats absolute(const Floats& a) {
    return each_lane([&](size_t i) { return std::fabs(a.lane[i]); });
}
Floats nearest(const Floats& a) {
    return each_lane([&](size_t i) { return std::nearbyint(a.lane[i]); });
}
Floats power_of_two(const Floats& n) {
    return each_lane([&](size_t i) { return std::ldexp(1.0f, integer(n.lane[i])); });
}
Floats load_int8(const int8_t* p) {
    return each_lane([=](size_t i) { return static_cast<float>(p[i]); });
}
void store_codes(uint8_t* p, const Floats& v, int zero) {
    for (size_t i = 0; i < lanes; ++i) {
        p[i] = static_cast<uint8_t>(integer(std::nearbyint(v.lane[i])) + zero);
    }
}
Floats load_sums(const int32_t* p) {
    return each_lane([=](size_t i) { return static_cast<float>(p[i]); });
}

template <size_t R>
void dot_tile(const uint8_t* a, size_t a_stride, const int8_t* b, size_t, size_t input_count, const int32_t* start,
              int32_t* out) {
    for (size_t r = 0; r < R; ++r) {
        int32_t sums[lanes];
        std::memcpy(sums, start, sizeof sums);
        for (size_t i = 0; i < input_count; i += inputs_per_word) {
            const uint8_t* codes = a + r * a_stride + i;
            const int8_t* weights = b + i * lanes;
            for (size_t column = 0; column < lanes; ++column, weights += inputs_per_word) {
                sums[column] +=
                    codes[0] * weights[0] + codes[1] * weights[1] + codes[2] * weights[2] + codes[3] * weights[3];
            }
        }
        std::memcpy(out + r * lanes, sums, sizeof sums);
    }
}

}  // namespace
}  // namespace gte

#include "encoder/forward_pass.hpp"

namespace gte {
extern const EncoderKernels encoder_scalar;
const EncoderKernels encoder_scalar = {"scalar", sizeof(Code), encode_batch, help_with_batch};
}  // namespace gte
