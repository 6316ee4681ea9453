// Linear layers: in fp32 a product; in int8 rows of floats to codes, and their products with int8 weights.
#pragma once

#include "encoder/layers/functions.hpp"
#include "encoder/layers/product.hpp"
#include "encoder/layers/weights.hpp"
#include "encoder/layers/workspace.hpp"

namespace gte {
namespace {

// What is added to the codes before they are stored, because VNNI multiplies unsigned codes.
int zero_of(const Linear& linear) { return (linear.shifted ? 0 : 128) - activation_bias; }

// values (row_count, linear.input_count) to codes, with one scale for each row, so that no other row affects it.
void quantize_rows(const float* values, size_t row_count, const Linear& linear, uint8_t* codes, float* row_scales) {
    const size_t width = linear.input_count;
    const float* smoothing = linear.smoothing.data();
    const float largest_code = linear.shifted ? 255.0f : 127.0f;
    const int zero = zero_of(linear);
    const Floats shift = set(linear.shifted ? static_cast<float>(gelu_shift) : 0.0f);
    for (size_t row = 0; row < row_count; ++row) {
        const float* in = values + row * width;
        Floats magnitude = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            magnitude = max(magnitude, absolute(mul(add(load(in + i), shift), load(smoothing + i))));
        }
        const float scale = std::fmax(largest_lane(magnitude) / largest_code, 1e-12f);
        const Floats per_scale = set(1.0f / scale);
        row_scales[row] = scale;
        for (size_t i = 0; i < width; i += lanes) {
            store_uint8(codes + row * width + i, mul(mul(add(load(in + i), shift), load(smoothing + i)), per_scale),
                        zero);
        }
    }
}

// Stores the first `row_count` of the R rows.
template <size_t R>
GTE_INLINE void code_tile(const Linear& linear, const uint8_t* codes, const float* row_scales, size_t row_count,
                          size_t column, const int32_t* start, float* out) {
    const size_t inputs = linear.input_count, outputs = linear.output_count;
    alignas(64) int32_t sums[R * tile_columns * lanes];
    dot_tile<R>(codes, inputs, linear.codes.data() + column * inputs, lanes * inputs, inputs, start, sums);
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

// out (row_count, output_count) from codes (row_count, input_count). The outer loop runs over columns, so that their
// weights stay in the first-level cache while all rows pass.
void multiply_codes(const Linear& linear, const uint8_t* codes, const float* row_scales, size_t row_count, float* out) {
    const size_t inputs = linear.input_count, outputs = linear.output_count;
    const int zero = zero_of(linear);
    for (size_t column = 0; column < outputs; column += tile_columns * lanes) {
        // Subtracts what the offset of the codes adds to every sum.
        alignas(64) int32_t start[tile_columns * lanes];
        for (size_t i = 0; i < tile_columns * lanes; ++i) {
            start[i] = -zero * linear.weight_sums[column + i];
        }
        size_t row = 0;
        for (; row + tile_rows <= row_count; row += tile_rows) {
            code_tile<tile_rows>(linear, codes + row * inputs, row_scales + row, tile_rows, column, start,
                                 out + row * outputs);
        }
        for (; row < row_count; row += last_rows) {
            const size_t count = last_rows < row_count - row ? last_rows : row_count - row;
            code_tile<last_rows>(linear, codes + row * inputs, row_scales + row, count, column, start,
                                 out + row * outputs);
        }
    }
}

// out (row_count, output_count) from values (row_count, input_count).
void multiply_floats(const Linear& linear, const float* values, size_t row_count, float* out) {
    const size_t inputs = linear.input_count, outputs = linear.output_count;
    multiply({values, inputs, row_count, linear.panels.data(), lanes * inputs, outputs / lanes, inputs,
              linear.bias.data(), out, outputs});
}

// maxima[i] = the largest magnitude of column i, and of what was there.
void raise_maxima(const float* values, size_t row_count, size_t width, float* maxima) {
    for (size_t row = 0; row < row_count; ++row) {
        for (size_t i = 0; i < width; i += lanes) {
            store(maxima + i, max(load(maxima + i), absolute(load(values + row * width + i))));
        }
    }
}

// One of the linear layers of a layer. `values` and `out` do not overlap.
void apply(const Linear& linear, Workspace& space, const float* values, size_t row_count, float* out) {
    if (linear.is_int8()) {
        quantize_rows(values, row_count, linear, space.codes.data(), space.row_scales.data());
        multiply_codes(linear, space.codes.data(), space.row_scales.data(), row_count, out);
        return;
    }
    if (!space.maxima.empty()) {
        raise_maxima(values, row_count, linear.input_count, space.maxima.data() + linear.first_channel);
    }
    multiply_floats(linear, values, row_count, out);
}

}  // namespace
}  // namespace gte
