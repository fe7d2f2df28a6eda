// Blocks of bfloat16 products by `dot`, the sums in registers over the whole depth.

#include "bf16_block.inl"

inline Vec broadcast_pair(const uint16_t* p) {
    float pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return broadcast(pair);
}
inline Vec load_pairs(const uint16_t* p) { return load(reinterpret_cast<const float*>(p)); }

template <int rows, int vectors>
void multiply_rows(const Block& block) {
    Vec sums[rows][vectors];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
        for (Vec& sum : sums[r]) sum = broadcast(0.0f);

    constexpr ptrdiff_t ahead = 16384 / sizeof(uint16_t);  // as in product.inl
    const uint16_t *a = block.a, *b = block.panel;
    for (int k = 0; k < block.depth; k += 2, b += 2 * panel_columns) {
        Vec columns[vectors];
#pragma GCC unroll 2
        for (int c = 0; c < vectors; ++c) {
            columns[c] = load_pairs(b + 2 * c * width);
            __builtin_prefetch(b + ahead + 2 * c * width);
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Vec x = broadcast_pair(a + r * block.a_stride + k);
#pragma GCC unroll 2
            for (int c = 0; c < vectors; ++c) sums[r][c] = dot(x, columns[c], sums[r][c]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < vectors; ++c) store(block.out + r * block.out_stride + c * width, sums[r][c]);
}

class Multiplier {
  public:
    void operator()(const Block& block) { up_to<block_rows>(block); }

  private:
    template <int rows>
    static void up_to(const Block& block) {
        if (block.rows == rows)
            return block.columns == width ? multiply_rows<rows, 1>(block) : multiply_rows<rows, 2>(block);
        if constexpr (rows > 1) up_to<rows - 1>(block);
    }
};
