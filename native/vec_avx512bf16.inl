// What AVX-512 BF16 adds to the vector type of AVX-512. It takes denormal numbers for zero.

inline __m256i to_bf16(Vec a) {
    const __m256bh rounded = _mm512_cvtneps_pbh(a.v);
    __m256i bits;
    __builtin_memcpy(&bits, &rounded, sizeof bits);
    return bits;
}
inline void store(uint16_t* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(a)); }
inline void store_first(uint16_t* p, Vec a, int n) { _mm256_mask_storeu_epi16(p, first(n), to_bf16(a)); }

// sum + a0 b0 + a1 b1 of pairs.
inline Vec dot(Vec a, Vec b, Vec sum) {
    __m512bh left, right;
    __builtin_memcpy(&left, &a, sizeof left);
    __builtin_memcpy(&right, &b, sizeof right);
    return {_mm512_dpbf16_ps(sum.v, left, right)};
}
