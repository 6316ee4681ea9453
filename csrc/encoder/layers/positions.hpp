// Positions inside of attention: rotary ones (Su et al. 2021) turn queries and keys, relative ones (Shaw et al. 2018,
// as T5 and MPNet have them) add a bias to the scores.
#pragma once

#include <cstring>

#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

// Turns one head of a query or key. Value i and value i + head / 2 are the two coordinates of a plane.
// partners: (head), scratch.
GTE_INLINE void turn(const float* cosines, size_t head, float* partners, float* values) {
    const size_t half = head / 2;
    const float* sines = cosines + head;
    std::memcpy(partners, values + half, half * sizeof(float));
    std::memcpy(partners + half, values, half * sizeof(float));
    for (size_t i = 0; i < head; i += lanes) {
        const Floats turned = mul(load(values + i), load(cosines + i));
        store(values + i, fma(load(partners + i), load(sines + i), turned));
    }
}

// Turns all queries and keys of a text, rows (count, 3 attention_width). scratch: (3 head).
void turn_queries_and_keys(const Encoder& encoder, const Rotary& rotary, size_t count, float* scratch, float* rows) {
    const size_t width = encoder.attention_width, head = width / encoder.heads;
    float* own_angles = scratch + head;
    for (size_t position = 0; position < count; ++position) {
        const float* angles = rotary.rows.data() + position * 2 * head;
        if (position >= kept_positions) {
            write_rotary_row(rotary.frequencies.data(), head, position, own_angles);
            angles = own_angles;
        }
        for (size_t offset = 0; offset < 2 * width; offset += head) {
            turn(angles, head, scratch, rows + position * 3 * width + offset);
        }
    }
}

// The biases of a query's scores, in the order of the keys from the text's first; null where there are none.
const float* relative_biases(const Encoder& encoder, size_t head_index, size_t query) {
    if (encoder.relative_bias.empty()) {
        return nullptr;
    }
    return encoder.relative_bias.data() + head_index * encoder.bias_stride() + encoder.most_tokens - 1 - query;
}

}  // namespace
}  // namespace gte
