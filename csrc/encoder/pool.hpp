// From token vectors to one vector for a text: mean over the attention mask, and unit length.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gte {

// token_vectors [text_count][token_count][dim], mask [text_count][token_count] -> means [text_count][dim], all
// contiguous. A token counts where its mask is not 0; what padding holds, NaN too, is never read. A text without tokens
// gives zeros.
void mean_pool(const float* token_vectors, const int64_t* mask, size_t text_count, size_t token_count, size_t dim,
               float* means);

// Scales each row to unit length, its square sum and factor in double. A row of zeros stays zero. in == out is allowed.
void normalize_rows(const float* in, size_t row_count, size_t dim, float* out);

}  // namespace gte
