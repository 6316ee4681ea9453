#include "search/row_types.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/half.hpp"

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
        codes[i] = code >= -127 && code <= 127 ? static_cast<int8_t>(code) : int8_t{0};  // not so for NaN
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
