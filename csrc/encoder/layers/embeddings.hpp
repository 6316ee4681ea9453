// The first hidden states: each token's embedding, and its position's.
#pragma once

#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

void look_up(const Encoder& encoder, const int32_t* token_ids, const int64_t* starts, size_t text_count,
             float* hidden_rows) {
    const size_t hidden = encoder.hidden;
    for (size_t text = 0; text < text_count; ++text) {
        for (int64_t token = starts[text]; token < starts[text + 1]; ++token) {
            const size_t id = static_cast<size_t>(token_ids[token]),
                         position = static_cast<size_t>(token - starts[text]);
            const Floats scale = set(encoder.token_scales[id]);
            float* row = hidden_rows + static_cast<size_t>(token - starts[0]) * hidden;
            for (size_t i = 0; i < hidden; i += lanes) {
                store(row + i, fma(load_int8(encoder.token_embeddings + id * hidden + i), scale,
                                   load(encoder.positions.data() + position * hidden + i)));
            }
        }
    }
}

}  // namespace
}  // namespace gte
