// Sums over lanes, the exponential and the activations, on the 16 lanes of floats of an instruction set
// (forward_pass.hpp).
#pragma once

#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

float sum_of_lanes(Floats value) {
    float lane[lanes];
    store(lane, value);
    float sum = lane[0];
    for (size_t i = 1; i < lanes; ++i) {
        sum += lane[i];
    }
    return sum;
}

float largest_lane(Floats value) {
    float lane[lanes];
    store(lane, value);
    for (size_t half = lanes / 2; half > 0; half /= 2) {
        for (size_t i = 0; i < half; ++i) {
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
        }
    }
    return lane[0];
}

// e^x for x <= 0, at most 2 units in the last place off; 0 to 1e-38 below -87. Polynomial of Cephes' expf.
GTE_INLINE Floats exponential(Floats x) {
    x = max(x, set(-87.0f));
    const Floats power = nearest(mul(x, set(1.44269504f)));
    Floats r = fma(power, set(-0.693359375f), x);
    r = fma(power, set(2.12194440e-4f), r);
    Floats p = set(1.9875691500e-4f);
    p = fma(p, r, set(1.3981999507e-3f));
    p = fma(p, r, set(8.3334519073e-3f));
    p = fma(p, r, set(4.1665795894e-2f));
    p = fma(p, r, set(1.6666665459e-1f));
    p = fma(p, r, set(5.0000001201e-1f));
    p = add(fma(p, mul(r, r), r), set(1.0f));
    return mul(p, power_of_two(power));
}

// 1 / (1 + e^-x)
GTE_INLINE Floats sigmoid(Floats x) {
    const Floats zero = zero_floats(), one = set(1.0f);
    return div(exponential(min(x, zero)), add(one, exponential(sub(zero, absolute(x)))));
}

// x/2 (1 + erf(x / sqrt 2)); erf as the rational function of Eigen (GenericPacketMathFunctions), 5e-7 off at most.
struct Gelu {
    static GTE_INLINE Floats of(Floats x) {
        const Floats z = max(min(mul(x, set(0.70710678f)), set(4.0f)), set(-4.0f));
        const Floats s = mul(z, z);
        Floats p = set(-2.72614225801306e-10f);
        p = fma(p, s, set(2.77068142495902e-08f));
        p = fma(p, s, set(-2.10102402082508e-06f));
        p = fma(p, s, set(-5.69250639462346e-05f));
        p = fma(p, s, set(-7.34990630326855e-04f));
        p = fma(p, s, set(-2.95459980854025e-03f));
        p = fma(p, s, set(-1.60960333262415e-02f));
        Floats q = set(-1.45660718464996e-05f);
        q = fma(q, s, set(-2.13374055278905e-04f));
        q = fma(q, s, set(-1.68282697438203e-03f));
        q = fma(q, s, set(-7.37332916720468e-03f));
        q = fma(q, s, set(-1.42647390514189e-02f));
        const Floats half = mul(x, set(0.5f));
        return fma(half, div(mul(z, p), q), half);
    }
};

// x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which is x times a sigmoid.
struct GeluTanh {
    static GTE_INLINE Floats of(Floats x) {
        const Floats cube = mul(mul(x, x), x);
        return mul(x, sigmoid(mul(fma(cube, set(0.044715f), x), set(1.59576912f))));
    }
};

struct Relu {
    static GTE_INLINE Floats of(Floats x) { return max(x, zero_floats()); }
};

struct Silu {
    static GTE_INLINE Floats of(Floats x) { return mul(x, sigmoid(x)); }
};

}  // namespace
}  // namespace gte
