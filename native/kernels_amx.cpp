// AMX BF16: two by two tiles are 32 rows x 32 columns of sums. Float32, and what comes after the sums, is as with
// AVX-512.

#include <immintrin.h>

#include "kernels.h"

namespace {

using namespace onepass;

#include "vec_avx512.inl"

constexpr int tile_rows = 14, block_rows = 32;

#include "bf16_tiles.inl"
#include "vec_avx512bf16.inl"
#include "kernels.inl"

}  // namespace

extern "C" const Kernels onepass_kernels_amx = table("amx", true);
