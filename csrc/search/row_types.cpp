#include "search/row_types.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gte {

size_t row_words(RowType type, size_t dim) {
    switch (type) {
        case RowType::float32:
            return dim;
        case RowType::float16:
            return (dim + 1) / 2;
        case RowType::int8:
            return (dim + 3) / 4;
        case RowType::binary:
            return (dim + 31) / 32;
    }
    return 0;
}

double norm_in_double(const float* values, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; ++i) {
        sum += static_cast<double>(values[i]) * values[i];
    }
    return std::sqrt(sum);
}

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
        float shifted;
        std::memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        uint32_t shifted_bits;
        std::memcpy(&shifted_bits, &shifted, sizeof shifted_bits);
        return static_cast<uint16_t>(sign | (shifted_bits - 0x3f000000));
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

float encode_int8(const float* values, size_t dim, int8_t* codes) {
    float largest = 0;
    for (size_t i = 0; i < dim; ++i) {
        largest = std::max(largest, std::fabs(values[i]));
    }
    if (largest == 0) {
        std::fill(codes, codes + dim, static_cast<int8_t>(0));
        return 0;
    }
    const double stretch = 127.0 / largest;
    double sum = 0;
    for (size_t i = 0; i < dim; ++i) {
        const double code = std::nearbyint(values[i] * stretch);
        codes[i] = static_cast<int8_t>(code);
        sum += code * code;
    }
    return static_cast<float>(1.0 / std::sqrt(sum));
}

float encode_binary(const float* values, size_t dim, uint32_t* bits) {
    std::fill(bits, bits + row_words(RowType::binary, dim), 0u);
    bool zero = true;
    for (size_t i = 0; i < dim; ++i) {
        bits[i / 32] |= static_cast<uint32_t>(values[i] < 0) << (i % 32);
        zero = zero && values[i] == 0;
    }
    return zero ? 0.0f : static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)));
}

void encode_rows(RowType type, const float* values, size_t row_count, size_t dim, char* rows, float* scales) {
    const size_t row_bytes = row_words(type, dim) * sizeof(uint32_t);
    for (size_t row = 0; row < row_count; ++row, values += dim, rows += row_bytes) {
        std::memset(rows, 0, row_bytes);
        scales[row] = 1.0f;
        switch (type) {
            case RowType::float32:
                std::memcpy(rows, values, row_bytes);
                break;
            case RowType::float16: {
                const double norm = norm_in_double(values, dim);
                const double scale = norm > 0 ? 1.0 / norm : 0.0;
                uint16_t* halves = reinterpret_cast<uint16_t*>(rows);
                for (size_t i = 0; i < dim; ++i) {
                    halves[i] = half_from_float(static_cast<float>(values[i] * scale));
                }
                break;
            }
            case RowType::int8:
                scales[row] = encode_int8(values, dim, reinterpret_cast<int8_t*>(rows));
                break;
            case RowType::binary:
                scales[row] = encode_binary(values, dim, reinterpret_cast<uint32_t*>(rows));
                break;
        }
    }
}

}  // namespace gte
