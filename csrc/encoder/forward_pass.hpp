// The forward pass, included once by each variant after it has defined 16 lanes of floats and a tile of dot products:
//
//   Floats  load store zero_floats set add sub mul div fma min max absolute nearest power_of_two load_int8 load_sums
//           store_uint8
//   dot_tile<R>(a, a_stride, b, b_stride, input_count, start, sums)   R rows of `a` times tile_columns blocks of 16
//           columns of `b`, each row plus `start` (tile_columns * 16); sums is (R, tile_columns * 16)
//   tile_rows, tile_columns, attention_rows, activation_bias
//   last_rows   of the tiles for what tile_rows leaves over; where it is not 1, they may reach beyond the last row of `a`
//
// A sum over a row goes lane by lane and then over the lanes from first to last, in every variant.
#ifndef GTE_BERT_VARIANT
#error "included by bert_<variant>.cpp only"
#endif

namespace gte {
namespace {

float sum_of_lanes(Floats value) {
    float lane[lanes];
    store(lane, value);
    float sum = lane[0];
    for (size_t i = 1; i < lanes; ++i) {
        sum += lane[i];
    }
    return sum;
}

float largest_lane(Floats value) {
    float lane[lanes];
    store(lane, value);
    for (size_t half = lanes / 2; half > 0; half /= 2) {
        for (size_t i = 0; i < half; ++i) {
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
        }
    }
    return lane[0];
}

// e^x for x <= 0, at most 2 units in the last place off; 0 to 1e-38 below -87. Polynomial of Cephes' expf.
GTE_INLINE Floats exponential(Floats x) {
    x = max(x, set(-87.0f));
    const Floats power = nearest(mul(x, set(1.44269504f)));
    Floats r = fma(power, set(-0.693359375f), x);
    r = fma(power, set(2.12194440e-4f), r);
    Floats p = set(1.9875691500e-4f);
    p = fma(p, r, set(1.3981999507e-3f));
    p = fma(p, r, set(8.3334519073e-3f));
    p = fma(p, r, set(4.1665795894e-2f));
    p = fma(p, r, set(1.6666665459e-1f));
    p = fma(p, r, set(5.0000001201e-1f));
    p = add(fma(p, mul(r, r), r), set(1.0f));
    return mul(p, power_of_two(power));
}

// x/2 (1 + erf(x / sqrt 2)); erf as the rational function of Eigen (GenericPacketMathFunctions), 5e-7 off at most.
GTE_INLINE Floats gelu(Floats x) {
    const Floats z = max(min(mul(x, set(0.70710678f)), set(4.0f)), set(-4.0f));
    const Floats s = mul(z, z);
    Floats p = set(-2.72614225801306e-10f);
    p = fma(p, s, set(2.77068142495902e-08f));
    p = fma(p, s, set(-2.10102402082508e-06f));
    p = fma(p, s, set(-5.69250639462346e-05f));
    p = fma(p, s, set(-7.34990630326855e-04f));
    p = fma(p, s, set(-2.95459980854025e-03f));
    p = fma(p, s, set(-1.60960333262415e-02f));
    Floats q = set(-1.45660718464996e-05f);
    q = fma(q, s, set(-2.13374055278905e-04f));
    q = fma(q, s, set(-1.68282697438203e-03f));
    q = fma(q, s, set(-7.37332916720468e-03f));
    q = fma(q, s, set(-1.42647390514189e-02f));
    const Floats half = mul(x, set(0.5f));
    return fma(half, div(mul(z, p), q), half);
}

// What is added to the steps as they are stored: VNNI wants them unsigned.
int zero_of(const Linear& linear) {
    return (linear.raised ? 0 : 128) - activation_bias;
}

// One scale a row, so that no other row has a say in it. `values` (row_count, linear.input_count) are left as they are.
void quantize_rows(const float* values, size_t row_count, const Linear& linear, uint8_t* steps, float* row_scales) {
    const size_t width = linear.input_count;
    const float* level = linear.level.data();
    const float step_count = linear.raised ? 255.0f : 127.0f;
    const int zero = zero_of(linear);
    const Floats lift = set(linear.raised ? gelu_minimum : 0.0f);
    for (size_t row = 0; row < row_count; ++row) {
        const float* in = values + row * width;
        Floats magnitude = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            magnitude = max(magnitude, absolute(mul(add(load(in + i), lift), load(level + i))));
        }
        const float scale = std::fmax(largest_lane(magnitude) / step_count, 1e-12f);
        const Floats per_scale = set(1.0f / scale);
        row_scales[row] = scale;
        for (size_t i = 0; i < width; i += lanes) {
            store_uint8(steps + row * width + i, mul(mul(add(load(in + i), lift), load(level + i)), per_scale), zero);
        }
    }
}

enum class Then { nothing, gelu };

// Of the R rows the first `row_count` are finished and stored.
template <size_t R, Then then>
GTE_INLINE void linear_tile(const Linear& linear, const uint8_t* steps, const float* row_scales, size_t row_count, size_t column,
                            const int32_t* start, float* out) {
    const size_t inputs = linear.input_count, outputs = linear.output_count;
    alignas(64) int32_t sums[R * tile_columns * lanes];
    dot_tile<R>(steps, inputs, linear.weights.data() + column * inputs, lanes * inputs, inputs, start, sums);
    GTE_UNROLL
    for (size_t c = 0; c < tile_columns; ++c) {
        const Floats scale = load(linear.scales.data() + column + c * lanes);
        const Floats bias = load(linear.bias.data() + column + c * lanes);
        GTE_UNROLL
        for (size_t r = 0; r < row_count; ++r) {
            Floats value = fma(mul(load_sums(sums + (r * tile_columns + c) * lanes), scale), set(row_scales[r]), bias);
            if (then == Then::gelu) {
                value = gelu(value);
            }
            store(out + r * outputs + column + c * lanes, value);
        }
    }
}

// out (row_count, output_count) = steps (row_count, input_count) through the layer. Columns outside: their weights stay in the
// first cache while the rows pass.
template <Then then>
void apply_linear(const Linear& linear, const uint8_t* steps, const float* row_scales, size_t row_count, float* out) {
    const size_t inputs = linear.input_count, outputs = linear.output_count;
    const int zero = zero_of(linear);
    for (size_t column = 0; column < outputs; column += tile_columns * lanes) {
        // Takes away what the offset of the steps adds to every sum.
        alignas(64) int32_t start[tile_columns * lanes];
        for (size_t i = 0; i < tile_columns * lanes; ++i) {
            start[i] = -zero * linear.weight_sums[column + i];
        }
        size_t row = 0;
        for (; row + tile_rows <= row_count; row += tile_rows) {
            linear_tile<tile_rows, then>(linear, steps + row * inputs, row_scales + row, tile_rows, column, start,
                                         out + row * outputs);
        }
        for (; row < row_count; row += last_rows) {
            const size_t count = last_rows < row_count - row ? last_rows : row_count - row;
            linear_tile<last_rows, then>(linear, steps + row * inputs, row_scales + row, count, column, start,
                                         out + row * outputs);
        }
    }
}

// values = norm(values + residual), row by row.
void add_and_normalize(float* values, const float* residual, size_t row_count, size_t width, const Norm& norm, float epsilon) {
    const float width_as_float = static_cast<float>(width);
    for (size_t row = 0; row < row_count; ++row) {
        float* x = values + row * width;
        const float* y = residual + row * width;
        Floats total = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            const Floats sum = add(load(x + i), load(y + i));
            store(x + i, sum);
            total = add(total, sum);
        }
        const Floats mean = set(sum_of_lanes(total) / width_as_float);
        Floats squares = zero_floats();
        for (size_t i = 0; i < width; i += lanes) {
            const Floats distance = sub(load(x + i), mean);
            squares = fma(distance, distance, squares);
        }
        const Floats scale = set(1.0f / std::sqrt(sum_of_lanes(squares) / width_as_float + epsilon));
        for (size_t i = 0; i < width; i += lanes) {
            const Floats unit = mul(sub(load(x + i), mean), scale);
            store(x + i, fma(unit, load(norm.weight.data() + i), load(norm.bias.data() + i)));
        }
    }
}

