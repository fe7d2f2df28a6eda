// AVX-512 BF16: one instruction multiplies 16 pairs and adds up. Float32 is as with AVX-512.

#include <immintrin.h>

#include "kernels.h"

namespace {

using namespace onepass;

#include "vec_avx512.inl"

constexpr int tile_rows = 14, block_rows = 14;

#include "vec_avx512bf16.inl"

#include "bf16_pairs.inl"
#include "kernels.inl"

}  // namespace

extern "C" const Kernels onepass_kernels_avx512bf16 = table("avx512bf16", true);
