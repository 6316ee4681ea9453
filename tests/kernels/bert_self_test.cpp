// The encoder's promise across instruction sets: made-up encoders of each architecture, in int8 and fp32, give these
// very bits, whether they are run by scalar code, AVX2, AVX-VNNI, AVX-512, AMX or NEON. Built with GTE_TESTS; also what
// an aarch64 emulator and sanitizers run.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "encoder/encoder.hpp"

namespace {

constexpr size_t hidden = 128, wide = 512, vocabulary = 500, positions = 64, texts = 40;

uint32_t random_bits() {
    static uint64_t state = 88172645463325252ull;  // xorshift64
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<uint32_t>(state >> 32);
}

float random_float(float scale) {
    return scale * static_cast<float>(static_cast<int>(random_bits() % 20001) - 10000) / 10000.0f;
}

std::vector<float> random_floats(size_t count, float scale, float offset = 0) {
    std::vector<float> values(count);
    for (float& value : values) {
        value = random_float(scale) + offset;
    }
    return values;
}

std::vector<int8_t> random_bytes(size_t count) {
    std::vector<int8_t> values(count);
    for (int8_t& value : values) {
        value = static_cast<int8_t>(static_cast<int>(random_bits() % 255) - 127);
    }
    return values;
}

gte::Linear random_linear(const gte::Layout& inputs, const gte::Layout& outputs, bool shifted) {
    const auto weights = random_bytes(inputs.count() * outputs.count());
    const auto scales = random_floats(outputs.count(), 0.0003f, 0.0008f), bias = random_floats(outputs.count(), 0.1f);
    const auto smoothing = random_floats(inputs.count(), 0.4f, 1.0f);
    return gte::make_int8_linear(weights.data(), scales.data(), bias.data(), smoothing.data(), inputs, outputs,
                                 shifted);
}

gte::Linear random_fp32_linear(const gte::Layout& inputs, const gte::Layout& outputs) {
    const auto weights = random_floats(inputs.count() * outputs.count(), 0.2f);
    const auto bias = random_floats(outputs.count(), 0.1f);
    return gte::make_linear(weights.data(), bias.data(), inputs, outputs);
}

gte::Norm random_norm(const gte::Layout& layout = hidden) {
    gte::Norm norm{random_floats(layout.width, 0.2f, 1.0f), random_floats(layout.width, 0.1f), layout.width};
    norm.weight.resize(layout.padded_width);
    norm.bias.resize(layout.padded_width);
    return norm;
}

uint64_t checksum(const std::vector<float>& values) {  // FNV-1a over the bits
    uint64_t hash = 1469598103934665603ull;
    for (const float value : values) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        hash = (hash ^ bits) * 1099511628211ull;
    }
    return hash;
}

// What differs between the architectures of the family.
struct Kind {
    const char* name;
    gte::Activation activation;
    gte::Pooling pooling;
    bool gated, norm_first, relative, rotary;
    size_t dim, embedding_width, window;
    uint64_t int8_checksum, fp32_checksum;
};

constexpr size_t family_wide = 192, family_texts = 8, family_layers = 2;

gte::Layer random_family_layer(const Kind& kind, bool int8, size_t index, const std::shared_ptr<gte::Rotary>& rotary) {
    const auto linear = [int8](const gte::Layout& inputs, const gte::Layout& outputs) {
        return int8 ? random_linear(inputs, outputs, false) : random_fp32_linear(inputs, outputs);
    };
    const gte::Layout states(1, kind.dim, hidden);
    const auto halves = [&](size_t count) { return gte::Layout(count, kind.dim / 8, hidden / 8); };  // of 4 heads
    gte::Layer layer;
    layer.query_key_value = linear(states, halves(24));
    layer.attention_output = linear(halves(8), states);
    layer.feed_forward_in = linear(states, family_wide * (kind.gated ? 2 : 1));
    layer.feed_forward_out = linear(family_wide, states);
    if (!kind.norm_first || index > 0) {
        layer.attention_norm = random_norm(states);
    }
    layer.feed_forward_norm = random_norm(states);
    layer.window = kind.window;
    layer.rotary = rotary;
    return layer;
}

