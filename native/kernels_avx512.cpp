// AVX-512 F, BW, DQ, VL: 32 registers, so tiles of 14 rows x 2 vectors.

#include <immintrin.h>

#include "kernels.h"

namespace {

using namespace onepass;

#include "vec_avx512.inl"

constexpr int tile_rows = 14, block_rows = 12;

inline __m256i to_bf16(Vec a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}
inline void store(uint16_t* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(a)); }
inline void store_first(uint16_t* p, Vec a, int n) { _mm256_mask_storeu_epi16(p, first(n), to_bf16(a)); }

#include "bf16_emulated.inl"
#include "bf16_pairs.inl"
#include "kernels.inl"

}  // namespace

extern "C" const Kernels onepass_kernels_avx512 = table("avx512", false);
