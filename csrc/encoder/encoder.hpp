// A transformer encoder of BERT's family, in fp32 or int8, from token ids to one unit vector for each text, or to the
// state of each token. Without layers it is a table of tokens, and a text's vector is the mean of its rows.
//
// Texts lie one after another without padding, so a text's vector cannot depend on the rest of the batch. Products of
// integers are exact in any order; every float operation has one fixed order of 16 lanes (forward_pass.hpp) and is
// rounded as IEEE 754 says, fused multiply-adds included. So all instruction sets give the same bits, on every CPU and
// thread count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encoder/layers/weights.hpp"
#include "encoder/layers/workspace.hpp"
#include "machine/stop.hpp"

namespace gte {

enum class Output { text_vectors, token_states, channel_maxima };

// Text i has the token_ids at [starts[i], starts[i + 1]). Its unit row goes to out (text_count, dim), or the last
// states of its tokens, as they are before pooling, to out (token_count, dim). For channel_maxima, which needs
// layers in fp32, the largest magnitudes of the inputs of all linear layers go to the workspace.
using EncodeBatch = void (*)(const Encoder& encoder, Workspace& workspace, const int32_t* token_ids,
                             const int64_t* starts, size_t text_count, Output output, float* out);

// What a helper of the batch's crew runs meanwhile.
using HelpWithBatch = void (*)(Crew& crew, size_t member);

struct EncoderKernels {
    const char* name;
    size_t code_bytes;  // of a code in the workspace
    EncodeBatch encode_batch;
    HelpWithBatch help_with_batch;
};

// The encoders that this CPU and build have, the slowest first.
const std::vector<EncoderKernels>& available_encoders();

// Cuts the texts into batches of about batch_tokens tokens and shares them among `threads` threads; a single batch is
// the work of all threads together. The caller has checked that each text has 1 to most_tokens tokens (any number in a
// table) and that each token id is below the vocabulary's size. Channel maxima raise what out (channel_count) has.
// Looks at `stop` between batches. Throws std::bad_alloc.
void encode(const Encoder& encoder, const EncoderKernels& kernels, const int32_t* token_ids, const int64_t* starts,
            size_t text_count, size_t batch_tokens, size_t threads, Output output, Stop& stop, float* out);

}  // namespace gte
