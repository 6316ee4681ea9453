// The forward pass, included once by each instruction set after it has defined 16 lanes of floats and a tile of dot
// products:
//
//   Floats  load store zero_floats set add sub mul div fma min max absolute nearest power_of_two load_int8 load_sums
//           store_uint8
//   dot_tile<R>(a, a_stride, b, b_stride, input_count, start, sums)   R rows of `a` times tile_columns blocks of 16
//           columns of `b`, each row plus `start` (tile_columns * 16); sums is (R, tile_columns * 16)
//   tile_rows, tile_columns, attention_rows, activation_bias
//   last_rows   of the tiles for what tile_rows leaves over; where it is not 1, they may reach beyond the last row of
//   `a`
//
// A sum over a row goes lane by lane and then over the lanes from first to last, in every instruction set.
#ifndef GTE_INSTRUCTION_SET
#error "included by bert_<instruction set>.cpp only"
#endif

#include "encoder/layers/attention.hpp"
#include "encoder/layers/embeddings.hpp"
#include "encoder/layers/functions.hpp"
#include "encoder/layers/linear.hpp"
#include "encoder/layers/norm.hpp"
#include "encoder/layers/pooling.hpp"

namespace gte {
namespace {

void run_layer(const Encoder& encoder, const Layer& layer, Workspace& space, const int64_t* starts, size_t text_count) {
    const size_t hidden = encoder.hidden, row_count = static_cast<size_t>(starts[text_count] - starts[0]);
    float* rows = space.hidden.data();
    float* context = space.context.data();
    float* row_scales = space.row_scales.data();
    uint8_t* codes = space.codes.data();
    quantize_rows(rows, row_count, layer.query_key_value, codes, row_scales);
    apply_linear<Then::nothing>(layer.query_key_value, codes, row_scales, row_count, space.query_key_value.data());
    for (size_t text = 0; text < text_count; ++text) {
        const size_t first = static_cast<size_t>(starts[text] - starts[0]);
        attend(encoder, space.query_key_value.data() + first * 3 * hidden,
               static_cast<size_t>(starts[text + 1] - starts[text]), space.attention.data(), context + first * hidden);
    }
    quantize_rows(context, row_count, layer.attention_output, codes, row_scales);
    apply_linear<Then::nothing>(layer.attention_output, codes, row_scales, row_count, context);
    add_and_normalize(rows, context, row_count, hidden, layer.attention_norm, encoder.epsilon);
    for (size_t first = 0; first < row_count; first += feed_forward_rows) {
        const size_t count = row_count - first < feed_forward_rows ? row_count - first : feed_forward_rows;
        float* part = rows + first * hidden;
        quantize_rows(part, count, layer.intermediate, codes, row_scales);
        apply_linear<Then::gelu>(layer.intermediate, codes, row_scales, count, space.wide.data());
        quantize_rows(space.wide.data(), count, layer.output, codes, row_scales);
        apply_linear<Then::nothing>(layer.output, codes, row_scales, count, context);
        add_and_normalize(part, context, count, hidden, layer.output_norm, encoder.epsilon);
    }
}

void encode_batch(const Encoder& encoder, Workspace& space, const int32_t* token_ids, const int64_t* starts,
                  size_t text_count, Output output, float* out) {
    const size_t hidden = encoder.hidden, row_count = static_cast<size_t>(starts[text_count] - starts[0]);
    if (encoder.is_table()) {
        for (size_t text = 0; text < text_count; ++text) {
            const size_t count = static_cast<size_t>(starts[text + 1] - starts[text]);
            store_unit_mean(hidden, count, EmbeddingSums{encoder, token_ids + starts[text], count},
                            out + text * hidden);
        }
        return;
    }
    look_up(encoder, token_ids, starts, text_count, space.hidden.data());
    std::memset(space.context.data(), 0, row_count * hidden * sizeof(float));
    add_and_normalize(space.hidden.data(), space.context.data(), row_count, hidden, encoder.embedding_norm,
                      encoder.epsilon);
    for (const Layer& layer : encoder.layers) {
        run_layer(encoder, layer, space, starts, text_count);
    }
    if (output == Output::token_states) {
        std::memcpy(out, space.hidden.data(), row_count * hidden * sizeof(float));
        return;
    }
    for (size_t text = 0; text < text_count; ++text) {
        const size_t first = static_cast<size_t>(starts[text] - starts[0]);
        pool(encoder, space.hidden.data() + first * hidden, static_cast<size_t>(starts[text + 1] - starts[text]),
             out + text * hidden);
    }
}

}  // namespace
}  // namespace gte
