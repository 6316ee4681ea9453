// The attention of a text's tokens to each other, head by head. A few rows attend together, so that keys and values are
// read once for all of them.
#pragma once

#include "encoder/layers/functions.hpp"
#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

// scores (R, key_stride) = queries (R, head) times keys, which are transposed: (head, key_stride).
template <size_t R>
GTE_INLINE void score_rows(const float* queries, size_t query_stride, const float* keys, size_t key_stride, size_t head,
                           float scale, float* scores) {
    for (size_t key = 0; key < key_stride; key += lanes) {
        Floats sums[R];
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            sums[r] = zero_floats();
        }
        for (size_t d = 0; d < head; ++d) {
            const Floats column = load(keys + d * key_stride + key);
            GTE_UNROLL
            for (size_t r = 0; r < R; ++r) {
                sums[r] = fma(set(queries[r * query_stride + d]), column, sums[r]);
            }
        }
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            store(scores + r * key_stride + key, mul(sums[r], set(scale)));
        }
    }
}

// Replaces a row of scores by their exponentials and returns the sum. Values beyond `count` become 0.
float exponentiate_row(float* scores, size_t count, size_t stride) {
    for (size_t i = count; i < stride; ++i) {
        scores[i] = -3e38f;
    }
    Floats largest = load(scores);
    for (size_t i = lanes; i < stride; i += lanes) {
        largest = max(largest, load(scores + i));
    }
    const Floats top = set(largest_lane(largest));
    Floats total = zero_floats();
    for (size_t i = 0; i < stride; i += lanes) {
        const Floats weight = exponential(sub(load(scores + i), top));
        store(scores + i, weight);
    }
    for (size_t i = count; i < stride; ++i) {
        scores[i] = 0.0f;
    }
    for (size_t i = 0; i < stride; i += lanes) {
        total = add(total, load(scores + i));
    }
    return sum_of_lanes(total);
}

template <size_t R>
GTE_INLINE void weigh_values(const float* weights, size_t weight_stride, const float* totals, const float* values,
                             size_t value_stride, size_t count, size_t head, float* out, size_t out_stride) {
    for (size_t d = 0; d < head; d += lanes) {
        Floats sums[R];
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            sums[r] = zero_floats();
        }
        for (size_t i = 0; i < count; ++i) {
            const Floats value = load(values + i * value_stride + d);
            GTE_UNROLL
            for (size_t r = 0; r < R; ++r) {
                sums[r] = fma(set(weights[r * weight_stride + i]), value, sums[r]);
            }
        }
        GTE_UNROLL
        for (size_t r = 0; r < R; ++r) {
            store(out + r * out_stride + d, mul(sums[r], set(1.0f / totals[r])));
        }
    }
}

template <size_t R>
void attend_rows(const Encoder& encoder, const float* rows, size_t first, size_t count, size_t head_offset,
                 const float* keys, size_t key_stride, float* scores, float* context) {
    const size_t hidden = encoder.hidden, head = hidden / encoder.heads, stride = 3 * hidden;
    score_rows<R>(rows + first * stride + head_offset, stride, keys, key_stride, head,
                  1.0f / std::sqrt(static_cast<float>(head)), scores);
    float totals[R];
    GTE_UNROLL
    for (size_t r = 0; r < R; ++r) {
        totals[r] = exponentiate_row(scores + r * key_stride, count, key_stride);
    }
    weigh_values<R>(scores, key_stride, totals, rows + 2 * hidden + head_offset, stride, count, head,
                    context + first * hidden + head_offset, hidden);
}

// context (count, hidden) of one text from its rows of queries, keys and values (count, 3 hidden).
void attend(const Encoder& encoder, const float* rows, size_t count, float* scratch, float* context) {
    const size_t hidden = encoder.hidden, head = hidden / encoder.heads;
    const size_t key_stride = (count + lanes - 1) / lanes * lanes;
    float* keys = scratch;
    float* scores = scratch + head * key_stride;
    for (size_t head_offset = 0; head_offset < hidden; head_offset += head) {
        for (size_t d = 0; d < head; ++d) {
            for (size_t i = 0; i < count; ++i) {
                keys[d * key_stride + i] = rows[i * 3 * hidden + hidden + head_offset + d];
            }
            for (size_t i = count; i < key_stride; ++i) {
                keys[d * key_stride + i] = 0.0f;
            }
        }
        size_t first = 0;
        for (; first + attention_rows <= count; first += attention_rows) {
            attend_rows<attention_rows>(encoder, rows, first, count, head_offset, keys, key_stride, scores, context);
        }
        for (; first < count; ++first) {
            attend_rows<1>(encoder, rows, first, count, head_offset, keys, key_stride, scores, context);
        }
    }
}

}  // namespace
}  // namespace gte
