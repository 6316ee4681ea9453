// Layer normalization (Ba et al. 2016), and what a part of a layer adds to the hidden states.
#pragma once

#include "encoder/layers/functions.hpp"
#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

// The rows of `out` are the normalized rows of `in`, which may be the same array.
void normalize(const float* in, float* out, size_t row_count, size_t width, const Norm& norm, float epsilon) {
    const float width_as_float = static_cast<float>(width);
    for (size_t row = 0; row < row_count; ++row, in += width, out += width) {
        Floats total = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            total = add(total, load(in + i));
        }
        const Floats mean = set(sum_of_lanes(total) / width_as_float);
        Floats squares = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            const Floats distance = sub(load(in + i), mean);
            squares = fma(distance, distance, squares);
        }
        const Floats scale = set(1.0f / std::sqrt(sum_of_lanes(squares) / width_as_float + epsilon));
        for (size_t i = 0; i < width; i += lanes) {
            const Floats unit = mul(sub(load(in + i), mean), scale);
            store(out + i, fma(unit, load(norm.weight.data() + i), load(norm.bias.data() + i)));
        }
    }
}

// hidden = norm(hidden + change), or hidden + change where the norm comes first.
void add_change(const Encoder& encoder, const Norm& norm, const float* change, size_t row_count, float* hidden) {
    const size_t width = encoder.hidden;
    for (size_t row = 0; row < row_count; ++row, hidden += width, change += width) {
        for (size_t i = 0; i < width; i += lanes) {
            store(hidden + i, add(load(hidden + i), load(change + i)));
        }
        if (!encoder.norm_first) {
            normalize(hidden, hidden, 1, width, norm, encoder.epsilon);
        }
    }
}

// What a part of a layer reads: the hidden states, or their norm where it comes first, in `buffer`.
const float* input_of(const Encoder& encoder, const Norm& norm, const float* hidden, size_t row_count, float* buffer) {
    if (!encoder.norm_first || norm.is_identity()) {
        return hidden;
    }
    normalize(hidden, buffer, row_count, encoder.hidden, norm, encoder.epsilon);
    return buffer;
}

}  // namespace
}  // namespace gte
