// Linear layers: in fp32 a product; in int8 rows of floats to codes, and their products with int8 weights.
#pragma once

#include <type_traits>

#include "encoder/layers/functions.hpp"
#include "encoder/layers/norm.hpp"
#include "encoder/layers/product.hpp"
#include "encoder/layers/weights.hpp"
#include "encoder/layers/workspace.hpp"

namespace gte {
namespace {

using Weight = std::conditional_t<sizeof(Code) == 1, int8_t, Code>;
static_assert(sizeof(Code) == 1 || tile_columns == 1, "there is room for one widened panel");

// What is added to the codes before they are stored, because VNNI multiplies unsigned codes.
int zero_of(const Linear& linear) { return (linear.shifted ? 0 : 128) - activation_bias; }

// A row of values (linear.input_count) to codes. Its scale is its own, so that no other row affects it.
void quantize_row(const float* values, const Linear& linear, Code* codes, float* row_scale) {
    const size_t width = linear.input_count;
    const float* smoothing = linear.smoothing.data();
    const float largest_code = linear.shifted ? 255.0f : 127.0f;
    const int zero = zero_of(linear);
    const Floats shift = set(linear.shifted ? static_cast<float>(gelu_shift) : 0.0f);
    Floats magnitude = zero_floats();
    for (size_t i = 0; i < width; i += lanes) {
        magnitude = max(magnitude, absolute(mul(add(load(values + i), shift), load(smoothing + i))));
    }
    *row_scale = std::fmax(largest_lane(magnitude) / largest_code, 1e-12f);
    const Floats per_scale = set(1.0f / *row_scale);
    for (size_t i = 0; i < width; i += lanes) {
        store_codes(codes + i, mul(mul(add(load(values + i), shift), load(smoothing + i)), per_scale), zero);
    }
}

// Weights of tile_columns panels as dot_tile reads them: bytes as they lie, or widened into `room`.
template <typename W>
GTE_INLINE const W* tile_weights(const int8_t* weights, size_t input_count, W* room) {
    if constexpr (std::is_same_v<W, int8_t>) {
        return weights;
    } else {
        widen_weights(weights, input_count, room);
        return room;
    }
}

// Stores the first `row_count` of the R rows.
template <size_t R>
GTE_INLINE void code_tile(const Linear& linear, const Code* codes, const Weight* weights, const float* row_scales,
                          size_t row_count, size_t column, const int32_t* start, float* out) {
    const size_t inputs = linear.input_count, outputs = linear.output_count;
    alignas(64) int32_t sums[R * tile_columns * lanes];
    dot_tile<R>(codes, inputs, weights, lanes * inputs, inputs, start, sums);
    GTE_UNROLL
    for (size_t c = 0; c < tile_columns; ++c) {
        const Floats scale = load(linear.scales.data() + column + c * lanes);
        const Floats bias = load(linear.bias.data() + column + c * lanes);
        GTE_UNROLL
        for (size_t r = 0; r < row_count; ++r) {
            store(out + r * outputs + column + c * lanes,
                  fma(mul(load_sums(sums + (r * tile_columns + c) * lanes), scale), set(row_scales[r]), bias));
        }
    }
}

// A tile of R rows or fewer: `height`, of which the first `row_count` are stored.
template <size_t R>
GTE_INLINE void code_rows(size_t height, const Linear& linear, const Code* codes, const Weight* weights,
                          const float* row_scales, size_t row_count, size_t column, const int32_t* start, float* out) {
    if (height == R) {
        code_tile<R>(linear, codes, weights, row_scales, row_count, column, start, out);
    } else if constexpr (R > row_step) {
        code_rows<R - row_step>(height, linear, codes, weights, row_scales, row_count, column, start, out);
    }
}

// Columns [first, last) of out (row_count, output_count) from codes (row_count, input_count). The outer loop runs over
// columns, so that their weights stay in the first-level cache while all rows pass.
void multiply_codes(const Linear& linear, const Code* codes, const float* row_scales, size_t row_count, size_t first,
                    size_t last, Weight* room, float* out) {
    const size_t inputs = linear.input_count, outputs = linear.output_count;
    const int zero = zero_of(linear);
    for (size_t column = first; column < last; column += tile_columns * lanes) {
        const Weight* weights = tile_weights(linear.codes.data() + column * inputs, inputs, room);
        // Subtracts what the offset of the codes adds to every sum.
        alignas(64) int32_t start[tile_columns * lanes];
        for (size_t i = 0; i < tile_columns * lanes; ++i) {
            start[i] = -zero * linear.weight_sums[column + i];
        }
        for (size_t row = 0; row < row_count;) {
            const size_t height = tile_height(row_count - row, tile_rows, row_step);
            const size_t count = height < row_count - row ? height : row_count - row;
            code_rows<tile_rows>(height, linear, codes + row * inputs, weights, row_scales + row, count, column, start,
                                 out + row * outputs);
            row += count;
        }
    }
}

// Columns [first, last) of out (row_count, output_count) from rows of values.
void multiply_floats(const Linear& linear, const float* values, size_t row_stride, size_t row_count, size_t first,
                     size_t last, float* out) {
    const size_t inputs = linear.input_count;
    multiply({values, row_stride, row_count, linear.panels.data() + first * inputs, lanes * inputs,
              (last - first) / lanes, inputs, linear.bias.data() + first, out + first, linear.output_count});
}

// maxima[i] = the largest magnitude of column i, and of what was there.
void raise_maxima(const float* values, size_t row_stride, size_t row_count, size_t width, float* maxima) {
    for (size_t row = 0; row < row_count; ++row) {
        for (size_t i = 0; i < width; i += lanes) {
            store(maxima + i, max(load(maxima + i), absolute(load(values + row * row_stride + i))));
        }
    }
}

// One of the linear layers of a layer, from rows of values to out (row_count, output_count), which do not overlap.
// finish(row) is called for each row before it is read: the row is in the first-level cache then.
template <typename Finish>
void apply(const Linear& linear, Workspace& space, const float* values, size_t row_stride, size_t row_count, float* out,
           const Finish& finish) {
    const size_t units = linear.output_count / width_unit;
    if (linear.is_int8()) {
        Code* codes = reinterpret_cast<Code*>(space.codes.data());
        share_parts(space.crew, row_count, [&](size_t first, size_t last, size_t) {
            for (size_t row = first; row < last; ++row) {
                finish(row);
                quantize_row(values + row * row_stride, linear, codes + row * linear.input_count,
                             space.row_scales.data() + row);
            }
        });
        share_parts(space.crew, units, [&](size_t first, size_t last, size_t member) {
            Weight* room = reinterpret_cast<Weight*>(space.weights.data()) + member * space.weights_stride;
            multiply_codes(linear, codes, space.row_scales.data(), row_count, first * width_unit, last * width_unit,
                           room, out);
        });
        return;
    }
    share_parts(space.crew, row_count, [&](size_t first, size_t last, size_t) {
        for (size_t row = first; row < last; ++row) {
            finish(row);
        }
    });
    if (!space.maxima.empty()) {
        raise_maxima(values, row_stride, row_count, linear.input_count, space.maxima.data() + linear.first_channel);
    }
    share_parts(space.crew, units, [&](size_t first, size_t last, size_t) {
        multiply_floats(linear, values, row_stride, row_count, first * width_unit, last * width_unit, out);
    });
}

// The first linear layer of a part of a layer, which reads the hidden states, or their norm where it comes first.
void apply_to_hidden(const Encoder& encoder, const Norm& norm, const Linear& linear, Workspace& space,
                     const float* hidden, size_t row_count, float* out) {
    const size_t width = encoder.hidden;
    if (!encoder.norm_first || norm.is_identity()) {
        apply(linear, space, hidden, width, row_count, out, [](size_t) {});
        return;
    }
    float* normalized = space.context.data();
    apply(linear, space, normalized, width, row_count, out,
          [&](size_t row) { normalize(hidden + row * width, normalized + row * width, width, norm, encoder.epsilon); });
}

}  // namespace
}  // namespace gte
