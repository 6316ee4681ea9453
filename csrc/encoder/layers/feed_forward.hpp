// The two linear layers that each token goes through alone, with an activation (Hendrycks and Gimpel 2016) or a gated
// linear unit (Shazeer 2020) between them.
#pragma once

#include "encoder/layers/functions.hpp"
#include "encoder/layers/linear.hpp"
#include "encoder/layers/norm.hpp"
#include "encoder/layers/weights.hpp"
#include "encoder/layers/workspace.hpp"

namespace gte {
namespace {

// rows (row_count, width) in place; gated, from (row_count, 2 width).
template <typename Activate>
void activate_rows(float* rows, size_t row_count, size_t width, bool gated) {
    if (!gated) {
        for (size_t i = 0; i < row_count * width; i += lanes) {
            store(rows + i, Activate::of(load(rows + i)));
        }
        return;
    }
    for (size_t row = 0; row < row_count; ++row) {
        const float* in = rows + row * 2 * width;
        for (size_t i = 0; i < width; i += lanes) {
            store(rows + row * width + i, mul(Activate::of(load(in + i)), load(in + width + i)));
        }
    }
}

void activate(const Encoder& encoder, float* rows, size_t row_count, size_t width) {
    switch (encoder.activation) {
        case Activation::gelu:
            return activate_rows<Gelu>(rows, row_count, width, encoder.gated);
        case Activation::gelu_tanh:
            return activate_rows<GeluTanh>(rows, row_count, width, encoder.gated);
        case Activation::relu:
            return activate_rows<Relu>(rows, row_count, width, encoder.gated);
        case Activation::silu:
            return activate_rows<Silu>(rows, row_count, width, encoder.gated);
    }
}

// What the layer's second part adds to its rows.
void feed_forward(const Encoder& encoder, const Layer& layer, Workspace& space, const float* in, size_t row_count,
                  float* change) {
    float* wide = space.wide.data();
    apply(layer.feed_forward_in, space, in, row_count, wide);
    activate(encoder, wide, row_count, layer.feed_forward_out.input_count);
    apply(layer.feed_forward_out, space, wide, row_count, change);
}

}  // namespace
}  // namespace gte
