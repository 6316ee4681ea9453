#include "encoder/layers/weights.hpp"

namespace gte {

Linear make_linear(const float* weights, const float* bias, size_t input_count, size_t output_count) {
    Linear linear;
    linear.input_count = input_count;
    linear.output_count = output_count;
    linear.bias.assign(output_count, 0.0f);
    if (bias != nullptr) {
        linear.bias.assign(bias, bias + output_count);
    }
    linear.panels.resize(input_count * output_count);
    for (size_t block = 0; block < output_count; block += lanes) {
        const float* rows = weights + block * input_count;
        float* panel = linear.panels.data() + block * input_count;
        for (size_t input = 0; input < input_count; ++input) {
            for (size_t lane = 0; lane < lanes; ++lane) {
                panel[input * lanes + lane] = rows[lane * input_count + input];
            }
        }
    }
    return linear;
}

Linear make_int8_linear(const int8_t* codes, const float* scales, const float* bias, const float* smoothing,
                        size_t input_count, size_t output_count, bool shifted) {
    Linear linear;
    linear.input_count = input_count;
    linear.output_count = output_count;
    linear.shifted = shifted;
    linear.scales.assign(scales, scales + output_count);
    linear.bias.assign(bias, bias + output_count);
    linear.smoothing.assign(smoothing, smoothing + input_count);
    linear.codes.resize(input_count * output_count);
    linear.weight_sums.assign(output_count, 0);
    for (size_t input = 0; input < input_count; ++input) {
        const int8_t* row = codes + input * output_count;
        for (size_t output = 0; output < output_count; ++output) {
            const size_t block = output / lanes * lanes * input_count,
                         word = input / inputs_per_word * inputs_per_word * lanes;
            linear.codes[block + word + output % lanes * inputs_per_word + input % inputs_per_word] = row[output];
            linear.weight_sums[output] += row[output];
        }
    }
    return linear;
}

}  // namespace gte
