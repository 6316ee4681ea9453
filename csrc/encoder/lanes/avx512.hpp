// 16 lanes of floats on AVX-512, for encoder_avx512vnni.cpp and encoder_amx.cpp, inside their region.
namespace gte {
namespace {

using Floats = __m512;

constexpr size_t float_rows = 6, float_columns = 4;
// VNNI multiplies unsigned codes by signed weights, so the codes are stored as they are.
constexpr int activation_bias = 0;

GTE_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
GTE_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
GTE_INLINE Floats zero_floats() { return _mm512_setzero_ps(); }
GTE_INLINE Floats set(float v) { return _mm512_set1_ps(v); }
GTE_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
GTE_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
GTE_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
GTE_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
GTE_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
GTE_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
GTE_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
GTE_INLINE Floats absolute(Floats a) { return _mm512_abs_ps(a); }
GTE_INLINE Floats nearest(Floats a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
GTE_INLINE Floats power_of_two(Floats n) {
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
GTE_INLINE Floats load_int8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
GTE_INLINE void store_codes(uint8_t* p, Floats v, int zero) {
    const __m512i codes = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(zero));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(codes));
}
GTE_INLINE Floats load_sums(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_load_si512(p)); }

}  // namespace
}  // namespace gte
