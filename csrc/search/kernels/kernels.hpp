// The kernels of one instruction set, and the choice among them at run time.
#pragma once

#include <vector>

#include "search/kernels/dot.hpp"
#include "search/kernels/first_look.hpp"
#include "search/kernels/one_query.hpp"
#include "search/kernels/panel.hpp"

namespace gte {

// A set without a faster way of its own for one of them holds a lower set's.
struct Kernels {
    const char* name = nullptr;
    PackPanel pack_panel = nullptr;
    WidenHalves widen_halves = nullptr;
    SumOfSquares sum_of_squares = nullptr;
    DotFloat dot_float = nullptr;
    DotWords dot_int8 = nullptr;
    int int8_row_offset = 0;
    DotWords dot_binary = nullptr;
    ScoreFloat score_float = nullptr;
    ScoreInt score_int = nullptr;
    // nullptr where each row is scored at once.
    RowsAbove rows_above_float = nullptr;
    RowsAbove rows_above_half = nullptr;
    // nullptr where packing a panel for one query costs no more.
    OneQueryFloat one_query_float = nullptr;
    OneQueryFloat one_query_half = nullptr;
    OneQueryWords one_query_int8 = nullptr;
    OneQueryWords one_query_binary = nullptr;
};

// The kernels that this CPU and build have, the slowest first: "scalar", then "avx2", "avx512" and "avx512vnni", or
// "neon" and "neondot".
const std::vector<Kernels>& available_kernels();
// Those called `name`, the fastest for an empty name, nullptr where this CPU or build does not have them.
const Kernels* find_kernels(const char* name);

}  // namespace gte
