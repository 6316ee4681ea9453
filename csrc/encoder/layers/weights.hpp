// What an encoder is made of: tables, linear layers on int8 weights, norms. Plain arrays, in the order in which the kernels of
// every instruction set read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gte {

constexpr float gelu_minimum = 0.17004f;  // as export/graphs/quantize.py has it
constexpr size_t lanes = 16, inputs_per_step = 4;
// Every width has to be a multiple of this, that of a head or a table of `lanes`.
constexpr size_t width_step = 64;

enum class Pooling { mean, cls, last_token };

// y = x W + bias. x is quantized when it is known: one scale a row, after each of its columns was multiplied by `level`.
struct Linear {
    size_t input_count = 0, output_count = 0;
    // Whether x is a GELU's output raised by gelu_minimum, which is never negative: 0 .. 255 instead of -127 .. 127.
    bool raised = false;
    std::vector<int8_t> weights;          // [output / 16][input / 4][16][4]
    std::vector<int32_t> weight_sums;     // of each output's column
    std::vector<float> scales, bias;      // of each output
    std::vector<float> level;             // of each input
};

struct Norm {
    std::vector<float> weight, bias;
};

struct Layer {
    Linear query_key_value, attention_output, intermediate, output;
    Norm attention_norm, output_norm;
};

struct Encoder {
    size_t hidden = 0, heads = 0, vocabulary = 0, position_count = 0;
    float epsilon = 0;
    Pooling pooling = Pooling::mean;
    const int8_t* words = nullptr;        // (vocabulary, hidden), borrowed
    std::vector<float> word_scales;       // (vocabulary)
    std::vector<float> positions;         // (position_count, hidden), the row of token type 0 added; empty in a table
    Norm embedding_norm;
    std::vector<Layer> layers;

    bool is_table() const { return positions.empty(); }
};

// Takes (input_count, output_count) row-major weights; the caller has checked the widths.
Linear make_linear(const int8_t* weights, const float* scales, const float* bias, const float* level, size_t input_count,
                   size_t output_count, bool raised);

}  // namespace gte
