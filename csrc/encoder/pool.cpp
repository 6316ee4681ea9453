#include "encoder/pool.hpp"

#include <cmath>

namespace gte {

void mean_pool(const float* token_vectors, const int64_t* mask, size_t text_count, size_t token_count, size_t dim,
               float* means) {
    for (size_t text = 0; text < text_count; ++text) {
        float* mean = means + text * dim;
        for (size_t i = 0; i < dim; ++i) {
            mean[i] = 0.0f;
        }
        size_t counted = 0;
        for (size_t token = 0; token < token_count; ++token) {
            if (mask[text * token_count + token] == 0) {
                continue;
            }
            ++counted;
            const float* vector = token_vectors + (text * token_count + token) * dim;
            for (size_t i = 0; i < dim; ++i) {
                mean[i] += vector[i];
            }
        }
        const float divisor = counted > 0 ? static_cast<float>(counted) : 1.0f;
        for (size_t i = 0; i < dim; ++i) {
            mean[i] /= divisor;
        }
    }
}

void normalize_rows(const float* in, size_t row_count, size_t dim, float* out) {
    for (size_t row = 0; row < row_count; ++row, in += dim, out += dim) {
        double sum = 0;
        for (size_t i = 0; i < dim; ++i) {
            sum += static_cast<double>(in[i]) * in[i];
        }
        const double scale = sum > 0 ? 1.0 / std::sqrt(sum) : 0.0;
        for (size_t i = 0; i < dim; ++i) {
            out[i] = static_cast<float>(in[i] * scale);
        }
    }
}

}  // namespace gte
