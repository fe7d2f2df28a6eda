// Blocks of bfloat16 products by `dot`, the sums in registers over the whole depth.

#include "bf16_block.inl"

inline Vec broadcast_pair(const uint16_t* p) {
    float pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return broadcast(pair);
}
inline Vec load_pairs(const uint16_t* p) { return load(reinterpret_cast<const float*>(p)); }

template <int rows>
void multiply_rows(const Block& block) {
    Vec sums[rows][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) sums[r][0] = sums[r][1] = broadcast(0.0f);

    constexpr ptrdiff_t ahead = 16384 / sizeof(uint16_t);  // as in product.inl
    const uint16_t *a = block.a, *b = block.panel;
    for (int k = 0; k < block.depth; k += 2, b += 2 * panel_columns) {
        const Vec b0 = load_pairs(b), b1 = load_pairs(b + 2 * width);
        __builtin_prefetch(b + ahead);
        __builtin_prefetch(b + ahead + 2 * width);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Vec x = broadcast_pair(a + r * block.a_stride + k);
            sums[r][0] = dot(x, b0, sums[r][0]);
            sums[r][1] = dot(x, b1, sums[r][1]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
        store(block.out + r * block.out_stride, sums[r][0]);
        store(block.out + r * block.out_stride + width, sums[r][1]);
    }
}

class Multiplier {
  public:
    void operator()(const Block& block) { up_to<block_rows>(block); }

  private:
    template <int rows>
    static void up_to(const Block& block) {
        if (block.rows == rows) return multiply_rows<rows>(block);
        if constexpr (rows > 1) up_to<rows - 1>(block);
    }
};
