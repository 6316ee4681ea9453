// A BERT encoder on int8 weights: token ids in, one unit vector a text out, or the state of each token. Without layers it is
// a table of tokens, and a text's vector the mean of its rows.
//
// Texts are laid one after another without padding, so a text's vector cannot depend on what else is in the batch. Products of
// integers are exact in any order; every float operation has one fixed order of 16 lanes (bert_forward.hpp) and is rounded
// as IEEE 754 says, fused multiply-adds included. So all variants below give the same bits, on every CPU and thread count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encoder/layers/weights.hpp"

namespace gte {

// How many rows go through the feed-forward pair together: their float intermediate stays in the second cache.
constexpr size_t feed_forward_rows = 96;
// At most so many rows of a text attend together.
constexpr size_t most_attention_rows = 8;
// Rows that a tile of AMX may read, and ignore, behind the last one.
constexpr size_t spare_rows = 15;

// Buffers for the tokens of one batch; they only grow.
struct Workspace {
    std::vector<float> hidden, query_key_value, context, wide, row_scales, attention;
    std::vector<uint8_t> steps;

    void make_room(const Encoder& encoder, size_t row_count, size_t longest_text);
};

enum class Output { text_vectors, token_states };

// Text i has the token_ids at [starts[i], starts[i + 1]). Its unit row goes to out (text_count, hidden), or the last states of
// its tokens, as they are before pooling, to out (token_count, hidden).
using EncodeBatch = void (*)(const Encoder& encoder, Workspace& workspace, const int32_t* token_ids, const int64_t* starts,
                             size_t text_count, Output output, float* out);

struct BertVariant {
    const char* name;
    EncodeBatch encode_batch;
};

// The variants that this CPU and build have, the slowest first.
const std::vector<BertVariant>& bert_variants();

// Cuts the texts into batches of about batch_tokens tokens and shares them among `threads` threads. Each text has 1 to
// position_count tokens (a table has no most), each token is below the vocabulary; the caller has checked it.
void encode(const Encoder& encoder, const BertVariant& variant, const int32_t* token_ids, const int64_t* starts,
            size_t text_count, size_t batch_tokens, size_t threads, Output output, float* out);

}  // namespace gte
