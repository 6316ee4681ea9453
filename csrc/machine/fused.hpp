// a * b + c with one rounding, on any CPU and with any C library: MinGW's rounds twice.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace gte {

// The product of two floats is exact in double. The sum is rounded to odd there, so that the rounding to float, which
// drops 29 bits or more, cannot meet a tie that was none (Boldo and Melquiond, "Emulation of FMA and correctly rounded
// sums: proved algorithms using rounding to odd", 2008).
inline float fused_multiply_add(float a, float b, float c) {
    const double product = static_cast<double>(a) * b, addend = c, sum = product + addend;
    const double added = sum - product;
    const double error = (product - (sum - added)) + (addend - added);
    if (error == 0 || !std::isfinite(error)) {
        return static_cast<float>(sum);
    }
    uint64_t bits;
    std::memcpy(&bits, &sum, sizeof bits);
    if ((bits & 1) == 0) {
        bits += (error > 0) == (sum > 0) ? 1 : -1;
    }
    double odd;
    std::memcpy(&odd, &bits, sizeof odd);
    return static_cast<float>(odd);
}

}  // namespace gte
