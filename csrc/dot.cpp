#include "dot.hpp"

#include <cstring>

#include "cpu.hpp"

namespace gte {
namespace {

struct Choice {
    Kernels kernels;
    bool present;
};

// Worst first.
const Choice choices[] = {
    {{"scalar", pack_panel_scalar, sum_of_squares_scalar, dot_float_scalar}, true},
#if defined(GTE_X86)
    {{"avx2", pack_panel_avx2, sum_of_squares_avx2, dot_float_avx2}, cpu_features().avx2},
    {{"avx512", pack_panel_avx512, sum_of_squares_avx512, dot_float_avx512}, cpu_features().avx512},
#elif defined(GTE_ARM)
    {{"neon", pack_panel_neon, sum_of_squares_neon, dot_float_neon}, true},
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
