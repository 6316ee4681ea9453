// The product of rows of floats and a matrix in panels: all of fp32's linear layers, and the two products of attention.
//
// A panel holds 16 columns of the matrix, [input][16]. Each value of the result is one chain of fused multiply-adds in
// the order of the inputs. How many rows and panels a tile of registers has, and where a chain rests in memory between
// two blocks of inputs, does not change it.
#pragma once

#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

// A block of inputs of the panels of a tile stays in the second-level cache while all rows pass.
constexpr size_t block_inputs = 384;

// Rows of the next tile of those that take the rest: as few tiles as it needs, all about equally high, in multiples of
// `step`.
inline size_t tile_height(size_t rest, size_t most, size_t step) {
    const size_t tiles = (rest + most - 1) / most, even = (rest + tiles - 1) / tiles;
    return (even + step - 1) / step * step;
}

struct Product {
    const float* rows;  // (row_count, input_count)
    size_t row_stride, row_count;
    const float* panels;
    size_t panel_stride, panel_count, input_count;
    const float* start;  // of the chains, one value for each column; null: 0
    float* out;          // (row_count, 16 panel_count)
    size_t out_stride;
};

template <size_t R, size_t C>
void multiply_tile(const Product& product, size_t row, size_t panel, size_t first_input, size_t count) {
    const size_t row_stride = product.row_stride, panel_stride = product.panel_stride, out_stride = product.out_stride;
    const float* rows = product.rows + row * row_stride + first_input;
    const float* panels = product.panels + panel * panel_stride + first_input * lanes;
    float* out = product.out + row * out_stride + panel * lanes;
    Floats sums[R][C];
    GTE_UNROLL
    for (size_t c = 0; c < C; ++c) {
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            sums[r][c] = first_input > 0            ? load(out + r * out_stride + c * lanes)
                         : product.start == nullptr ? zero_floats()
                                                    : load(product.start + (panel + c) * lanes);
        }
    }
    for (size_t i = 0; i < count; ++i) {
        Floats columns[C];
        GTE_UNROLL
        for (size_t c = 0; c < C; ++c) {
            columns[c] = load(panels + c * panel_stride + i * lanes);
        }
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            const Floats value = set(rows[r * row_stride + i]);
            GTE_UNROLL
            for (size_t c = 0; c < C; ++c) {
                sums[r][c] = fma(value, columns[c], sums[r][c]);
            }
        }
    }
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        GTE_UNROLL
        for (size_t c = 0; c < C; ++c) {
            store(out + r * out_stride + c * lanes, sums[r][c]);
        }
    }
}

// A tile of R rows or fewer.
template <size_t R, size_t C>
GTE_INLINE void multiply_rows(size_t row_count, const Product& product, size_t row, size_t panel, size_t first_input,
                              size_t count) {
    if (row_count == R) {
        multiply_tile<R, C>(product, row, panel, first_input, count);
    } else if constexpr (R > 1) {
        multiply_rows<R - 1, C>(row_count, product, row, panel, first_input, count);
    }
}

// The panels from `panel` on, C at a time, then fewer at a time.
template <size_t C>
void multiply_panels(const Product& product, size_t panel, size_t first_input, size_t count) {
    for (; panel + C <= product.panel_count; panel += C) {
        for (size_t row = 0; row < product.row_count;) {
            const size_t height = tile_height(product.row_count - row, float_rows, 1);
            multiply_rows<float_rows, C>(height, product, row, panel, first_input, count);
            row += height;
        }
    }
    if constexpr (C > 1) {
        multiply_panels<C / 2>(product, panel, first_input, count);
    }
}

void multiply(const Product& product) {
    for (size_t first = 0; first < product.input_count; first += block_inputs) {
        const size_t rest = product.input_count - first;
        multiply_panels<float_columns>(product, 0, first, rest < block_inputs ? rest : block_inputs);
    }
}

}  // namespace
}  // namespace gte
