// One head of one sequence in float32. Keys are transposed into panels once; then a few queries at a time see the keys
// that they may see, so that memory grows with the length and not with its square.

size_t attention_scratch_f32(int tokens, int head_size) {
    const size_t keys = static_cast<size_t>(whole_panels(tokens));
    return keys * static_cast<size_t>(head_size) + keys * tile_rows;
}

// panels[visible / panel_columns][head_size][panel_columns] = scale * key^T, zero beyond the last key.
void transpose_keys(const Attention& task, float scale, float* panels) {
    const Vec factor = broadcast(scale);
    for (int key = 0; key < task.visible; key += width) {
        float* panel = panels + static_cast<ptrdiff_t>(key / panel_columns) * panel_columns * task.head_size;
        for (int d = 0; d < task.head_size; d += width) {
            const int depth = least(task.head_size - d, width);
            Vec square[width];
            for (int i = 0; i < width; ++i) {
                const float* row = static_cast<const float*>(task.key) + (key + i) * task.stride + d;
                if (key + i >= task.visible) square[i] = broadcast(0.0f);
                else square[i] = factor * (depth == width ? load(row) : load_first(row, depth));
            }
            transpose(square);
            for (int i = 0; i < depth; ++i) store(panel + (d + i) * panel_columns + key % panel_columns, square[i]);
        }
    }
    // The last panel's second vector, if no key reached it.
    if ((task.visible + width - 1) / width % 2)
        for (int d = 0; d < task.head_size; ++d) {
            const ptrdiff_t last = whole_panels(task.visible) - panel_columns;
            store(panels + last * task.head_size + d * panel_columns + width, broadcast(0.0f));
        }
}

// scores[n] becomes e^(score - largest); returns one over their sum.
inline float exponentials(float* scores, int n) {
    const int whole = n / width * width, rest = n - whole;
    const Vec peak = broadcast(largest(scores, n));
    Vec total = broadcast(0.0f);
    for (int i = 0; i < whole; i += width) {
        const Vec e = exponential(load(scores + i) - peak);
        store(scores + i, e);
        total = total + e;
    }
    if (rest) {
        store_first(scores + whole, exponential(load_first(scores + whole, rest) - peak), rest);
        total = total + load_first(scores + whole, rest);
    }
    return 1.0f / sum(total);
}

// Plain: as is_plain says, where nothing is spent on what is not asked for.
template <bool plain>
void attend_f32_as(const Attention& task) {
    const int size = task.head_size, all_keys = whole_panels(task.visible);
    const float* queries = static_cast<const float*>(task.query);
    float* key_panels = task.scratch;
    float* scores = key_panels + static_cast<ptrdiff_t>(all_keys) * size;
    transpose_keys(task, plain ? task.scale : 1.0f, key_panels);

    Tile score = {};
    score.a_stride = task.stride, score.b_stride = panel_columns, score.depth = size;
    const auto multiply = [score](const float* a, int rows, const float* panel, int columns, float* out,
                                  ptrdiff_t out_stride) {
        Tile tile = score;
        tile.a = a, tile.b = panel, tile.columns = columns, tile.out = out, tile.out_stride = out_stride;
        multiply_panel(rows, tile);
    };
    float* behind = scores + static_cast<ptrdiff_t>(all_keys) * tile_rows;
    Relative<float, decltype(multiply)> relative(task, size, behind, multiply);
    relative.each_block(tile_rows, [&](int first, int rows) {
        const Span seen = plain ? Span{0, task.visible} : seen_by(task, first, rows);
        const int begin = seen.first / panel_columns * panel_columns, depth = seen.last - begin;
        const int stride = whole_panels(depth);
        score.a = queries + first * task.stride, score.out_stride = stride;
        for (int key = 0; key < stride; key += panel_columns) {
            score.b = key_panels + static_cast<ptrdiff_t>(begin + key) * size;
            score.out = scores + key, score.columns = next_columns(depth - key);
            multiply_up_to(rows, score);
        }

        float one_over_sum[tile_rows];
        for (int r = 0; r < rows; ++r) {
            const Span own = plain ? Span{0, task.visible} : seen_by(task, first + r);
            float* row = scores + static_cast<ptrdiff_t>(r) * stride;
            float* from = row + own.first - begin;
            if (!plain)
                finish_scores(task, relative.of_query(first + r, own.first), relative.of_key(first + r, own.first),
                              first + r, own, from);
            one_over_sum[r] = own.count() ? exponentials(from, own.count()) : 0.0f;
            if (!plain) {
                for (float* unseen = row; unseen < from; ++unseen) *unseen = 0.0f;
                for (float* unseen = from + own.count(); unseen < row + depth; ++unseen) *unseen = 0.0f;
            }
        }

        Tile mix = {};
        mix.a = scores, mix.a_stride = stride;
        mix.b_stride = task.stride, mix.depth = depth;
        mix.row_scale = one_over_sum;
        mix.out_stride = task.out_stride;
        for (int d = 0; d < size; d += panel_columns) {
            // reads past the head's own columns are within the buffer, and what comes of them is not stored
            mix.b = static_cast<const float*>(task.value) + begin * task.stride + d;
            mix.out = static_cast<float*>(task.out) + first * task.out_stride + d;
            mix.columns = least(size - d, panel_columns);
            multiply_up_to(rows, mix);
        }
    });
}

void attend_f32(const Attention* task) {
    if (is_plain(*task)) attend_f32_as<true>(*task);
    else attend_f32_as<false>(*task);
}
