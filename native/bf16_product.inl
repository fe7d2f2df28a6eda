// The matrix product in bfloat16. Blocks are multiplied by the instruction set's Multiplier; what comes after the sums
// is done in float32 while the block is in the first cache.

// Rows in blocks of nearly equal height, those of one height together: work(first, blocks, height). Tiles have to be
// configured for a height, which takes as long as some products.
template <class Work>
inline void each_height(int rows, const Work& work) {
    const int blocks = (rows + block_rows - 1) / block_rows, low = rows / blocks, higher = rows % blocks;
    if (higher) work(0, higher, low + 1);
    work(higher * (low + 1), blocks - higher, low);
}

// out = activation(sums + bias + residual) of one block. In bfloat16 what lies beyond the columns is written, too.
template <class Out, Activation kind>
void finish(const Product& p, const float* sums, int first_row, int rows, int first_column) {
    constexpr bool to_bf16 = sizeof(Out) == sizeof(uint16_t);
    for (int r = first_row; r < first_row + rows; ++r)
        for (int c = first_column; c < first_column + panel_columns; c += width, sums += width) {
            const int rest = p.columns - c;
            if (rest <= 0 && !to_bf16) continue;
            Vec value = load(sums);
            if (p.bias) value = value + load(p.bias + c);
            if (!to_bf16 && p.residual) {
                const float* residual = p.residual + r * p.residual_stride + c;
                value = value + (rest < width ? load_first(residual, rest) : load(residual));
            }
            value = to_bf16 ? coarsely_activated<kind>(value) : activated<kind>(value);
            Out* out = static_cast<Out*>(p.out) + r * p.out_stride + c;
            if (to_bf16 || rest >= width) store(out, value);
            else store_first(out, value, rest);
        }
}

void product_bf16(const Product* p) {
    Multiplier multiply;
    alignas(64) float sums[block_rows * panel_columns];
    const uint16_t* a = static_cast<const uint16_t*>(p->a);
    const uint16_t* panels = static_cast<const uint16_t*>(p->panels);
    const auto multiply_and_finish = [&](int first, int rows, int column) {
        const uint16_t* panel = panels + static_cast<ptrdiff_t>(column) * p->depth;
        multiply({a + first * p->a_stride, p->a_stride, panel, rows, p->depth, sums, panel_columns});
        with_kind(p->activation, [&](auto kind) {
            if (p->out_format == Format::bfloat16) finish<uint16_t, kind.value>(*p, sums, first, rows, column);
            else finish<float, kind.value>(*p, sums, first, rows, column);
        });
    };
    each_height(p->rows, [&](int first, int blocks, int height) {
        for (int column = 0; column < p->columns; column += panel_columns)
            for (int block = 0; block < blocks; ++block) multiply_and_finish(first + block * height, height, column);
    });
}

void round_bf16(const float* x, uint16_t* out, int n) {
    const int whole = n / width * width;
    for (int i = 0; i < whole; i += width) store(out + i, load(x + i));
    for (int i = whole; i < whole_panels(n); i += width)
        store(out + i, i < n ? load_first(x + i, n - i) : broadcast(0.0f));
}
