// The forward pass, included once by each instruction set after it has defined 16 lanes of floats and a tile of dot
// products:
//
//   Floats  load store zero_floats set add sub mul div fma min max absolute nearest power_of_two load_int8 load_sums
//           store_codes
//   Code    what a code is multiplied as: uint8_t, or a wider integer where bytes cannot be multiplied exactly
//   dot_tile<R>(a, a_stride, b, b_stride, input_count, start, sums)   R rows of `a` times tile_columns blocks of 16
//           columns of `b`, each row plus `start` (tile_columns * 16); sums is (R, tile_columns * 16)
//   widen_weights(weights, input_count, out)   where a code is wider than a byte: a block of `b` as dot_tile reads it
//   tile_rows, tile_columns, activation_bias
//   row_step   tiles have a multiple of so many rows; where it is not 1, they may reach beyond the last row of `a`
//   float_rows, float_columns   rows and panels of a tile of floats: as many sums as the registers hold
//
// A sum over a row goes lane by lane and then over the lanes from first to last, in every instruction set.
#ifndef GTE_INSTRUCTION_SET
#error "included by encoder_<instruction set>.cpp only"
#endif

#include "encoder/layers/attention.hpp"
#include "encoder/layers/embeddings.hpp"
#include "encoder/layers/feed_forward.hpp"
#include "encoder/layers/functions.hpp"
#include "encoder/layers/linear.hpp"
#include "encoder/layers/norm.hpp"
#include "encoder/layers/pooling.hpp"

namespace gte {
namespace {

void run_layer(const Encoder& encoder, const Layer& layer, Workspace& space, const int64_t* starts, size_t text_count) {
    const size_t hidden = encoder.hidden, attended = encoder.attention_width;
    const size_t row_count = static_cast<size_t>(starts[text_count] - starts[0]);
    float* rows = space.hidden.data();
    float* query_key_value = space.query_key_value.data();
    float* context = space.context.data();
    apply_to_hidden(encoder, layer.attention_norm, layer.query_key_value, space, rows, row_count, query_key_value);
    for (size_t text = 0; text < text_count; ++text) {
        const size_t first = static_cast<size_t>(starts[text] - starts[0]);
        attend(encoder, layer, space, query_key_value + first * 3 * attended,
               static_cast<size_t>(starts[text + 1] - starts[text]), context + first * attended);
    }
    float* change = query_key_value;  // which nobody reads any more
    apply(layer.attention_output, space, context, attended, row_count, change, [](size_t) {});
    add_change(encoder, layer.attention_norm, change, row_count, rows);
    for (size_t first = 0; first < row_count; first += feed_forward_rows) {
        const size_t count = row_count - first < feed_forward_rows ? row_count - first : feed_forward_rows;
        float* part = rows + first * hidden;
        feed_forward(encoder, layer, space, part, count, change);
        add_change(encoder, layer.feed_forward_norm, change, count, part);
    }
}

void encode_batch(const Encoder& encoder, Workspace& space, const int32_t* token_ids, const int64_t* starts,
                  size_t text_count, Output output, float* out) {
    const size_t hidden = encoder.hidden, row_count = static_cast<size_t>(starts[text_count] - starts[0]);
    if (encoder.is_table()) {
        if (encoder.token_codes != nullptr) {
            pool_embeddings(encoder, TokenCodes{encoder}, space, token_ids, starts, text_count, out);
        } else {
            pool_embeddings(encoder, TokenFloats{encoder}, space, token_ids, starts, text_count, out);
        }
        return;
    }
    embed(encoder, space, token_ids, starts, text_count);
    for (const Layer& layer : encoder.layers) {
        run_layer(encoder, layer, space, starts, text_count);
    }
    float* rows = space.hidden.data();
    if (!encoder.final_norm.is_identity()) {
        normalize_rows(rows, row_count, hidden, encoder.final_norm, encoder.epsilon);
    }
    if (output == Output::token_states) {
        for (size_t row = 0; row < row_count; ++row) {
            std::copy_n(rows + row * hidden, encoder.dim, out + row * encoder.dim);
        }
    }
    if (output != Output::text_vectors) {
        return;
    }
    for (size_t text = 0; text < text_count; ++text) {
        const size_t first = static_cast<size_t>(starts[text] - starts[0]);
        pool(encoder, space, rows + first * hidden, static_cast<size_t>(starts[text + 1] - starts[text]),
             out + text * encoder.dim);
    }
}

void help_with_batch(Crew& crew, size_t member) { crew.help(member); }

}  // namespace
}  // namespace gte