// rows of scores (R, key_stride) = queries (R, head) times keys, which lie transposed (head, key_stride).
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

// Turns a row of scores into weights whose sum is the result; what is beyond `count` becomes 0.
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
void attend_rows(const Encoder& encoder, const float* rows, size_t first, size_t count, size_t head_offset, const float* keys,
                 size_t key_stride, float* scores, float* context) {
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

void look_up(const Encoder& encoder, const int32_t* token_ids, const int64_t* starts, size_t text_count, float* hidden_rows) {
    const size_t hidden = encoder.hidden;
    for (size_t text = 0; text < text_count; ++text) {
        for (int64_t token = starts[text]; token < starts[text + 1]; ++token) {
            const size_t word = static_cast<size_t>(token_ids[token]), position = static_cast<size_t>(token - starts[text]);
            const Floats scale = set(encoder.word_scales[word]);
            float* row = hidden_rows + static_cast<size_t>(token - starts[0]) * hidden;
            for (size_t i = 0; i < hidden; i += lanes) {
                store(row + i, fma(load_int8(encoder.words + word * hidden + i), scale,
                                   load(encoder.positions.data() + position * hidden + i)));
            }
        }
    }
}

// out = the unit vector of sums / count; sums_at(i) gives the sums of values i .. i + 15.
template <typename SumsAt>
GTE_INLINE void store_unit_mean(size_t hidden, size_t count, const SumsAt& sums_at, float* out) {
    Floats squares = zero_floats();
    for (size_t i = 0; i < hidden; i += lanes) {
        const Floats mean = div(sums_at(i), set(static_cast<float>(count)));
        store(out + i, mean);
        squares = fma(mean, mean, squares);
    }
    const Floats length = set(std::fmax(std::sqrt(sum_of_lanes(squares)), 1e-12f));
    for (size_t i = 0; i < hidden; i += lanes) {
        store(out + i, div(load(out + i), length));
    }
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

// The same of the words of a table.
struct WordSums {
    const Encoder& encoder;
    const int32_t* token_ids;
    size_t count;

    GTE_INLINE Floats operator()(size_t i) const {
        Floats sum = zero_floats();
        for (size_t token = 0; token < count; ++token) {
            const size_t word = static_cast<size_t>(token_ids[token]);
            sum = fma(load_int8(encoder.words + word * encoder.hidden + i), set(encoder.word_scales[word]), sum);
        }
        return sum;
    }
};

// The unit vector of one text from its last hidden rows (count, hidden).
void pool(const Encoder& encoder, const float* rows, size_t count, float* out) {
    const size_t first = encoder.pooling == Pooling::last_token ? count - 1 : 0;
    const size_t last = encoder.pooling == Pooling::cls ? 1 : count;
    store_unit_mean(encoder.hidden, last - first, RowSums{rows, encoder.hidden, first, last}, out);
}

void run_layer(const Encoder& encoder, const Layer& layer, Workspace& space, const int64_t* starts, size_t text_count) {
    const size_t hidden = encoder.hidden, row_count = static_cast<size_t>(starts[text_count] - starts[0]);
    float* rows = space.hidden.data();
    float* context = space.context.data();
    float* row_scales = space.row_scales.data();
    uint8_t* steps = space.steps.data();
    quantize_rows(rows, row_count, layer.query_key_value, steps, row_scales);
    apply_linear<Then::nothing>(layer.query_key_value, steps, row_scales, row_count, space.query_key_value.data());
    for (size_t text = 0; text < text_count; ++text) {
        const size_t first = static_cast<size_t>(starts[text] - starts[0]);
        attend(encoder, space.query_key_value.data() + first * 3 * hidden, static_cast<size_t>(starts[text + 1] - starts[text]),
               space.attention.data(), context + first * hidden);
    }
    quantize_rows(context, row_count, layer.attention_output, steps, row_scales);
    apply_linear<Then::nothing>(layer.attention_output, steps, row_scales, row_count, context);
    add_and_normalize(rows, context, row_count, hidden, layer.attention_norm, encoder.epsilon);
    for (size_t first = 0; first < row_count; first += feed_forward_rows) {
        const size_t count = row_count - first < feed_forward_rows ? row_count - first : feed_forward_rows;
        float* part = rows + first * hidden;
        quantize_rows(part, count, layer.intermediate, steps, row_scales);
        apply_linear<Then::gelu>(layer.intermediate, steps, row_scales, count, space.wide.data());
        quantize_rows(space.wide.data(), count, layer.output, steps, row_scales);
        apply_linear<Then::nothing>(layer.output, steps, row_scales, count, context);
        add_and_normalize(part, context, count, hidden, layer.output_norm, encoder.epsilon);
    }
}

void encode_batch(const Encoder& encoder, Workspace& space, const int32_t* token_ids, const int64_t* starts, size_t text_count,
                  Output output, float* out) {
    const size_t hidden = encoder.hidden, row_count = static_cast<size_t>(starts[text_count] - starts[0]);
    if (encoder.is_table()) {
        for (size_t text = 0; text < text_count; ++text) {
            const size_t count = static_cast<size_t>(starts[text + 1] - starts[text]);
            store_unit_mean(hidden, count, WordSums{encoder, token_ids + starts[text], count}, out + text * hidden);
        }
        return;
    }
    look_up(encoder, token_ids, starts, text_count, space.hidden.data());
    std::memset(space.context.data(), 0, row_count * hidden * sizeof(float));
    add_and_normalize(space.hidden.data(), space.context.data(), row_count, hidden, encoder.embedding_norm, encoder.epsilon);
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
