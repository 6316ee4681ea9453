#include "encoder/encoder.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>

#include "machine/cpu.hpp"
#include "machine/thread_pool.hpp"

namespace gte {
namespace {

template <typename Buffer>
void grow(Buffer& buffer, size_t count) {
    if (buffer.size() < count) {
        buffer.resize(count);
    }
}

struct Batches {
    const Encoder& encoder;
    const EncoderKernels& kernels;
    Stop& stop;
    const int32_t* token_ids = nullptr;
    const int64_t* starts = nullptr;
    std::vector<size_t> first_texts{0};  // of each batch, and the number of texts
    Output output = Output::text_vectors;
    float* out = nullptr;
    std::atomic<size_t> next{0};
    std::atomic<bool> out_of_memory{false};
    std::mutex maxima_mutex{};
};

float* output_of_batch(const Batches& batches, size_t first_text) {
    switch (batches.output) {
        case Output::text_vectors:
            return batches.out + first_text * batches.encoder.hidden;
        case Output::token_states:
            return batches.out + static_cast<size_t>(batches.starts[first_text]) * batches.encoder.hidden;
        case Output::channel_maxima:
            break;
    }
    return nullptr;
}

void work_on_batches(void* context, size_t slot) {
    Batches& batches = *static_cast<Batches*>(context);
    const size_t batch_count = batches.first_texts.size() - 1;
    try {
        Workspace space;
        if (batches.output == Output::channel_maxima) {
            space.maxima.resize(batches.encoder.channel_count);
        }
        for (size_t batch; (batch = batches.next.fetch_add(1)) < batch_count && !batches.stop.stopped();) {
            const size_t first = batches.first_texts[batch], text_count = batches.first_texts[batch + 1] - first;
            const int64_t* starts = batches.starts + first;
            size_t longest = 0;
            for (size_t text = 0; text < text_count; ++text) {
                longest = std::max(longest, static_cast<size_t>(starts[text + 1] - starts[text]));
            }
            space.make_room(batches.encoder, static_cast<size_t>(starts[text_count] - starts[0]), longest);
            batches.kernels.encode_batch(batches.encoder, space, batches.token_ids, starts, text_count, batches.output,
                                         output_of_batch(batches, first));
            if (slot == 0) {
                batches.stop.poll();
            }
        }
        const std::lock_guard<std::mutex> lock(batches.maxima_mutex);
        for (size_t i = 0; i < space.maxima.size(); ++i) {
            batches.out[i] = std::max(batches.out[i], space.maxima[i]);
        }
    } catch (const std::exception&) {  // bad_alloc, or length_error from a vector
        batches.out_of_memory = true;
    }
}

}  // namespace

void Workspace::make_room(const Encoder& encoder, size_t row_count, size_t longest_text) {
    if (encoder.is_table()) {
        return;
    }
    const size_t width = encoder.hidden, head = width / encoder.heads;
    size_t wide_width = 0;
    for (const Layer& layer : encoder.layers) {
        wide_width = std::max(wide_width, layer.feed_forward_in.output_count);
    }
    const size_t wide_rows = std::min(row_count, feed_forward_rows);
    const size_t key_stride = (longest_text + lanes - 1) / lanes * lanes;
    grow(hidden, row_count * width);
    grow(query_key_value, row_count * std::max(3 * width, encoder.embedding_width));
    grow(context, row_count * width);
    grow(wide, wide_rows * wide_width);
    grow(row_scales, row_count);
    grow(attention, (2 * head + attention_rows) * key_stride);
    grow(codes, std::max((row_count + spare_rows) * width, (wide_rows + spare_rows) * wide_width));
}

void encode(const Encoder& encoder, const EncoderKernels& kernels, const int32_t* token_ids, const int64_t* starts,
            size_t text_count, size_t batch_tokens, size_t threads, Output output, Stop& stop, float* out) {
    Batches batches{encoder, kernels, stop};
    batches.token_ids = token_ids;
    batches.starts = starts;
    batches.output = output;
    batches.out = out;
    for (size_t text = 1; text < text_count; ++text) {
        const int64_t token_count = starts[text + 1] - starts[batches.first_texts.back()];
        if (static_cast<size_t>(token_count) > batch_tokens) {
            batches.first_texts.push_back(text);
        }
    }
    batches.first_texts.push_back(text_count);
    run_on_pool(std::min(threads, batches.first_texts.size() - 1), work_on_batches, &batches);
    if (batches.out_of_memory) {
        throw std::bad_alloc();
    }
}

#if defined(GTE_X86)
extern const EncodeBatch encoder_avx512vnni, encoder_avxvnni, encoder_avx2;
#if defined(GTE_AMX)
extern const EncodeBatch encoder_amx;
#endif
#elif defined(GTE_ARM)
extern const EncodeBatch encoder_neon;
#endif
extern const EncodeBatch encoder_scalar;

const std::vector<EncoderKernels>& available_encoders() {
    static const std::vector<EncoderKernels> kernels = [] {
        std::vector<EncoderKernels> found;
        [[maybe_unused]] const CpuFeatures& cpu = cpu_features();
        found.push_back({"scalar", encoder_scalar});
#if defined(GTE_X86)
        if (cpu.avx2) {
            found.push_back({"avx2", encoder_avx2});
        }
        if (cpu.avxvnni) {
            found.push_back({"avxvnni", encoder_avxvnni});
        }
        if (cpu.avx512bytes) {
            found.push_back({"avx512vnni", encoder_avx512vnni});
        }
#if defined(GTE_AMX)
        if (ask_for_amx()) {
            found.push_back({"amx", encoder_amx});
        }
#endif
#elif defined(GTE_ARM)
        if (cpu.neon_dot) {
            found.push_back({"neon", encoder_neon});
        }
#endif
        return found;
    }();
    return kernels;
}

}  // namespace gte