// token_embeddings are borrowed: (vocabulary, hidden) or narrower.
gte::Encoder random_family_encoder(const Kind& kind, bool int8, const std::vector<float>& token_embeddings,
                                   int32_t padding_token) {
    const gte::Layout states(1, kind.dim, hidden);
    gte::Encoder encoder;
    encoder.dim = kind.dim;
    encoder.hidden = encoder.attention_width = hidden;
    encoder.heads = 4;
    encoder.vocabulary = vocabulary;
    encoder.embedding_width = kind.embedding_width;
    encoder.most_tokens = positions;
    encoder.epsilon = 1e-5f;
    encoder.pooling = kind.pooling;
    encoder.activation = kind.activation;
    encoder.gated = kind.gated;
    encoder.norm_first = kind.norm_first;
    encoder.token_floats = token_embeddings.data();
    encoder.embedding_norm = random_norm(kind.embedding_width);
    if (kind.rotary) {
        encoder.token_row = random_floats(kind.embedding_width, 0.1f);
    } else {
        encoder.positions = random_floats(positions * kind.embedding_width, 0.5f);
    }
    if (kind.embedding_width != hidden) {
        encoder.projection = random_fp32_linear(kind.embedding_width, states);
    }
    if (kind.relative) {  // MPNet does not count one token
        encoder.padding_token = padding_token;
        encoder.padding_row.assign(encoder.positions.end() - hidden, encoder.positions.end());
        encoder.relative_bias = random_floats(encoder.heads * encoder.bias_stride(), 1.0f);
    }
    if (kind.norm_first) {
        encoder.final_norm = random_norm(states);
    }
    std::shared_ptr<gte::Rotary> rotary;
    if (kind.rotary) {
        const auto frequencies = random_floats(hidden / encoder.heads / 2, 0.5f, 0.5f);
        rotary = std::make_shared<gte::Rotary>(gte::make_rotary(frequencies.data(), hidden / encoder.heads, positions));
    }
    for (size_t index = 0; index < family_layers; ++index) {
        encoder.layers.push_back(random_family_layer(kind, int8, index, rotary));
    }
    return encoder;
}

// Whether every instruction set gives these bits: texts alone on threads that share them, and in batches.
bool gives(const char* name, const gte::Encoder& encoder, const std::vector<int32_t>& token_ids,
           const std::vector<int64_t>& starts, gte::Output output, uint64_t expected) {
    const size_t text_count = starts.size() - 1;
    const size_t rows = output == gte::Output::text_vectors ? text_count : token_ids.size();
    bool all_equal = true;
    for (const gte::EncoderKernels& kernels : gte::available_encoders()) {
        for (const size_t threads : {1, 2, 3}) {
            gte::Stop stop;
            std::vector<float> out(rows * encoder.dim);
            // With one thread, everything is one batch.
            const size_t batch_tokens = threads == 1 ? token_ids.size() : 50 * threads;
            gte::encode(encoder, kernels, token_ids.data(), starts.data(), text_count, batch_tokens, threads, output,
                        stop, out.data());
            if (output == gte::Output::text_vectors) {  // the last text again, alone: a batch of all threads
                const size_t last = text_count - 1;
                const int64_t alone[] = {0, starts[text_count] - starts[last]};
                gte::encode(encoder, kernels, token_ids.data() + starts[last], alone, 1, batch_tokens, threads, output,
                            stop, out.data() + last * encoder.dim);
            }
            const bool equal = checksum(out) == expected;
            std::printf("%s, %s, %zu threads: %s %llx\n", name, kernels.name, threads, equal ? "equal" : "DIFFERENT",
                        static_cast<unsigned long long>(checksum(out)));
            all_equal = all_equal && equal;
        }
    }
    return all_equal;
}

