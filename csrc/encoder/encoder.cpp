#include "encoder/encoder.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "machine/cpu.hpp"
#include "machine/crew.hpp"
#include "machine/thread_pool.hpp"

namespace gte {
namespace {

// Of threads that share one batch. More would wait for what one of them does alone.
constexpr size_t most_crew = 16;

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
    Crew& crew;  // of each batch: all threads where there is one batch, else the thread that works on it
    const int32_t* token_ids;
    const int64_t* starts;
    std::vector<size_t> first_texts;  // of each batch, and the number of texts
    Output output;
    float* out;
    std::atomic<size_t> next{0};
    std::atomic<bool> out_of_memory{false};
    std::mutex maxima_mutex{};
};

float* output_of_batch(const Batches& batches, size_t first_text) {
    switch (batches.output) {
        case Output::text_vectors:
            return batches.out + first_text * batches.encoder.dim;
        case Output::token_states:
            return batches.out + static_cast<size_t>(batches.starts[first_text]) * batches.encoder.dim;
        case Output::channel_maxima:
            break;
    }
    return nullptr;
}

void work_on_batches(void* context, size_t slot) {
    Batches& batches = *static_cast<Batches*>(context);
    const size_t batch_count = batches.first_texts.size() - 1;
    try {
        Workspace space(batches.crew);
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
            space.make_room(batches.encoder, batches.kernels.code_bytes,
                            static_cast<size_t>(starts[text_count] - starts[0]), longest);
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

void work_on_one_batch(void* context, size_t slot) {
    Batches& batches = *static_cast<Batches*>(context);
    if (slot > 0) {
        batches.kernels.help_with_batch(batches.crew, slot);
        return;
    }
    work_on_batches(context, slot);
    batches.crew.dismiss();
}

}  // namespace

void Workspace::make_room(const Encoder& encoder, size_t code_bytes, size_t row_count, size_t longest_text) {
    grow(vector, encoder.hidden);
    if (encoder.is_table()) {
        return;
    }
    const size_t attended = encoder.attention_width, head = attended / encoder.heads;  // attended >= hidden
    size_t wide_width = 0;
    for (const Layer& layer : encoder.layers) {
        wide_width = std::max(wide_width, layer.feed_forward_in.output_count);
    }
    const size_t wide_rows = std::min(row_count, feed_forward_rows);
    const size_t key_stride = (longest_text + lanes - 1) / lanes * lanes;
    grow(hidden, row_count * encoder.hidden);
    grow(query_key_value, row_count * std::max(3 * attended, encoder.embedding_width));
    grow(context, row_count * attended);
    grow(wide, wide_rows * wide_width);
    grow(row_scales, row_count);
    attention_stride = std::max(attention_stride, (2 * head + attention_rows) * key_stride);
    grow(attention, crew.size() * attention_stride);
    grow(codes, code_bytes * std::max((row_count + spare_rows) * attended, (wide_rows + spare_rows) * wide_width));
    if (code_bytes > 1) {
        weights_stride = lanes * std::max(attended, wide_width);
        grow(weights, crew.size() * weights_stride * code_bytes);
    }
}

void encode(const Encoder& encoder, const EncoderKernels& kernels, const int32_t* token_ids, const int64_t* starts,
            size_t text_count, size_t batch_tokens, size_t threads, Output output, Stop& stop, float* out) {
    std::vector<size_t> first_texts{0};
    for (size_t text = 1; text < text_count; ++text) {
        const int64_t token_count = starts[text + 1] - starts[first_texts.back()];
        if (static_cast<size_t>(token_count) > batch_tokens) {
            first_texts.push_back(text);
        }
    }
    first_texts.push_back(text_count);
    const bool one_batch = first_texts.size() == 2 && !encoder.is_table();
    Crew crew(one_batch ? std::min(threads, most_crew) : 1);
    Batches batches{encoder, kernels, stop, crew, token_ids, starts, std::move(first_texts), output, out};
    if (one_batch) {
        run_on_pool(crew.size(), work_on_one_batch, &batches);
    } else {
        run_on_pool(std::min(threads, batches.first_texts.size() - 1), work_on_batches, &batches);
    }
    if (batches.out_of_memory) {
        throw std::bad_alloc();
    }
}

#if defined(GTE_X86)
extern const EncoderKernels encoder_avx512vnni, encoder_avxvnni, encoder_avx2;
#if defined(GTE_AMX)
extern const EncoderKernels encoder_amx;
#endif
#elif defined(GTE_ARM)
extern const EncoderKernels encoder_neon;
#endif
extern const EncoderKernels encoder_scalar;

const std::vector<EncoderKernels>& available_encoders() {
    static const std::vector<EncoderKernels> kernels = [] {
        std::vector<EncoderKernels> found;
        [[maybe_unused]] const CpuFeatures& cpu = cpu_features();
        found.push_back(encoder_scalar);
#if defined(GTE_X86)
        if (cpu.avx2) {
            found.push_back(encoder_avx2);
        }
        if (cpu.avxvnni) {
            found.push_back(encoder_avxvnni);
        }
        if (cpu.avx512bytes) {
            found.push_back(encoder_avx512vnni);
        }
#if defined(GTE_AMX)
        if (ask_for_amx()) {
            found.push_back(encoder_amx);
        }
#endif
#elif defined(GTE_ARM)
        if (cpu.neon_dot) {
            found.push_back(encoder_neon);
        }
#endif
        return found;
    }();
    return kernels;
}

}  // namespace gte
