// 16 lanes of floats on AVX2 and FMA, for encoder_avx2.cpp and encoder_avxvnni.cpp, inside their region.
namespace gte {
namespace {

struct Floats {
    __m256 low, high;
};

constexpr size_t float_rows = 6, float_columns = 1;
constexpr int activation_bias = 0;

GTE_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
GTE_INLINE void store(float* p, Floats v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}
GTE_INLINE Floats zero_floats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
GTE_INLINE Floats set(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
GTE_INLINE Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
GTE_INLINE Floats sub(Floats a, Floats b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
GTE_INLINE Floats mul(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
GTE_INLINE Floats div(Floats a, Floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
GTE_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
GTE_INLINE Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
GTE_INLINE Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
GTE_INLINE Floats absolute(Floats a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
GTE_INLINE Floats nearest(Floats a) {
    return {_mm256_round_ps(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
            _mm256_round_ps(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
GTE_INLINE __m256 half_power_of_two(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
GTE_INLINE Floats power_of_two(Floats n) { return {half_power_of_two(n.low), half_power_of_two(n.high)}; }
GTE_INLINE __m256 half_load_int8(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
GTE_INLINE Floats load_int8(const int8_t* p) { return {half_load_int8(p), half_load_int8(p + 8)}; }
GTE_INLINE __m256 half_load_sums(const int32_t* p) {
    return _mm256_cvtepi32_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}
GTE_INLINE Floats load_sums(const int32_t* p) { return {half_load_sums(p), half_load_sums(p + 8)}; }
GTE_INLINE void store_codes(uint8_t* p, Floats v, int zero) {
    const __m256i offset = _mm256_set1_epi32(zero);
    const __m256i low = _mm256_add_epi32(_mm256_cvtps_epi32(v.low), offset);
    const __m256i high = _mm256_add_epi32(_mm256_cvtps_epi32(v.high), offset);
    // Within the two halves of a register: low 0-3, high 0-3 | low 4-7, high 4-7.
    const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

}  // namespace
}  // namespace gte
