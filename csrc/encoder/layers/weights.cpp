#include "encoder/layers/weights.hpp"

namespace gte {

Linear make_linear(const int8_t* weights, const float* scales, const float* bias, const float* smoothing,
                   size_t input_count, size_t output_count, bool shifted) {
    Linear linear;
    linear.input_count = input_count;
    linear.output_count = output_count;
    linear.shifted = shifted;
    linear.scales.assign(scales, scales + output_count);
    linear.bias.assign(bias, bias + output_count);
    linear.smoothing.assign(smoothing, smoothing + input_count);
    linear.weights.resize(input_count * output_count);
    linear.weight_sums.assign(output_count, 0);
    for (size_t input = 0; input < input_count; ++input) {
        const int8_t* row = weights + input * output_count;
        for (size_t output = 0; output < output_count; ++output) {
            const size_t block = output / lanes * lanes * input_count,
                         word = input / inputs_per_word * inputs_per_word * lanes;
            linear.weights[block + word + output % lanes * inputs_per_word + input % inputs_per_word] = row[output];
            linear.weight_sums[output] += row[output];
        }
    }
    return linear;
}

}  // namespace gte
