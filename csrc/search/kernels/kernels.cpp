#include "search/kernels/kernels.hpp"

#include <cstring>

#include "machine/cpu.hpp"

namespace gte {
namespace {

struct Choice {
    Kernels kernels;
    bool present;
};

// Slowest first.
const Choice choices[] = {
    {{"scalar", pack_panel_scalar, widen_halves_scalar, sum_of_squares_scalar, dot_float_scalar, dot_int8_scalar, 0,
      dot_binary_scalar, finish_float_scalar, finish_int_scalar, nullptr, nullptr, nullptr, nullptr},
     true},
#if defined(GTE_X86)
    {{"avx2", pack_panel_avx2, widen_halves_avx2, sum_of_squares_avx2, dot_float_avx2, dot_int8_avx2, 0,
      dot_binary_avx2, finish_float_avx2, finish_int_avx2, nullptr, nullptr, nullptr, nullptr},
     cpu_features().avx2},
    {{"avx512", pack_panel_avx512, widen_halves_avx512, sum_of_squares_avx512, dot_float_avx512, dot_int8_avx2, 0,
      dot_binary_avx2, finish_float_avx512, finish_int_avx512, one_query_float_avx512,
      one_query_half_avx512, nullptr, nullptr},
     cpu_features().avx512},
    {{"avx512vnni", pack_panel_avx512, widen_halves_avx512, sum_of_squares_avx512, dot_float_avx512,
      dot_int8_avx512vnni, 128, dot_binary_avx512vnni, finish_float_avx512, finish_int_avx512, one_query_float_avx512,
      one_query_half_avx512, one_query_int8_avx512vnni, one_query_binary_avx512vnni},
     cpu_features().avx512vnni},
#elif defined(GTE_ARM)
    {{"neon", pack_panel_neon, widen_halves_neon, sum_of_squares_neon, dot_float_neon, dot_int8_neon, 0,
      dot_binary_neon, finish_float_scalar, finish_int_scalar, nullptr, nullptr, nullptr, nullptr},
     true},
    {{"neondot", pack_panel_neon, widen_halves_neon, sum_of_squares_neon, dot_float_neon, dot_int8_neondot, 0,
      dot_binary_neon, finish_float_scalar, finish_int_scalar, nullptr, nullptr, nullptr, nullptr},
     cpu_features().neon_dot},
#endif
};

}  // namespace

const Kernels* find_kernels(const char* name) {
    const Kernels* found = nullptr;
    for (const Choice& choice : choices) {
        if (choice.present && (*name == '\0' || std::strcmp(name, choice.kernels.name) == 0)) {
            found = &choice.kernels;
        }
    }
    return found;
}

const char* kernel_name(size_t position) {
    for (const Choice& choice : choices) {
        if (choice.present && position-- == 0) {
            return choice.kernels.name;
        }
    }
    return nullptr;
}

}  // namespace gte
