// The attention of a text's tokens to each other (Vaswani et al. 2017), head by head:
// softmax(queries keys^T / sqrt(head) + biases) values. Some rows attend together, so that keys and values are read
// once for all of them.
#pragma once

#include "encoder/layers/functions.hpp"
#include "encoder/layers/positions.hpp"
#include "encoder/layers/product.hpp"
#include "encoder/layers/weights.hpp"
#include "encoder/layers/workspace.hpp"

namespace gte {
namespace {

// Less than any score. What it stands for gets no weight.
constexpr float no_score = -3e38f;

size_t rounded_up(size_t count) { return (count + lanes - 1) / lanes * lanes; }

// One head of one text. Queries are read where they are; keys and values lie in panels.
struct Head {
    size_t index, width, count;
    const float* queries;  // (count), each at a distance of 3 attention_width
    float* keys;           // [key / 16][width][16], zeros behind the last key
    float* values;         // [width / 16][key][16]
    float* scores;         // (attention_rows, keys rounded up)
};

void pack_keys_and_values(const Head& head, size_t attention_width) {
    const size_t stride = 3 * attention_width;
    const float* keys = head.queries + attention_width;
    const float* values = head.queries + 2 * attention_width;
    for (size_t block = 0; block < head.count; block += lanes) {
        float* panel = head.keys + block * head.width;
        const size_t count = head.count - block < lanes ? head.count - block : lanes;
        for (size_t d = 0; d < head.width; ++d) {
            for (size_t key = 0; key < count; ++key) {
                panel[d * lanes + key] = keys[(block + key) * stride + d];
            }
            for (size_t key = count; key < lanes; ++key) {
                panel[d * lanes + key] = 0.0f;
            }
        }
    }
    for (size_t d = 0; d < head.width; d += lanes) {
        for (size_t key = 0; key < head.count; ++key) {
            store(head.values + (d * head.count) + key * lanes, load(values + key * stride + d));
        }
    }
}

// Scales the scores (stride) and adds the biases, where there are some. Returns the largest.
float finish_scores(float* scores, size_t stride, float scale, const float* biases) {
    const Floats factor = set(scale);
    Floats largest = set(no_score);
    if (biases == nullptr) {
        for (size_t i = 0; i < stride; i += lanes) {
            const Floats score = mul(load(scores + i), factor);
            store(scores + i, score);
            largest = max(largest, score);
        }
    } else {
        for (size_t i = 0; i < stride; i += lanes) {
            const Floats score = add(mul(load(scores + i), factor), load(biases + i));
            store(scores + i, score);
            largest = max(largest, score);
        }
    }
    return largest_lane(largest);
}

// Replaces scores [first, last) of the stride by their exponentials and the others by 0. Returns the sum.
float exponentiate(float* scores, size_t first, size_t last, size_t stride, float scale, const float* biases) {
    std::fill(scores, scores + first, no_score);
    std::fill(scores + last, scores + stride, no_score);
    const Floats top = set(finish_scores(scores, stride, scale, biases));
    for (size_t i = 0; i < stride; i += lanes) {
        store(scores + i, exponential(sub(load(scores + i), top)));
    }
    std::fill(scores, scores + first, 0.0f);
    std::fill(scores + last, scores + stride, 0.0f);
    Floats total = zero_floats();
    for (size_t i = 0; i < stride; i += lanes) {
        total = add(total, load(scores + i));
    }
    return sum_of_lanes(total);
}

// Rows [first, first + row_count) of the context of a head. They look at the keys [begin, end), each within its window.
void attend_rows(const Encoder& encoder, const Head& head, size_t window, size_t first, size_t row_count,
                 float* context) {
    const size_t all = encoder.attention_width, reach = window == 0 ? head.count : window;
    const size_t begin = first > reach ? (first - reach) / lanes * lanes : 0;
    const size_t end = head.count - first < row_count + reach ? head.count : first + row_count + reach;
    const size_t stride = rounded_up(end - begin);
    float* out = context + first * all + head.index * head.width;
    multiply({head.queries + first * 3 * all, 3 * all, row_count, head.keys + begin * head.width, lanes * head.width,
              stride / lanes, head.width, nullptr, head.scores, stride});
    float totals[attention_rows];
    for (size_t r = 0; r < row_count; ++r) {
        const size_t query = first + r;
        const size_t lowest = query > reach ? query - reach : 0;
        const size_t highest = head.count - query <= reach ? head.count : query + reach + 1;
        const float* biases = relative_biases(encoder, head.index, query);
        totals[r] = exponentiate(head.scores + r * stride, lowest > begin ? lowest - begin : 0, highest - begin, stride,
                                 1.0f / std::sqrt(static_cast<float>(encoder.dim / encoder.heads)),
                                 biases == nullptr ? nullptr : biases + begin);
    }
    multiply({head.scores, stride, row_count, head.values + begin * lanes, lanes * head.count, head.width / lanes,
              end - begin, nullptr, out, all});
    for (size_t r = 0; r < row_count; ++r) {
        const Floats share = set(1.0f / totals[r]);
        for (size_t d = 0; d < head.width; d += lanes) {
            store(out + r * all + d, mul(load(out + r * all + d), share));
        }
    }
}

void attend_head(const Encoder& encoder, const Layer& layer, size_t index, const float* rows, size_t count,
                 float* scratch, float* context) {
    const size_t width = encoder.attention_width / encoder.heads;
    float* values = scratch + rounded_up(count) * width;
    const Head head{index, width, count, rows + index * width, scratch, values, values + count * width};
    pack_keys_and_values(head, encoder.attention_width);
    for (size_t first = 0; first < count; first += attention_rows) {
        const size_t row_count = count - first < attention_rows ? count - first : attention_rows;
        attend_rows(encoder, head, layer.window, first, row_count, context);
    }
}

// context (count, attention_width) of one text from its rows of queries, keys and values (count, 3 attention_width),
// which rotary positions change.
void attend(const Encoder& encoder, const Layer& layer, Workspace& space, float* rows, size_t count, float* context) {
    if (layer.rotary != nullptr) {
        turn_queries_and_keys(encoder, *layer.rotary, count, space.attention.data(), rows);
    }
    share(space.crew, encoder.heads, [&](size_t index, size_t member) {
        attend_head(encoder, layer, index, rows, count, space.attention.data() + member * space.attention_stride,
                    context);
    });
}

}  // namespace
}  // namespace gte
