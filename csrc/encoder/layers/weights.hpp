// The weights of an encoder: tables, linear layers in fp32 or int8, norms. They are plain arrays in the order in which
// the kernels of every instruction set read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "machine/aligned.hpp"

namespace gte {

// GELU's least output, negated. Added to an output, which is then never negative, so that all 256 codes of uint8 are
// used. Exported graphs hold it too: export/graphs/quantize.py reads it from here.
constexpr double gelu_shift = 0.17004;
// Every sum of floats runs in this many lanes. A 32-bit word holds the codes of four inputs.
constexpr size_t lanes = 16, inputs_per_word = 4;
// Every width in memory is a multiple of this; the width of a head and of a table is a multiple of `lanes`. A model of
// other widths is padded with zeros, which change no sum; norms and the scale of attention know the model's own widths.
constexpr size_t width_unit = 64;
// Sums of this many products of codes and weights stay within 32 bits.
constexpr size_t most_inputs = 65536;

enum class Pooling { mean, cls, last_token };
enum class Activation { gelu, gelu_tanh, relu, silu };

// How the values of a vector lie in memory: parts of equal width, each of which is padded with zeros.
struct Layout {
    size_t parts, width, padded_width;

    Layout(size_t count) : Layout(1, count, count) {}  // without padding
    Layout(size_t part_count, size_t own_width, size_t padded)
        : parts(part_count), width(own_width), padded_width(padded) {}

    size_t count() const { return parts * width; }
    size_t padded_count() const { return parts * padded_width; }
    size_t place(size_t i) const { return i / width * padded_width + i % width; }
};

// y = x W + bias, in fp32 or int8. In int8, x is quantized as the model runs: each column is multiplied by its
// smoothing factor, then each row gets a scale of its own.
struct Linear {
    Layout inputs = 0;
    size_t input_count = 0, output_count = 0;  // padded
    std::vector<float> bias;                   // of each output
    size_t first_channel = 0;  // of its inputs, among the inputs of all linear layers of an encoder's layers

    Aligned<float> panels;  // [output / 16][input][16]; empty in int8

    Aligned<int8_t> codes;             // [output / 16][input / 4][16][4]
    std::vector<int32_t> weight_sums;  // of each output's column of codes
    std::vector<float> scales;         // of each output
    std::vector<float> smoothing;      // of each input
    // Whether x is a GELU's output with gelu_shift added, which is never negative: its codes are 0 .. 255, else -127 ..
    // 127.
    bool shifted = false;

    bool is_int8() const { return panels.empty(); }
};

struct Norm {
    std::vector<float> weight, bias;  // padded
    size_t width = 0;                 // without the padding

    bool is_identity() const { return weight.empty(); }
};

// Angles are kept of so many positions: 4 MB for heads of 64. Those of later ones are made when a text has them.
constexpr size_t kept_positions = 8192;

// The angles of rotary positions. A row is of a position: the cosine for each value of a head, then what its partner in
// the other half of the head is multiplied by: the sine, negative in the first half.
struct Rotary {
    std::vector<float> frequencies;  // (head / 2)
    std::vector<float> rows;         // (positions, 2, head), of the first ones, at most kept_positions
};

struct Layer {
    Linear query_key_value, attention_output;
    // Gated, feed_forward_in has twice as many outputs: the activation is applied to the first half, which is then
    // multiplied by the second.
    Linear feed_forward_in, feed_forward_out;
    Norm attention_norm, feed_forward_norm;
    size_t window = 0;                     // a token sees those up to this distance on either side; 0: all
    std::shared_ptr<const Rotary> rotary;  // of several layers
};

struct Encoder {
    size_t dim = 0;                          // of a text's vector and of a token's state
    size_t hidden = 0, embedding_width = 0;  // padded, the first from `dim`
    size_t heads = 0, attention_width = 0;   // of all heads together, each padded from dim / heads
    size_t vocabulary = 0, most_tokens = 0;
    float epsilon = 0;
    Pooling pooling = Pooling::mean;
    Activation activation = Activation::gelu;
    bool norm_first = false;  // x + f(norm(x)) instead of norm(x + f(x))
    bool gated = false;

    // (vocabulary, embedding_width), one of the two, borrowed.
    const int8_t* token_codes = nullptr;
    const float* token_floats = nullptr;
    std::vector<float> token_scales;  // (vocabulary), of the codes
    std::vector<float> positions;     // (most_tokens, embedding_width), the row of token type 0 added; empty: no table
    std::vector<float> token_row;     // (embedding_width), added to each embedding where there is no table of positions
    // RoBERTa's rule: this token, wherever it stands, has a row (embedding_width) of its own and is not counted. -1:
    // none.
    int64_t padding_token = -1;
    std::vector<float> padding_row;
    Norm embedding_norm;
    Linear projection;  // from embedding_width to hidden; without outputs where there is none
    // Added to the scaled scores, [head][key - query + most_tokens - 1]; each head's row has `bias_stride` values, so
    // that 16 may be read from the last one on. Empty where there is none.
    std::vector<float> relative_bias;
    std::vector<Layer> layers;
    Norm final_norm;
    size_t channel_count = 0;  // inputs of all linear layers of all layers

    size_t bias_stride() const { return 2 * most_tokens - 1 + lanes; }
    // Without layers it is a table of tokens, and a text's vector is the mean of its rows.
    bool is_table() const {
        return layers.empty() && positions.empty() && embedding_norm.is_identity() && final_norm.is_identity() &&
               projection.output_count == 0;
    }
};

// Takes weights as PyTorch stores them (outputs, inputs), without padding. bias may be null. The caller has checked the
// widths.
Linear make_linear(const float* weights, const float* bias, const Layout& inputs, const Layout& outputs);

// Takes row-major codes (inputs, outputs), without padding. The caller has checked the widths.
Linear make_int8_linear(const int8_t* codes, const float* scales, const float* bias, const float* smoothing,
                        const Layout& inputs, const Layout& outputs, bool shifted);

Rotary make_rotary(const float* frequencies, size_t head, size_t most_tokens);

// row (2, head) of a position. Its angle is float(position) * frequency, rounded to float, as PyTorch's models have it.
void write_rotary_row(const float* frequencies, size_t head, size_t position, float* row);

}  // namespace gte
