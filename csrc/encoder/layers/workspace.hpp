// What a batch goes through the encoder with: the threads that share its work, and buffers, which only grow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encoder/layers/weights.hpp"
#include "machine/aligned.hpp"
#include "machine/crew.hpp"

namespace gte {

// Rows that go through the feed-forward pair together: what lies between the two stays in the second-level cache.
constexpr size_t feed_forward_rows = 96;
// Rows of a text that attend together.
constexpr size_t attention_rows = 24;
// Rows behind the last one that a tile of AMX may read; it ignores them.
constexpr size_t spare_rows = 15;

struct Workspace {
    Crew& crew;
    explicit Workspace(Crew& given_crew) : crew(given_crew) {}

    Aligned<float> hidden;           // (rows, hidden), what goes from layer to layer
    Aligned<float> query_key_value;  // (rows, 3 attention_width); also what a part of a layer adds to hidden
    Aligned<float> context;          // (rows, attention_width); also normalized hidden states
    Aligned<float> wide;             // (feed_forward_rows, outputs of feed_forward_in)
    Aligned<float> attention;        // for each member of the crew: keys, values and scores of one head
    size_t attention_stride = 0;     // from one member's to the next
    Aligned<float> vector;           // (hidden), of a text
    Aligned<uint8_t> codes;          // what an int8 layer reads, in one byte or two
    Aligned<uint8_t> weights;        // for each member of the crew: a panel of int8 weights that were widened
    size_t weights_stride = 0;       // from one member's to the next, in weights
    std::vector<float> row_scales;   // of the codes
    std::vector<float> maxima;       // (channel_count) of the encoder; empty where nobody asks

    void make_room(const Encoder& encoder, size_t code_bytes, size_t row_count, size_t longest_text);
};

}  // namespace gte
