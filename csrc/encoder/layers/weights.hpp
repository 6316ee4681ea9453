// The weights of an encoder: tables, linear layers in int8, norms. They are plain arrays in the order in which the
// kernels of every instruction set read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gte {

// GELU's least output, negated. Added to an output, which is then never negative, so that all 256 codes of uint8 are
// used. Exported graphs hold it too: export/graphs/quantize.py reads it from here.
constexpr double gelu_shift = 0.17004;
// Every sum of floats runs in this many lanes. A 32-bit word holds the codes of four inputs.
constexpr size_t lanes = 16, inputs_per_word = 4;
// Every width is a multiple of this; the width of a head and of a table is a multiple of `lanes`.
constexpr size_t width_unit = 64;
// Sums of this many products of codes and weights stay within 32 bits.
constexpr size_t most_inputs = 65536;

enum class Pooling { mean, cls, last_token };

// y = x W + bias. x is quantized as the model runs: each column is multiplied by its smoothing factor, then each row
// gets a scale of its own.
struct Linear {
    size_t input_count = 0, output_count = 0;
    // Whether x is a GELU's output with gelu_shift added, which is never negative: its codes are 0 .. 255, else -127 ..
    // 127.
    bool shifted = false;
    std::vector<int8_t> weights;       // [output / 16][input / 4][16][4]
    std::vector<int32_t> weight_sums;  // of each output's column
    std::vector<float> scales, bias;   // of each output
    std::vector<float> smoothing;      // of each input
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
    const int8_t* token_embeddings = nullptr;  // (vocabulary, hidden), borrowed
    std::vector<float> token_scales;           // (vocabulary)
    std::vector<float> positions;  // (position_count, hidden), the row of token type 0 added; empty in a table
    Norm embedding_norm;
    std::vector<Layer> layers;

    bool is_table() const { return positions.empty(); }
};

// Takes row-major weights (input_count, output_count). The caller has checked the widths.
Linear make_linear(const int8_t* weights, const float* scales, const float* bias, const float* smoothing,
                   size_t input_count, size_t output_count, bool shifted);

}  // namespace gte
