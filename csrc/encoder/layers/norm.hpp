// Layer normalization (Ba et al. 2016), and what a part of a layer adds to the hidden states.
#pragma once

#include "encoder/layers/functions.hpp"
#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

// The squares of the distances to the mean, without the padding, which is at a distance too.
Floats squared_distances(const float* in, size_t width, Floats mean) {
    Floats squares = zero_floats();
    size_t i = 0;
    for (; i + lanes <= width; i += lanes) {
        const Floats distance = sub(load(in + i), mean);
        squares = fma(distance, distance, squares);
    }
    if (i < width) {
        float distances[lanes];
        store(distances, sub(load(in + i), mean));
        std::fill(distances + (width - i), distances + lanes, 0.0f);
        squares = fma(load(distances), load(distances), squares);
    }
    return squares;
}

// `out`, which may be `in`.
void normalize(const float* in, float* out, size_t width, const Norm& norm, float epsilon) {
    const float own_width = static_cast<float>(norm.width);
    Floats total = zero_floats();
    for (size_t i = 0; i < width; i += lanes) {
        total = add(total, load(in + i));
    }
    const Floats mean = set(sum_of_lanes(total) / own_width);
    const float squares = sum_of_lanes(squared_distances(in, norm.width, mean));
    const Floats scale = set(1.0f / std::sqrt(squares / own_width + epsilon));
    for (size_t i = 0; i < width; i += lanes) {
        const Floats unit = mul(sub(load(in + i), mean), scale);
        store(out + i, fma(unit, load(norm.weight.data() + i), load(norm.bias.data() + i)));
    }
}

void normalize_rows(float* rows, size_t row_count, size_t width, const Norm& norm, float epsilon) {
    for (size_t row = 0; row < row_count; ++row) {
        normalize(rows + row * width, rows + row * width, width, norm, epsilon);
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
            normalize(hidden, hidden, width, norm, encoder.epsilon);
        }
    }
}

}  // namespace
}  // namespace gte
