// What one instruction set provides: a table of functions over plain memory.
//
// Each kernels_<isa>.cpp defines one table and nothing else that the linker can see. These files, and this header,
// include only C headers: a shared inline function compiled with AVX-512 could otherwise be the copy that the linker
// keeps, and machines without AVX-512 would die in it.
//
// Sums run over k in order, one chain per output element, whatever the shape of the tile: a row's result does not
// depend on the rows beside it, nor on how rows and columns are divided among cores.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

namespace onepass {

enum class Activation {
    identity,
    gelu,          // x Phi(x)
    gelu_tanh,     // x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))
    quick_gelu,    // x sigmoid(1.702 x)
    gelu_clipped,  // gelu, clipped to +-10
    silu,
    relu,
    relu2,
    tanh,
    sigmoid,
    relu_log1p,  // log(1 + max(x, 0))
};

enum class Format { float32, bfloat16 };

// out[rows, columns] = act(a[rows, depth] times the panels, plus bias, plus residual). Strides are in elements from row
// to row.
//
// Gated, every panel has a partner behind it: out = act(a times the first, plus its bias) * (a times the second, plus
// its bias), without a residual. The bias lies as the panels do.
//
// In float32 the panels are [columns / panel_columns][depth][panel_columns]. In bfloat16 (held as uint16_t) they are
// [columns / panel_columns][depth / 2][panel_columns][2], pairs of successive k side by side, and everything comes in
// whole panels: depth is a multiple of panel_columns, filled up with zeros; the rows of `a` have that many finite
// numbers; and an `out` in bfloat16, the next product's `a`, has room for as many columns as the panels, and no
// residual.
struct Product {
    const void* a;
    ptrdiff_t a_stride;
    const void* panels;
    const float* bias;  // [columns, rounded up to whole panels], or null
    const float* residual;
    ptrdiff_t residual_stride;
    void* out;
    ptrdiff_t out_stride;
    int rows, depth, columns;
    Activation activation;
    bool gated;
    Format out_format;  // of product_bf16; product_f32 gives float32
};

// DeBERTa's relative tables of one head, as panels of a product of depth head_size with 2 reach + 1 columns, in the
// format of the attention. Distances beyond +-reach read the outermost column.
struct Disentangled {
    int reach;
    const void* content_to_position;  // token i adds q_i times column j - i + reach to its score for j; or null
    const void* position_to_content;  // token i adds k_j times column i - j + reach to its score for j; or null
};

// One head of one sequence. The score of token i for token j, i and j counted inside the sequence, is
//   s = scale (q_i . k_j + disentangled) + distance_bias[j - i + tokens - 1], or softcap tanh(s / softcap) of that,
// and out_i = the mean of the values that i sees, weighted by the softmax of their scores; 0 where it sees none.
// Token i sees j where j < visible, j <= i if causal, and |i - j| < window.
struct Attention {
    const void *query, *key, *value;  // [tokens, head_size], `stride` elements from token to token; behind each row
    ptrdiff_t stride;                 // are panel_columns more elements, finite ones in bfloat16
    void* out;                        // float, or bfloat16 as the others are
    ptrdiff_t out_stride;
    int tokens, visible, head_size;
    float scale;
    bool causal;
    int window;                        // 0: none
    float softcap;                     // 0: none
    const float* distance_bias;        // [2 tokens - 1], or null
    const Disentangled* disentangled;  // or null
    float* scratch;                    // attention_scratch floats, aligned to 64 bytes
};

struct Kernels {
    const char* name;
    int panel_columns;
    int block_rows;      // that a product takes at a time
    bool bf16_products;  // whether the processor multiplies bfloat16 itself; if not, it takes the time of float32

    void (*product_f32)(const Product*);
    void (*product_bf16)(const Product*);
    void (*attend_f32)(const Attention*);
    void (*attend_bf16)(const Attention*);
    // Floats of scratch that either needs for any sequence of up to `tokens` tokens, with or without disentangled
    // scores.
    size_t (*attention_scratch)(int tokens, int head_size, bool disentangled);
    // x[n] in place: (x - mean) / sqrt(variance + eps) * weight + bias; bias may be null.
    void (*layer_norm)(float* x, const float* weight, const float* bias, float eps, int n);
    // x[n] in place: x / sqrt(mean of squares + eps) * weight.
    void (*rms_norm)(float* x, const float* weight, float eps, int n);
    // x[2 half] in place: (x1, x2) becomes (x1 cos - x2 sin, x2 cos + x1 sin), halves beside each other.
    void (*rotate)(float* x, const float* cosines, const float* sines, int half);
    void (*activate)(Activation, float* x, int n);
    // The sum of e^(x - most) over x[n]; most is the largest of them.
    float (*sum_exponentials)(const float* x, int n, float* most);
    // out[n] = x[n] to the nearest bfloat16, ties to even; then zeros to a whole panel.
    void (*round_bf16)(const float* x, uint16_t* out, int n);
};

}  // namespace onepass

extern "C" {
extern const onepass::Kernels onepass_kernels_portable;
extern const onepass::Kernels onepass_kernels_avx2;
extern const onepass::Kernels onepass_kernels_avx512;
extern const onepass::Kernels onepass_kernels_avx512bf16;
extern const onepass::Kernels onepass_kernels_amx;
}
