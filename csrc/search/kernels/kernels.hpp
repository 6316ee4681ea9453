// The kernels of one instruction set, and the choice among them at run time.
#pragma once

#include "search/kernels/dot.hpp"
#include "search/kernels/score_panel.hpp"
#include "search/kernels/one_query.hpp"
#include "search/kernels/panel.hpp"

namespace gte {

// A set without a faster way of its own for one of them holds a lower set's.
struct Kernels {
    const char* name;
    PackPanel pack_panel;
    WidenHalves widen_halves;
    SumOfSquares sum_of_squares;
    DotFloat dot_float;
    DotWords dot_int8;
    int int8_row_offset;
    DotWords dot_binary;
    FinishFloat finish_float;
    FinishInt finish_int;
    // nullptr where packing a panel for one query costs no more.
    OneQueryFloat one_query_float;
    OneQueryFloat one_query_half;
    OneQueryWords one_query_int8;
    OneQueryWords one_query_binary;
};

// The kernels called `name` ("scalar", "avx2", "avx512", "avx512vnni", "neon", "neondot"), the best ones of this CPU for
// an empty name, nullptr where the CPU or the build does not have them.
const Kernels* find_kernels(const char* name);
// The name of the position-th set that this CPU has, slowest first; nullptr past the end.
const char* kernel_name(size_t position);

}  // namespace gte
