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

// A row in place; gated, the first half of it.
template <typename Activate>
GTE_INLINE void activate(float* row, size_t width, bool gated) {
    if (!gated) {
        for (size_t i = 0; i < width; i += lanes) {
            store(row + i, Activate::of(load(row + i)));
        }
        return;
    }
    for (size_t i = 0; i < width; i += lanes) {
        store(row + i, mul(Activate::of(load(row + i)), load(row + width + i)));
    }
}

void activate(const Encoder& encoder, float* row, size_t width) {
    switch (encoder.activation) {
        case Activation::gelu:
            return activate<Gelu>(row, width, encoder.gated);
        case Activation::gelu_tanh:
            return activate<GeluTanh>(row, width, encoder.gated);
        case Activation::relu:
            return activate<Relu>(row, width, encoder.gated);
        case Activation::silu:
            return activate<Silu>(row, width, encoder.gated);
    }
}

// What the second part of a layer adds to its rows.
void feed_forward(const Encoder& encoder, const Layer& layer, Workspace& space, const float* hidden, size_t row_count,
                  float* change) {
    const size_t width = layer.feed_forward_out.input_count, stride = layer.feed_forward_in.output_count;
    float* wide = space.wide.data();
    apply_to_hidden(encoder, layer.feed_forward_norm, layer.feed_forward_in, space, hidden, row_count, wide);
    apply(layer.feed_forward_out, space, wide, stride, row_count, change,
          [&](size_t row) { activate(encoder, wide + row * stride, width); });
}

}  // namespace
}  // namespace gte
