// The first hidden states: each token's embedding, and its position's.
#pragma once

#include "encoder/layers/linear.hpp"
#include "encoder/layers/norm.hpp"
#include "encoder/layers/weights.hpp"
#include "encoder/layers/workspace.hpp"

namespace gte {
namespace {

// Embeddings of tokens in int8 and in fp32.
struct TokenCodes {
    const Encoder& encoder;

    GTE_INLINE Floats add_to(Floats sum, size_t id, size_t i) const {
        return fma(load_int8(encoder.token_codes + id * encoder.embedding_width + i), set(encoder.token_scales[id]),
                   sum);
    }
};

struct TokenFloats {
    const Encoder& encoder;

    GTE_INLINE Floats add_to(Floats sum, size_t id, size_t i) const {
        return add(load(encoder.token_floats + id * encoder.embedding_width + i), sum);
    }
};

template <typename Tokens>
void look_up(const Encoder& encoder, const Tokens& tokens, const int32_t* token_ids, const int64_t* starts,
             size_t text_count, float* rows) {
    const bool same_row = encoder.positions.empty();
    const float* position_rows = same_row ? encoder.token_row.data() : encoder.positions.data();
    const size_t width = encoder.embedding_width, position_stride = same_row ? 0 : width;
    for (size_t text = 0; text < text_count; ++text) {
        const float* next_position = position_rows;
        for (int64_t token = starts[text]; token < starts[text + 1]; ++token, rows += width) {
            const size_t id = static_cast<size_t>(token_ids[token]);
            const bool is_padding = token_ids[token] == encoder.padding_token;
            const float* position = is_padding ? encoder.padding_row.data() : next_position;
            next_position += is_padding ? 0 : position_stride;
            for (size_t i = 0; i < width; i += lanes) {
                store(rows + i, tokens.add_to(load(position + i), id, i));
            }
        }
    }
}

void embed(const Encoder& encoder, Workspace& space, const int32_t* token_ids, const int64_t* starts,
           size_t text_count) {
    const size_t row_count = static_cast<size_t>(starts[text_count] - starts[0]), width = encoder.embedding_width;
    const bool projected = encoder.projection.output_count > 0;
    float* rows = projected ? space.query_key_value.data() : space.hidden.data();
    if (encoder.token_codes != nullptr) {
        look_up(encoder, TokenCodes{encoder}, token_ids, starts, text_count, rows);
    } else {
        look_up(encoder, TokenFloats{encoder}, token_ids, starts, text_count, rows);
    }
    if (!encoder.embedding_norm.is_identity()) {
        normalize_rows(rows, row_count, width, encoder.embedding_norm, encoder.epsilon);
    }
    if (projected) {
        multiply_floats(encoder.projection, rows, width, row_count, 0, encoder.hidden, space.hidden.data());
    }
}

}  // namespace
}  // namespace gte