// Every architecture's parts, in both precisions.
bool family_gives_its_bits(const std::vector<int32_t>& token_ids, const std::vector<int64_t>& starts) {
    using gte::Activation;
    using gte::Pooling;
    const Kind kinds[] = {
        {"BERT", Activation::gelu, Pooling::mean, false, false, false, false, hidden, hidden, 0, 0x4ec3c3fc939579a7ull,
         0x85f34470925d1d40ull},
        {"ELECTRA", Activation::gelu, Pooling::cls, false, false, false, false, hidden, 64, 0, 0x45d8732692caceafull,
         0x6be790e95b6cc8c6ull},
        {"MPNet", Activation::relu, Pooling::mean, false, false, true, false, hidden, hidden, 0, 0x050b36def6444cc9ull,
         0x1d2638e908e4bea1ull},
        {"new", Activation::gelu_tanh, Pooling::last_token, true, false, false, true, hidden, hidden, 0,
         0xdc2403f25632cbf3ull, 0xc32b07b63ffcf2b6ull},
        {"ModernBERT", Activation::silu, Pooling::mean, true, true, false, true, hidden, hidden, 5,
         0x432f77c14986e3c6ull, 0xd25cf699174a42edull},
        {"padded", Activation::silu, Pooling::mean, true, true, false, true, 104, 64, 5, 0xe5dbd8a7c914692full,
         0x24d89f9868803355ull},
    };
    const size_t token_count = static_cast<size_t>(starts[family_texts]);
    const std::vector<int32_t> ids(token_ids.begin(), token_ids.begin() + static_cast<int64_t>(token_count));
    const std::vector<int64_t> bounds(starts.begin(), starts.begin() + family_texts + 1);
    bool all_equal = true;
    for (const Kind& kind : kinds) {
        const auto token_embeddings = random_floats(vocabulary * kind.embedding_width, 1.0f);
        for (const bool int8 : {true, false}) {
            const gte::Encoder encoder = random_family_encoder(kind, int8, token_embeddings, ids[3]);
            const std::string name = std::string(kind.name) + (int8 ? " in int8" : " in fp32");
            all_equal = gives(name.c_str(), encoder, ids, bounds, gte::Output::text_vectors,
                              int8 ? kind.int8_checksum : kind.fp32_checksum) &&
                        all_equal;
        }
    }
    return all_equal;
}

}  // namespace

int main() {
    gte::Encoder encoder;
    encoder.dim = encoder.hidden = encoder.attention_width = hidden;
    encoder.heads = 4;
    encoder.vocabulary = vocabulary;
    encoder.embedding_width = hidden;
    encoder.most_tokens = positions;
    encoder.epsilon = 1e-12f;
    const auto token_embeddings = random_bytes(vocabulary * hidden);
    encoder.token_codes = token_embeddings.data();
    encoder.token_scales = random_floats(vocabulary, 0.0002f, 0.0005f);
    encoder.positions = random_floats(positions * hidden, 0.05f);
    encoder.embedding_norm = random_norm();
    for (int i = 0; i < 3; ++i) {
        gte::Layer layer;
        layer.query_key_value = random_linear(hidden, 3 * hidden, false);
        layer.attention_output = random_linear(hidden, hidden, false);
        layer.feed_forward_in = random_linear(hidden, wide, false);
        layer.feed_forward_out = random_linear(wide, hidden, true);
        layer.attention_norm = random_norm();
        layer.feed_forward_norm = random_norm();
        encoder.layers.push_back(std::move(layer));
    }
    std::vector<int32_t> token_ids;
    std::vector<int64_t> starts{0};
    for (size_t text = 0; text < texts; ++text) {
        const size_t length = 1 + random_bits() % positions;
        for (size_t i = 0; i < length; ++i) {
            token_ids.push_back(static_cast<int32_t>(random_bits() % vocabulary));
        }
        starts.push_back(static_cast<int64_t>(token_ids.size()));
    }
    gte::Encoder table;
    table.dim = table.hidden = hidden;
    table.vocabulary = vocabulary;
    table.embedding_width = hidden;
    table.token_codes = encoder.token_codes;
    table.token_scales = encoder.token_scales;
    const struct {
        const char* name;
        const gte::Encoder& encoder;
        gte::Output output;
        uint64_t checksum;
    } cases[] = {
        {"text vectors", encoder, gte::Output::text_vectors, 0x67e9f358349110dbull},
        {"token states", encoder, gte::Output::token_states, 0x8199f88700ffad90ull},
        {"vectors of a table", table, gte::Output::text_vectors, 0xf37182e1d05bc222ull},
    };
    bool all_equal = true;
    for (const auto& [name, run, output, expected] : cases) {
        all_equal = gives(name, run, token_ids, starts, output, expected) && all_equal;
    }
    all_equal = family_gives_its_bits(token_ids, starts) && all_equal;
    return all_equal ? 0 : 1;
}
