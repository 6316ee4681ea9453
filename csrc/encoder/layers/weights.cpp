#include "encoder/layers/weights.hpp"

#include <algorithm>

namespace gte {
namespace {

std::vector<float> padded(const float* values, const Layout& layout) {
    std::vector<float> all(layout.padded_count());
    for (size_t part = 0; part < layout.parts; ++part) {
        std::copy_n(values + part * layout.width, layout.width, all.data() + part * layout.padded_width);
    }
    return all;
}

// Where a column begins in blocks of 16 that hold `word` inputs of each column side by side.
std::vector<size_t> column_starts(const Layout& inputs, const Layout& outputs, size_t word) {
    std::vector<size_t> starts(outputs.count());
    for (size_t output = 0; output < starts.size(); ++output) {
        const size_t place = outputs.place(output);
        starts[output] = place / lanes * lanes * inputs.padded_count() + place % lanes * word;
    }
    return starts;
}

}  // namespace

Linear make_linear(const float* weights, const float* bias, const Layout& inputs, const Layout& outputs) {
    Linear linear;
    linear.inputs = inputs;
    linear.input_count = inputs.padded_count();
    linear.output_count = outputs.padded_count();
    linear.bias.assign(linear.output_count, 0.0f);
    if (bias != nullptr) {
        linear.bias = padded(bias, outputs);
    }
    linear.panels.resize(linear.input_count * linear.output_count);
    const std::vector<size_t> columns = column_starts(inputs, outputs, 1);
    for (size_t first = 0; first < columns.size(); first += lanes) {
        const size_t last = std::min(first + lanes, columns.size());
        for (size_t input = 0; input < inputs.count(); ++input) {
            float* panel = linear.panels.data() + inputs.place(input) * lanes;
            for (size_t output = first; output < last; ++output) {
                panel[columns[output]] = weights[output * inputs.count() + input];
            }
        }
    }
    return linear;
}

Linear make_int8_linear(const int8_t* codes, const float* scales, const float* bias, const float* smoothing,
                        const Layout& inputs, const Layout& outputs, bool shifted) {
    Linear linear;
    linear.inputs = inputs;
    linear.input_count = inputs.padded_count();
    linear.output_count = outputs.padded_count();
    linear.shifted = shifted;
    linear.scales = padded(scales, outputs);
    linear.bias = padded(bias, outputs);
    linear.smoothing = padded(smoothing, inputs);
    linear.codes.resize(linear.input_count * linear.output_count);
    std::vector<int32_t> sums(outputs.count());
    const std::vector<size_t> columns = column_starts(inputs, outputs, inputs_per_word);
    for (size_t input = 0; input < inputs.count(); ++input) {
        const int8_t* row = codes + input * outputs.count();
        const size_t place = inputs.place(input);
        int8_t* words =
            linear.codes.data() + place / inputs_per_word * inputs_per_word * lanes + place % inputs_per_word;
        for (size_t output = 0; output < columns.size(); ++output) {
            words[columns[output]] = row[output];
            sums[output] += row[output];
        }
    }
    linear.weight_sums.assign(linear.output_count, 0);
    for (size_t output = 0; output < columns.size(); ++output) {
        linear.weight_sums[outputs.place(output)] = sums[output];
    }
    return linear;
}

}  // namespace gte
