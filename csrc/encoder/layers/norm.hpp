// Layer normalization of a sum.
#pragma once

#include "encoder/layers/functions.hpp"
#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

// values = norm(values + residual), row by row.
void add_and_normalize(float* values, const float* residual, size_t row_count, size_t width, const Norm& norm,
                       float epsilon) {
    const float width_as_float = static_cast<float>(width);
    for (size_t row = 0; row < row_count; ++row) {
        float* x = values + row * width;
        const float* y = residual + row * width;
        Floats total = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            const Floats sum = add(load(x + i), load(y + i));
            store(x + i, sum);
            total = add(total, sum);
        }
        const Floats mean = set(sum_of_lanes(total) / width_as_float);
        Floats squares = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            const Floats distance = sub(load(x + i), mean);
            squares = fma(distance, distance, squares);
        }
        const Floats scale = set(1.0f / std::sqrt(sum_of_lanes(squares) / width_as_float + epsilon));
        for (size_t i = 0; i < width; i += lanes) {
            const Floats unit = mul(sub(load(x + i), mean), scale);
            store(x + i, fma(unit, load(norm.weight.data() + i), load(norm.bias.data() + i)));
        }
    }
}

}  // namespace
}  // namespace gte
