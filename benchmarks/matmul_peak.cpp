// The most products a second that one core can do from registers: what benchmarks/embedding.py calls the machine's peak.
//
//   g++ -O2 -march=native benchmarks/matmul_peak.cpp -o build/matmul_peak && build/matmul_peak
//
// Prints the operations a second (a product and its addition are two) of float32 and of int8, in billions.
#include <immintrin.h>

#include <cstdio>
#include <ctime>

constexpr int chains = 12;  // more than latency times units, few enough to stay in registers
constexpr long rounds = 20'000'000;

// The billions of operations a second of `step`, which maps a register to its next value, on `chains` registers at once.
template <typename Vector, typename Step>
double billions(double operations_per_step, Vector zero, Step step) {
    double best = 0;
    for (int attempt = 0; attempt < 3; ++attempt) {
        const std::clock_t start = std::clock();
        Vector values[chains];
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) values[i] = zero;  // unrolled too: an array that is indexed lives in memory
        for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
            for (int i = 0; i < chains; ++i) {
                values[i] = step(values[i]);
                asm volatile("" : "+v"(values[i]));  // stays in its register, and its work is neither dropped nor folded
            }
        }
        const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        const double rate = operations_per_step * chains * rounds / seconds / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

int main() {
#if defined(__AVX512F__)
    const __m512 factor = _mm512_set1_ps(0.5f);
    const double floats =
        billions(2 * 16, _mm512_setzero_ps(), [=](__m512 sum) { return _mm512_fmadd_ps(sum, factor, factor); });
#else
    const __m256 factor = _mm256_set1_ps(0.5f);
    const double floats =
        billions(2 * 8, _mm256_setzero_ps(), [=](__m256 sum) { return _mm256_fmadd_ps(sum, factor, factor); });
#endif
#if defined(__AVX512VNNI__)
    const __m512i ones = _mm512_set1_epi8(1);
    const double bytes = billions(2 * 64, _mm512_setzero_si512(),
                                  [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, ones, ones); });
#elif defined(__AVXVNNI__)
    const __m256i ones = _mm256_set1_epi8(1);
    const double bytes = billions(2 * 32, _mm256_setzero_si256(),
                                  [=](__m256i sum) { return _mm256_dpbusd_avx_epi32(sum, ones, ones); });
#else
    const __m256i ones = _mm256_set1_epi8(1);  // widened to 16 bits first, where the sums cannot overflow
    const double bytes = billions(2 * 16, _mm256_setzero_si256(), [=](__m256i sum) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(sum, ones));
    });
#endif
    std::printf("%.1f %.1f\n", floats, bytes);
}
