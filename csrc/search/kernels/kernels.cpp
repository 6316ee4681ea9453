#include "search/kernels/kernels.hpp"

#include <cstring>

#include "machine/cpu.hpp"

namespace gte {
namespace {

Kernels scalar_kernels() {
    Kernels kernels;
    kernels.name = "scalar";
    kernels.pack_panel = pack_panel_scalar;
    kernels.widen_halves = widen_halves_scalar;
    kernels.sum_of_squares = sum_of_squares_scalar;
    kernels.dot_float = dot_float_scalar;
    kernels.dot_int8 = dot_int8_scalar;
    kernels.dot_binary = dot_binary_scalar;
    kernels.score_float = score_float_scalar;
    kernels.score_int = score_int_scalar;
    return kernels;
}

#if defined(GTE_X86)

Kernels avx2_kernels() {
    Kernels kernels;
    kernels.name = "avx2";
    kernels.pack_panel = pack_panel_avx2;
    kernels.widen_halves = widen_halves_avx2;
    kernels.sum_of_squares = sum_of_squares_avx2;
    kernels.dot_float = dot_float_avx2;
    kernels.rows_above_float = rows_above_float_avx2;
    kernels.rows_above_half = rows_above_half_avx2;
    kernels.dot_int8 = dot_int8_avx2;
    kernels.dot_binary = dot_binary_avx2;
    kernels.one_query_int8 = one_query_int8_avx2;
    kernels.one_query_binary = one_query_binary_avx2;
    kernels.score_float = score_float_avx2;
    kernels.score_int = score_int_avx2;
    return kernels;
}

Kernels avx512_kernels() {
    Kernels kernels = avx2_kernels();
    kernels.name = "avx512";
    kernels.pack_panel = pack_panel_avx512;
    kernels.widen_halves = widen_halves_avx512;
    kernels.sum_of_squares = sum_of_squares_avx512;
    kernels.dot_float = dot_float_avx512;
    kernels.rows_above_float = rows_above_float_avx512;
    kernels.rows_above_half = rows_above_half_avx512;
    kernels.score_float = score_float_avx512;
    kernels.score_int = score_int_avx512;
    kernels.one_query_float = one_query_float_avx512;
    kernels.one_query_half = one_query_half_avx512;
    return kernels;
}

Kernels avx512vnni_kernels() {
    Kernels kernels = avx512_kernels();
    kernels.name = "avx512vnni";
    kernels.dot_int8 = dot_int8_avx512vnni;
    kernels.int8_row_offset = 128;
    kernels.dot_binary = dot_binary_avx512vnni;
    kernels.one_query_int8 = one_query_int8_avx512vnni;
    kernels.one_query_binary = one_query_binary_avx512vnni;
    return kernels;
}

#elif defined(GTE_ARM)

Kernels neon_kernels() {
    Kernels kernels = scalar_kernels();
    kernels.name = "neon";
    kernels.pack_panel = pack_panel_neon;
    kernels.widen_halves = widen_halves_neon;
    kernels.sum_of_squares = sum_of_squares_neon;
    kernels.dot_float = dot_float_neon;
    kernels.rows_above_float = rows_above_float_neon;
    kernels.rows_above_half = rows_above_half_neon;
    kernels.dot_int8 = dot_int8_neon;
    kernels.dot_binary = dot_binary_neon;
    return kernels;
}

Kernels neondot_kernels() {
    Kernels kernels = neon_kernels();
    kernels.name = "neondot";
    kernels.dot_int8 = dot_int8_neondot;
    return kernels;
}

#endif

std::vector<Kernels> probe_kernels() {
    [[maybe_unused]] const CpuFeatures& cpu = cpu_features();
    std::vector<Kernels> found{scalar_kernels()};
#if defined(GTE_X86)
    if (cpu.avx2) {
        found.push_back(avx2_kernels());
    }
    if (cpu.avx512) {
        found.push_back(avx512_kernels());
    }
    if (cpu.avx512vnni) {
        found.push_back(avx512vnni_kernels());
    }
#elif defined(GTE_ARM)
    found.push_back(neon_kernels());
    if (cpu.neon_dot) {
        found.push_back(neondot_kernels());
    }
#endif
    return found;
}

}  // namespace

const std::vector<Kernels>& available_kernels() {
    static const std::vector<Kernels> kernels = probe_kernels();
    return kernels;
}

const Kernels* find_kernels(const char* name) {
    const std::vector<Kernels>& available = available_kernels();
    if (*name == '\0') {
        return &available.back();
    }
    for (const Kernels& kernels : available) {
        if (std::strcmp(name, kernels.name) == 0) {
            return &kernels;
        }
    }
    return nullptr;
}

}  // namespace gte
