// IEEE 754 half precision in plain integer arithmetic, for machines and builds without an instruction for it.
#pragma once

#include <cstdint>

namespace gte {

// Rounds to nearest, ties to even. Values beyond the range of half become infinite.
uint16_t half_from_float(float value);

// Exact.
float float_from_half(uint16_t half);

}  // namespace gte
