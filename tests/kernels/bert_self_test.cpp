// The encoder's promise across instruction sets and architectures: a made-up encoder gives these very bits, whether it
// is run by scalar code, AVX2, AVX-VNNI, AVX-512, AMX or NEON. Built with GTE_TESTS; also what an aarch64 emulator and
// sanitizers run.
#include <cstdint>
#include <cstdio>
#include <cstring>
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

gte::Linear random_linear(size_t inputs, size_t outputs, bool shifted) {
    const auto weights = random_bytes(inputs * outputs);
    const auto scales = random_floats(outputs, 0.0003f, 0.0008f), bias = random_floats(outputs, 0.1f);
    const auto smoothing = random_floats(inputs, 0.4f, 1.0f);
    return gte::make_int8_linear(weights.data(), scales.data(), bias.data(), smoothing.data(), inputs, outputs,
                                 shifted);
}

gte::Norm random_norm() {
    auto weight = random_floats(hidden, 0.2f, 1.0f);
    return {std::move(weight), random_floats(hidden, 0.1f)};
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

}  // namespace

int main() {
    gte::Encoder encoder;
    encoder.hidden = hidden;
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
    table.hidden = hidden;
    table.vocabulary = vocabulary;
    table.embedding_width = hidden;
    table.token_codes = encoder.token_codes;
    table.token_scales = encoder.token_scales;
    const struct {
        const char* name;
        const gte::Encoder& encoder;
        gte::Output output;
        size_t rows;
        uint64_t checksum;
    } cases[] = {
        {"text vectors", encoder, gte::Output::text_vectors, texts, 0x67e9f358349110dbull},
        {"token states", encoder, gte::Output::token_states, token_ids.size(), 0x8199f88700ffad90ull},
        {"vectors of a table", table, gte::Output::text_vectors, texts, 0xf37182e1d05bc222ull},
    };
    bool all_equal = true;
    for (const auto& [name, run, output, rows, expected] : cases) {
        for (const gte::EncoderKernels& kernels : gte::available_encoders()) {
            for (const size_t threads : {1, 2, 3}) {
                gte::Stop stop;
                std::vector<float> out(rows * hidden);
                gte::encode(run, kernels, token_ids.data(), starts.data(), texts, 50 * threads, threads, output, stop,
                            out.data());
                const bool equal = checksum(out) == expected;
                std::printf("%s, %s, %zu threads: %s %llx\n", name, kernels.name, threads,
                            equal ? "equal" : "DIFFERENT", static_cast<unsigned long long>(checksum(out)));
                all_equal = all_equal && equal;
            }
        }
    }
    return all_equal ? 0 : 1;
}
