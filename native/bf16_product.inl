// The matrix product in bfloat16. Blocks are multiplied by the instruction set's Multiplier; what comes after the sums
// is done in float32 while the block is in the first cache.

// out = activation(sums + bias + residual) of one block, times its partner if gated. In bfloat16 what lies beyond the
// columns is written, too.
template <class Out, Activation kind>
void finish(const Product& p, const float* sums, const float* partner, int first_row, int rows, int first_column) {
    constexpr bool to_bf16 = sizeof(Out) == sizeof(uint16_t);
    const float* bias = p.bias ? p.bias + first_column * (p.gated ? 2 : 1) : nullptr;
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < panel_columns; c += width) {
            const int rest = p.columns - first_column - c;
            if (rest <= 0 && !to_bf16) continue;
            Vec value = load(sums + r * panel_columns + c);
            if (bias) value = value + load(bias + c);
            if (!to_bf16 && p.residual) {
                const float* residual = p.residual + (first_row + r) * p.residual_stride + first_column + c;
                value = value + (rest < width ? load_first(residual, rest) : load(residual));
            }
            value = to_bf16 ? coarsely_activated<kind>(value) : activated<kind>(value);
            if (p.gated) {
                const Vec factor = load(partner + r * panel_columns + c);
                value = value * (bias ? factor + load(bias + panel_columns + c) : factor);
            }
            Out* out = static_cast<Out*>(p.out) + (first_row + r) * p.out_stride + first_column + c;
            if (to_bf16 || rest >= width) store(out, value);
            else store_first(out, value, rest);
        }
}

void product_bf16(const Product* p) {
    Multiplier multiply;
    alignas(64) float sums[2][block_rows * panel_columns];
    const uint16_t* a = static_cast<const uint16_t*>(p->a);
    const int partners = p->gated ? 2 : 1;
    const auto multiply_and_finish = [&](int first, int rows, int column) {
        const uint16_t* panel =
            static_cast<const uint16_t*>(p->panels) + static_cast<ptrdiff_t>(column) * partners * p->depth;
        for (int i = 0; i < partners; ++i, panel += static_cast<ptrdiff_t>(p->depth) * panel_columns)
            multiply({a + first * p->a_stride, p->a_stride, panel, rows, p->depth, sums[i], panel_columns});
        with_kind(p->activation, [&](auto kind) {
            if (p->out_format == Format::bfloat16)
                finish<uint16_t, kind.value>(*p, sums[0], sums[1], first, rows, column);
            else finish<float, kind.value>(*p, sums[0], sums[1], first, rows, column);
        });
    };
    each_height(p->rows, block_rows, [&](int first, int blocks, int height) {
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
