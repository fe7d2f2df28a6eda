// The matrix product in float32: tiles of up to tile_rows rows by two vectors of columns, held in registers over the
// whole depth.

struct Tile {
    const float* a;
    ptrdiff_t a_stride;
    const float* b;
    ptrdiff_t b_stride;  // from one k to the next
    int depth;
    const float* bias;       // two vectors, or null
    const float* row_scale;  // one factor per row, or null
    const float* residual;   // or null
    ptrdiff_t residual_stride;
    float* out;
    ptrdiff_t out_stride;
    int columns;  // at most panel_columns
};

template <int rows, int vectors>
void multiply_tile(const Tile& tile) {
    Vec sums[rows][vectors];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
        for (Vec& sum : sums[r]) sum = broadcast(0.0f);

    // A few rows use up the weights faster than the processor's own prefetching brings them: look 16 KiB ahead.
    constexpr ptrdiff_t ahead = 16384 / sizeof(float);
    const float* a = tile.a;
    const float* b = tile.b;
    for (int k = 0; k < tile.depth; ++k, b += tile.b_stride) {
        Vec columns[vectors];
#pragma GCC unroll 2
        for (int c = 0; c < vectors; ++c) {
            columns[c] = load(b + c * width);
            __builtin_prefetch(b + ahead + c * width);
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Vec x = broadcast(a[r * tile.a_stride + k]);
#pragma GCC unroll 2
            for (int c = 0; c < vectors; ++c) sums[r][c] = fma(x, columns[c], sums[r][c]);
        }
    }

#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
        for (int c = 0; c < vectors; ++c) {
            const int columns = least(tile.columns - c * width, width);
            Vec value = sums[r][c];
            if (tile.row_scale) value = value * broadcast(tile.row_scale[r]);
            if (tile.bias) value = value + load(tile.bias + c * width);
            const float* residual = tile.residual ? tile.residual + r * tile.residual_stride + c * width : nullptr;
            float* out = tile.out + r * tile.out_stride + c * width;
            if (columns == width) {
                if (residual) value = value + load(residual);
                store(out, value);
            } else {
                if (residual) value = value + load_first(residual, columns);
                store_first(out, value, columns);
            }
        }
    }
}

template <int rows = tile_rows>
inline void multiply_up_to(int count, const Tile& tile) {
    if (count == rows) return tile.columns <= width ? multiply_tile<rows, 1>(tile) : multiply_tile<rows, 2>(tile);
    if constexpr (rows > 1) multiply_up_to<rows - 1>(count, tile);
}

// Rows in blocks of nearly equal height, those of one height together: work(first, blocks, height). AMX tiles have to
// be configured for a height, which takes as long as some products.
template <class Work>
inline void each_height(int rows, int most_rows, const Work& work) {
    const int blocks = (rows + most_rows - 1) / most_rows, low = rows / blocks, higher = rows % blocks;
    if (higher) work(0, higher, low + 1);
    work(higher * (low + 1), blocks - higher, low);
}

// Any number of rows, in tiles of nearly equal height: 15 rows are 8 and 7, not 14 and a slow 1.
void multiply_panel(int rows, Tile tile) {
    const int tiles = (rows + tile_rows - 1) / tile_rows;
    for (int t = 0; t < tiles; ++t) {
        const int count = rows / tiles + (t < rows % tiles ? 1 : 0);
        multiply_up_to(count, tile);
        tile.a += count * tile.a_stride;
        tile.out += count * tile.out_stride;
        if (tile.residual) tile.residual += count * tile.residual_stride;
        if (tile.row_scale) tile.row_scale += count;
    }
}

// out = act(sums) * the partner's, of some rows and up to a panel of columns.
void finish_gated(const Product& p, const float* sums, const float* partner, int first_row, int rows,
                  int first_column) {
    with_kind(p.activation, [&](auto kind) {
        for (int r = first_row; r < first_row + rows; ++r, sums += panel_columns, partner += panel_columns)
            for (int c = 0; c < panel_columns && first_column + c < p.columns; c += width) {
                const Vec value = activated<kind.value>(load(sums + c)) * load(partner + c);
                float* out = static_cast<float*>(p.out) + r * p.out_stride + first_column + c;
                const int rest = p.columns - first_column - c;
                if (rest < width) store_first(out, value, rest);
                else store(out, value);
            }
    });
}

void product_gated_f32(const Product* p) {
    alignas(64) float sums[2][tile_rows * panel_columns];
    const auto multiply_pair = [&](int row, int rows, int column) {
        for (int i = 0; i < 2; ++i) {
            const ptrdiff_t panel = 2 * column + i * panel_columns;
            Tile tile = {};
            tile.a = static_cast<const float*>(p->a) + row * p->a_stride, tile.a_stride = p->a_stride;
            tile.b = static_cast<const float*>(p->panels) + panel * p->depth, tile.b_stride = panel_columns;
            tile.depth = p->depth;
            tile.bias = p->bias ? p->bias + panel : nullptr;
            tile.out = sums[i], tile.out_stride = panel_columns, tile.columns = panel_columns;
            multiply_up_to(rows, tile);
        }
        finish_gated(*p, sums[0], sums[1], row, rows, column);
    };
    for (int column = 0; column < p->columns; column += panel_columns)
        each_height(p->rows, tile_rows, [&](int first, int tiles, int height) {
            for (int tile = 0; tile < tiles; ++tile) multiply_pair(first + tile * height, height, column);
        });
}

void product_f32(const Product* p) {
    if (p->gated) return product_gated_f32(p);
    const float* panel = static_cast<const float*>(p->panels);
    for (int first = 0; first < p->columns; first += panel_columns) {
        const int rest = p->columns - first, columns = rest < panel_columns ? rest : panel_columns;
        Tile tile = {};
        tile.a = static_cast<const float*>(p->a), tile.a_stride = p->a_stride;
        tile.b = panel, tile.b_stride = panel_columns;
        tile.depth = p->depth;
        tile.bias = p->bias ? p->bias + first : nullptr;
        tile.residual = p->residual ? p->residual + first : nullptr, tile.residual_stride = p->residual_stride;
        tile.out = static_cast<float*>(p->out) + first, tile.out_stride = p->out_stride;
        tile.columns = columns;
        multiply_panel(p->rows, tile);
        // the panel's columns of these rows are still in the first cache
        if (p->activation != Activation::identity)
            for (int r = 0; r < p->rows; ++r) activate(p->activation, tile.out + r * p->out_stride, columns);
        panel += static_cast<ptrdiff_t>(p->depth) * panel_columns;
    }
}
