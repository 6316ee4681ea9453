// Queries in the form that the kernels read: unit length, encoded as the rows are, in tiles of [word][tile_queries].
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "search/row_types.hpp"

namespace gte {

struct Queries {
    size_t count = 0;
    size_t dim = 0;
    // Unit length, rounded from double, [count][dim] and one zero more; a query of zeros stays zero.
    std::vector<float> unit;
    // For rows of float32 and float16: [tile][stored values of a row][tile_queries]; padding values are 0.
    std::vector<float> float_tiles;
    // For rows of int8 and binary: [count][row_words], and in tiles: [tile][row_words][tile_queries].
    std::vector<uint32_t> words;
    std::vector<uint32_t> word_tiles;
    // For int8 and binary, one for each query: where its integer sums begin, and the factor of its dot products.
    std::vector<int32_t> starts;
    std::vector<float> scales;
};

// queries: [count][dim] finite. int8_row_offset: of the kernels (kernels.hpp).
Queries prepare_queries(const float* queries, size_t count, size_t dim, RowType type, int int8_row_offset);

}  // namespace gte
