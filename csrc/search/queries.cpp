#include "search/queries.hpp"

#include "search/kernels/dot.hpp"

namespace gte {
namespace {

size_t tiled_count(size_t count) { return (count + tile_queries - 1) / tile_queries * tile_queries; }

// values: [count][length] -> tiles [tile][padded_length][tile_queries]
template <class Value>
void write_tiles(const Value* values, size_t count, size_t length, size_t padded_length, std::vector<Value>& tiles) {
    tiles.assign(tiled_count(count) * padded_length, Value{});
    for (size_t query = 0; query < count; ++query) {
        Value* tile = tiles.data() + query / tile_queries * tile_queries * padded_length + query % tile_queries;
        for (size_t i = 0; i < length; ++i) {
            tile[i * tile_queries] = values[query * length + i];
        }
    }
}

}  // namespace

Queries prepare_queries(const float* queries, size_t count, size_t dim, RowType type, int int8_row_offset) {
    Queries prepared;
    prepared.count = count;
    prepared.dim = dim;
    prepared.unit.resize(count * dim + 1);
    for (size_t query = 0; query < count; ++query) {
        const double norm = norm_in_double(queries + query * dim, dim);
        const double scale = norm > 0 ? 1.0 / norm : 0.0;
        for (size_t i = 0; i < dim; ++i) {
            prepared.unit[query * dim + i] = static_cast<float>(queries[query * dim + i] * scale);
        }
    }
    if (type == RowType::float32 || type == RowType::float16) {
        const size_t values_in_row = type == RowType::float16 ? 2 * row_words(type, dim) : dim;
        write_tiles(prepared.unit.data(), count, dim, values_in_row, prepared.float_tiles);
        return prepared;
    }
    const size_t words = row_words(type, dim);
    prepared.words.resize(count * words);
    prepared.scales.resize(count);
    prepared.starts.resize(count);
    encode_rows(type, queries, count, dim, reinterpret_cast<char*>(prepared.words.data()), prepared.scales.data());
    for (size_t query = 0; query < count; ++query) {
        if (type == RowType::binary) {
            prepared.starts[query] = static_cast<int32_t>(dim);
            continue;
        }
        const int8_t* codes = reinterpret_cast<const int8_t*>(prepared.words.data() + query * words);
        int32_t sum = 0;
        for (size_t i = 0; i < dim; ++i) {
            sum += codes[i];
        }
        prepared.starts[query] = -int8_row_offset * sum;
    }
    write_tiles(prepared.words.data(), count, words, words, prepared.word_tiles);
    return prepared;
}

}  // namespace gte
