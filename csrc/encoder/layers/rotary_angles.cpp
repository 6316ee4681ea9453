// Cosines and sines in double arithmetic of our own (Cephes' sin.c), because the C libraries of different systems
// differ in the last bits.
#include <algorithm>

#include "encoder/layers/weights.hpp"

namespace gte {
namespace {

struct CosineAndSine {
    double cosine, sine;
};

// |x| <= 2^30.
CosineAndSine cosine_and_sine(double x) {
    const double magnitude = x < 0 ? -x : x;
    // The even octant boundary next to x, in units of pi / 4, and the distance from it, at most pi / 4. pi / 4 is
    // subtracted in three parts whose products with the octant are exact.
    int64_t octant = static_cast<int64_t>(magnitude * 1.27323954473516268615);
    octant += octant & 1;
    const double count = static_cast<double>(octant);
    const double z = ((magnitude - count * 7.85398125648498535156e-1) - count * 3.77489470793079817668e-8) -
                     count * 2.69515142907905952645e-15;
    const double s = z * z;
    double p = 1.58962301576546568060e-10;
    p = p * s - 2.50507477628578072866e-8;
    p = p * s + 2.75573136213857245213e-6;
    p = p * s - 1.98412698295895385996e-4;
    p = p * s + 8.33333333332211858878e-3;
    p = p * s - 1.66666666666666307295e-1;
    const double sine_of_z = z + z * (s * p);
    double q = -1.13585365213876817300e-11;
    q = q * s + 2.08757008419747316778e-9;
    q = q * s - 2.75573141792967388112e-7;
    q = q * s + 2.48015872888517045348e-5;
    q = q * s - 1.38888888888730564116e-3;
    q = q * s + 4.16666666666665929218e-2;
    const double cosine_of_z = 1.0 - 0.5 * s + s * (s * q);
    CosineAndSine turned{};
    switch (octant / 2 % 4) {
        case 0:
            turned = {cosine_of_z, sine_of_z};
            break;
        case 1:
            turned = {-sine_of_z, cosine_of_z};
            break;
        case 2:
            turned = {-cosine_of_z, -sine_of_z};
            break;
        default:
            turned = {sine_of_z, -cosine_of_z};
    }
    return {turned.cosine, x < 0 ? -turned.sine : turned.sine};
}

}  // namespace

void write_rotary_row(const float* frequencies, size_t head, size_t position, float* row) {
    const size_t half = head / 2;
    float* cosines = row;
    float* sines = row + head;
    for (size_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(position) * frequencies[i];
        const CosineAndSine found = cosine_and_sine(static_cast<double>(angle));
        cosines[i] = cosines[i + half] = static_cast<float>(found.cosine);
        sines[i + half] = static_cast<float>(found.sine);
        sines[i] = -sines[i + half];
    }
}

Rotary make_rotary(const float* frequencies, size_t head, size_t most_tokens) {
    const size_t positions = std::min(most_tokens, kept_positions);
    Rotary rotary;
    rotary.frequencies.assign(frequencies, frequencies + head / 2);
    rotary.rows.resize(positions * 2 * head);
    for (size_t position = 0; position < positions; ++position) {
        write_rotary_row(frequencies, head, position, rotary.rows.data() + position * 2 * head);
    }
    return rotary;
}

}  // namespace gte
