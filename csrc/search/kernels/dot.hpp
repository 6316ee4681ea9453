// Dot products of a panel of rows with a tile of queries: the innermost loops, one function for each instruction set.
//
// A panel is [word][panel_rows] (panel.hpp), a query tile is [word][tile_queries]: at each word a kernel loads some
// rows, broadcasts some queries and keeps the sums of rows x queries in registers. Float sums run along the row in
// order and are fused multiply-adds in every set but scalar; integer sums are exact, so all sets agree.
#pragma once

#include <cstddef>
#include <cstdint>

#include "search/kernels/panel.hpp"

namespace gte {

constexpr size_t tile_queries = 12;

// In all of these dots is [tile_queries][panel_rows], of which the first query_count rows are added to, and
// 1 <= query_count <= tile_queries. The rows of one search may be passed in segments of their words.

// panel: [dim][panel_rows] floats. queries: [dim][tile_queries] floats.
using DotFloat = void (*)(const float* panel, const float* queries, size_t dim, size_t query_count, float* dots);
// sums: [panel_rows], added to.
using SumOfSquares = void (*)(const float* panel, size_t dim, float* sums);
// A word is four int8 in -127 .. 127. The kernel may read a row's value v as v + Kernels::int8_row_offset.
// A word is 32 bits, set where a value is negative: what is added is -2 x the number of bits that differ.
using DotWords = void (*)(const uint32_t* panel, const uint32_t* queries, size_t word_count, size_t query_count,
                          int32_t* dots);

#define GTE_DECLARE_DOTS(instruction_set)                                                                      \
    void sum_of_squares_##instruction_set(const float* panel, size_t dim, float* sums);                        \
    void dot_float_##instruction_set(const float* panel, const float* queries, size_t dim, size_t query_count, \
                                     float* dots);                                                             \
    void dot_int8_##instruction_set(const uint32_t* panel, const uint32_t* queries, size_t word_count,         \
                                    size_t query_count, int32_t* dots);                                        \
    void dot_binary_##instruction_set(const uint32_t* panel, const uint32_t* queries, size_t word_count,       \
                                      size_t query_count, int32_t* dots);

GTE_DECLARE_DOTS(scalar)
GTE_DECLARE_DOTS(avx2)
GTE_DECLARE_DOTS(avx512)
GTE_DECLARE_DOTS(avx512vnni)
GTE_DECLARE_DOTS(neon)
GTE_DECLARE_DOTS(neondot)
#undef GTE_DECLARE_DOTS

// A panel times as many queries as fit into the registers of an instruction set.
template <class Word, class Sum>
struct Tile {
    size_t query_count;
    void (*multiply)(const Word* panel, const Word* queries, size_t word_count, Sum* dots);
};

// tiles: largest first, the last of one query. The other arguments are those of DotFloat and DotWords.
template <class Word, class Sum, size_t tile_count>
void multiply_in_tiles(const Tile<Word, Sum> (&tiles)[tile_count], const Word* panel, const Word* queries,
                       size_t word_count, size_t query_count, Sum* dots) {
    for (const Tile<Word, Sum>& tile : tiles) {
        for (; query_count >= tile.query_count; query_count -= tile.query_count) {
            tile.multiply(panel, queries, word_count, dots);
            queries += tile.query_count;
            dots += tile.query_count * panel_rows;
        }
    }
}

}  // namespace gte
