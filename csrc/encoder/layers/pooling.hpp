// From the last hidden states of a text, or its rows in a table, to one unit vector.
#pragma once

#include "encoder/layers/embeddings.hpp"
#include "encoder/layers/functions.hpp"
#include "encoder/layers/weights.hpp"
#include "encoder/layers/workspace.hpp"

namespace gte {
namespace {

// out (dim) = the unit vector of sums / count; sums_at(i) gives the sums of values i .. i + 15.
template <typename SumsAt>
GTE_INLINE void store_unit_mean(const Encoder& encoder, Workspace& space, size_t count, const SumsAt& sums_at,
                                float* out) {
    const size_t hidden = encoder.hidden;
    float* vector = space.vector.data();
    Floats squares = zero_floats();
    for (size_t i = 0; i < hidden; i += lanes) {
        const Floats mean = div(sums_at(i), set(static_cast<float>(count)));
        store(vector + i, mean);
        squares = fma(mean, mean, squares);
    }
    const Floats length = set(std::fmax(std::sqrt(sum_of_lanes(squares)), 1e-12f));
    for (size_t i = 0; i < hidden; i += lanes) {
        store(vector + i, div(load(vector + i), length));
    }
    std::copy_n(vector, encoder.dim, out);
}

// Sums of rows of `hidden` floats, from their lanes i .. i + 15.
struct RowSums {
    const float* rows;
    size_t hidden, first, last;

    GTE_INLINE Floats operator()(size_t i) const {
        Floats sum = zero_floats();
        for (size_t row = first; row < last; ++row) {
            sum = add(sum, load(rows + row * hidden + i));
        }
        return sum;
    }
};

// Sums of the token embeddings of a text.
template <typename Tokens>
struct EmbeddingSums {
    const Tokens& tokens;
    const int32_t* token_ids;
    size_t count;

    GTE_INLINE Floats operator()(size_t i) const {
        Floats sum = zero_floats();
        for (size_t token = 0; token < count; ++token) {
            sum = tokens.add_to(sum, static_cast<size_t>(token_ids[token]), i);
        }
        return sum;
    }
};

// The unit vectors of texts from the rows of their tokens in a table.
template <typename Tokens>
void pool_embeddings(const Encoder& encoder, const Tokens& tokens, Workspace& space, const int32_t* token_ids,
                     const int64_t* starts, size_t text_count, float* out) {
    for (size_t text = 0; text < text_count; ++text) {
        const size_t count = static_cast<size_t>(starts[text + 1] - starts[text]);
        store_unit_mean(encoder, space, count, EmbeddingSums<Tokens>{tokens, token_ids + starts[text], count},
                        out + text * encoder.dim);
    }
}

// The unit vector of one text from its last hidden rows (count, hidden).
void pool(const Encoder& encoder, Workspace& space, const float* rows, size_t count, float* out) {
    const size_t first = encoder.pooling == Pooling::last_token ? count - 1 : 0;
    const size_t last = encoder.pooling == Pooling::cls ? 1 : count;
    store_unit_mean(encoder, space, last - first, RowSums{rows, encoder.hidden, first, last}, out);
}

}  // namespace
}  // namespace gte
